"""From a configuration to what is asked about a run's clips, and to whoever answers it.

Beside `assembly`, which makes the students; the two verbs that evaluate call it.
"""

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from autodrive.assembly import build_loaders, build_student, check_trees, saved_student, sharing_of, student_digest
from autodrive.inference.answering import Samples
from autodrive.inference.evaluating import Exam, ask_retention
from autodrive.inference.local import LocalAnswerer
from autodrive.inference.served import ServedAnswerer, ServedModel
from autodrive.mixture.clip_batches import FrameReader, frames_for_people
from autodrive.mixture.datamodule import ClipTreeDataModule
from autodrive.mixture.run_data import RunData
from autodrive.ranks.group import Group
from autodrive.reporting.run_page import FramesOf
from autodrive.runs.machine import device_of
from autodrive.runs.resume import SERVED
from autodrive.schema import Clip, Split
from autodrive.students.student import Student
from autodrive.video.frame_grid import chosen_frames


def build_exam(config: DictConfig, split: Split, group: Group) -> Exam:
    """What is asked about the clips of a split, and under which probes."""
    asked = config.evaluation
    return Exam(
        split,
        tuple(asked.modes),
        tuple(asked.get("slices", ())),
        tuple(asked.get("probes", ())),
        Samples(asked.get("samples", 0), asked.get("temperature", 1.0), config.seed),
        config.seed,
        group,
    )


def build_examinee(config: DictConfig, data: RunData, group: Group) -> Student | ServedModel:
    """Who is evaluated: the student of `ckpt`, an untrained or released one, or a model that somebody serves.

    Where processes share the weights, the first one alone reads them.

    Raises:
        InputError: As `build_student` and `saved_student` do.
    """
    elsewhere = sharing_of(config).shards_weights and not group.leads
    if config.ckpt is not None:
        return saved_student(config, Path(config.ckpt), elsewhere=elsewhere)
    if config.student._target_ == SERVED:
        return instantiate(config.student)
    return build_student(config, data, elsewhere=elsewhere)


def examinee_digest(config: DictConfig, examinee: Student | ServedModel, group: Group) -> str | None:
    """As `student_digest`; None of a model that somebody serves."""
    return None if isinstance(examinee, ServedModel) else student_digest(config, examinee, group)


def trained_student(config: DictConfig, student: Student, run: Path, group: Group) -> Student:
    """The student that a training has left; where no process has all weights, those that the first one wrote."""
    if sharing_of(config).shards_weights:
        return saved_student(config, run, elsewhere=not group.leads)
    return student.as_read()


def retention_before(
    config: DictConfig, data: RunData, student: Student, loaders: ClipTreeDataModule, exam: Exam, path: Path
) -> dict[str, float]:
    """Ask what should not be forgotten before a training begins; a student from nothing could do nothing before.

    A student whose weights the training will cut up cannot be asked before: its like is.

    Args:
        config: Configuration of the training.
        data: Its data, with the questions.
        student: The student that it starts from.
        loaders: Read clips for that student.
        exam: How it is asked.
        path: File of the answers.

    Returns:
        The metrics, see `ask_retention`.
    """
    if config.student_from is None or not data.retention:
        return {}
    if sharing_of(config).shards_weights:
        student = build_student(config, data, elsewhere=not exam.group.leads)
    return ask_retention(build_answerer(config, student, loaders, exam.group), data, exam, path)


def build_answerer(config: DictConfig, student: Student, loaders: ClipTreeDataModule, group: Group) -> LocalAnswerer:
    """A student ready to be asked, by one process or several."""
    device, sharded = device_of(config.trainer.accelerator), sharing_of(config).shards_weights
    return LocalAnswerer(student, loaders, device, group, sharded)


def ready_to_answer(
    config: DictConfig, data: RunData, examinee: Student | ServedModel, exam: Exam
) -> LocalAnswerer | ServedAnswerer:
    """Whoever is evaluated, after what must be seen of them first: that clip trees are exact, or that pictures arrive.

    Raises:
        InputError: It is not so, or the server cannot be asked.
    """
    if isinstance(examinee, ServedModel):
        reader = _frame_reader(config, examinee)
        answerer = ServedAnswerer(examinee, reader, data.writer, _clips_by_id(data), examinee.connect())
        answerer.check()
        return answerer
    loaders = build_loaders(config, data, examinee, exam.group)
    check_trees(config, examinee, lambda: loaders.smallest_asked_clip(exam.split, exam.modes), autocast=False)
    return build_answerer(config, examinee, loaders, exam.group)


def frames_seen(config: DictConfig, data: RunData, examinee: Student | ServedModel) -> FramesOf:
    """Gives the frames of a run's clips as whoever is evaluated sees them, who need not be ready for it."""
    reader, clips = _frame_reader(config, examinee), _clips_by_id(data)
    return lambda clip_id: frames_for_people(reader, clips[clip_id])


def _frame_reader(config: DictConfig, examinee: Student | ServedModel) -> FrameReader:
    sizer = examinee if isinstance(examinee, ServedModel) else examinee.processor
    decoder, cache = instantiate(config.decoder), instantiate(config.frame_cache)
    return FrameReader(decoder, sizer, chosen_frames(config.fps, config.num_frames), cache=cache)


def _clips_by_id(data: RunData) -> dict[str, Clip]:
    return {member.clip.id: member.clip for members in data.clips.values() for member in members}
