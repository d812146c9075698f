"""From a configuration to the objects of a run, in the order in which they depend on each other.

Shared by `train.py`, `eval.py` and `autodrive.predict`, so that all read the same clips in the same way.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from autodrive.annotation.sources import AnnotationSource
from autodrive.annotation.supply import AnnotatedClip, Supply, supply
from autodrive.datasets.manifest import load_clips
from autodrive.errors import InputError
from autodrive.labels import LabelSet
from autodrive.mixture.datamodule import BranchWriter, ClipReader, ClipTreeDataModule, training_texts
from autodrive.mixture.epoch import EpochPlan
from autodrive.mixture.mixture import Mixture
from autodrive.mixture.selection import Selection, select_clips
from autodrive.prepare import prepare
from autodrive.schema import Clip, SetAside, Split
from autodrive.students.preprocessing import Resolution, solve_resolution
from autodrive.students.student import Student, StudentSpec, load_student
from autodrive.tasks.task_book import TaskBook
from autodrive.video.frame_grid import FrameGrid

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunData:
    """What a run knows about its clips before any model exists.

    Attributes:
        labels: The run's classes.
        writer: Renders prompts and targets.
        selection: Which clips are used, and which are not.
        mixture: The training recipe.
        clips: The used clips by split, with what training teaches or evaluation asks.
        annotations_set_aside: Annotations that no use is made of, with the reason.
    """

    labels: LabelSet
    writer: BranchWriter
    selection: Selection
    mixture: Mixture
    clips: dict[Split, list[AnnotatedClip]]
    annotations_set_aside: list[SetAside]

    @property
    def set_aside(self) -> list[SetAside]:
        """Clips and annotations that no use is made of, with the reason."""
        return [*self.selection.dropped, *self.annotations_set_aside]


def prepared_manifest(config: DictConfig) -> Path:
    """The manifest of a run: `clips` if given, else `dataset`, prepared below `paths.data_dir`.

    An earlier run's manifest is brought up to date, which takes little time: files that were scanned once are not
    scanned again, and a source that has changed since is noticed.
    """
    if config.clips is not None:
        return Path(config.clips)
    settings = {
        "dataset": OmegaConf.to_container(config.dataset, resolve=True),
        "duration_s": config.duration_s,
        "prepare": OmegaConf.to_container(config.prepare, resolve=True),
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]
    adapter = instantiate(config.dataset)
    out = Path(config.paths.data_dir) / f"{adapter.name}-{digest}"
    prepare(
        adapter,
        out,
        duration_s=config.duration_s,
        stride_s=config.prepare.stride_s,
        split_fractions=OmegaConf.to_container(config.prepare.split_fractions),  # type: ignore[arg-type]
        seed=config.prepare.seed,
        data_dir=Path(config.paths.data_dir),
    )
    return out / "clips.jsonl"


def load_run_data(config: DictConfig, needed: Sequence[Split], asked: Sequence[Split] = ("val", "test")) -> RunData:
    """Clips, classes and annotations of a run.

    Args:
        config: The run's configuration.
        needed: Splits that must hold clips.
        asked: Splits that are annotated by `questions`; the others by `annotations`.

    Raises:
        InputError: As `select_clips`, `Mixture`, the sources and the manifest's loader do.
    """
    labels: LabelSet = instantiate(config.labels)
    book: TaskBook = instantiate(config.prompts)
    mixture: Mixture = instantiate(config.mixture)
    teaching, asking = (
        {str(name): cast(AnnotationSource, instantiate(source)) for name, source in group.items()}
        for group in (config.annotations, config.questions)
    )
    clips = load_clips(prepared_manifest(config))
    known = {clip.id for clip in clips}

    def supplied(sources: dict[str, AnnotationSource], members: Sequence[Clip]) -> Supply:
        return supply(sources, members, known, book, labels, config.seed)

    taught = supplied(teaching, [clip for clip in clips if clip.split not in (None, *asked)])
    questions = supplied(asking, [clip for clip in clips if clip.split in asked])
    by_id = {member.clip.id: member for member in (*taught.clips, *questions.clips)}
    selection = select_clips(clips, by_id, labels, FrameGrid(config.fps), needed)
    set_aside = [*taught.set_aside, *questions.set_aside]
    if set_aside:
        reasons = ", ".join(f"{n} {reason}" for reason, n in Counter(s.reason for s in set_aside).most_common())
        log.warning("%d annotations are set aside (%s); each is in dropped.jsonl", len(set_aside), reasons)
    return RunData(labels, BranchWriter(book, labels), selection, mixture, selection.clips, set_aside)


def epoch_plan(config: DictConfig, data: RunData) -> EpochPlan:
    """What an epoch of training visits and teaches.

    Raises:
        InputError: The mixture does not fit the clips or the sources, or validation would have nothing to ask.
    """
    plan = data.mixture.plan(data.clips["train"], tuple(config.annotations), config.seed)
    if not headline_answers(data.clips["val"], data.writer.book):
        headline = data.writer.book.headline
        raise InputError(
            f"questions: none of task {headline} with options for the val split, by which the best checkpoint is "
            "chosen; add such a source, or choose another task as prompts.headline"
        )
    return plan


def build_student(config: DictConfig, data: RunData) -> Student:
    """The student that training starts with: that of `student_from`, or a fresh one of `student`'s recipe.

    Raises:
        InputError: The weights are not there, or as `student_spec` does.
    """
    if config.student_from is not None:
        return saved_student(config, Path(config.student_from))
    spec = student_spec(config)
    texts = training_texts(data.clips["train"], data.writer)
    return spec.build(texts, config.fps, resolution_of(config, spec.frames_per_group), config.seed)


def check_student(config: DictConfig) -> None:
    """Find a wrong `student` or `resolution` before anything is prepared.

    Raises:
        InputError: As `student_spec` and `resolution_of` do.
    """
    resolution_of(config, student_spec(config).frames_per_group)


def student_spec(config: DictConfig) -> StudentSpec:
    """The recipe of the configured student.

    Raises:
        InputError: A full-size student meets a laptop's values.
    """
    spec: StudentSpec = instantiate(config.student)
    if spec.full_size and config.scale == "tiny":
        message = f"student={spec.name} is full size but scale=tiny sets a laptop's frame rate, resolution and lr"
        raise InputError(f"{message}; add scale=paper")
    return spec


def saved_student(config: DictConfig, run: Path) -> Student:
    """The student that a run folder holds, set to this configuration's frame rate and resolution."""
    student = load_student(run / "checkpoints" / "student")
    resolution = resolution_of(config, student.processor.frames_per_group)
    student.processor = student.processor.with_settings(config.fps, resolution)
    return student


def device_of(accelerator: str) -> torch.device:
    """Where a student works outside of the trainer, which leaves it on the CPU; `accelerator` as the trainer's."""
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def resolution_of(config: DictConfig, frames_per_group: int) -> Resolution:
    """The configured resolution; `auto` is solved from `tokens_per_clip`, and the solution is logged.

    Args:
        config: Configuration of the run.
        frames_per_group: Frames of this student that share a group of visual tokens.
    """
    if config.resolution != "auto":
        return Resolution.parse(config.resolution)
    num_frames = round(config.fps * config.duration_s)
    resolution, num_tokens = solve_resolution(num_frames, config.tokens_per_clip, frames_per_group)
    log.info("resolution=auto: %s, at most %d of %d tokens a clip", resolution, num_tokens, config.tokens_per_clip)
    return resolution


def build_data_module(
    config: DictConfig, data: RunData, student: Student, plan: EpochPlan | None = None
) -> ClipTreeDataModule:
    """Loaders that read clips the way this student wants them; with a plan, also those of training."""
    reader = ClipReader(
        instantiate(config.decoder), student.processor, FrameGrid(config.fps), cache=instantiate(config.frame_cache)
    )
    return ClipTreeDataModule(
        data.clips,
        data.mixture.schedule(plan, config.batch_size) if plan else None,
        reader,
        data.writer,
        batch_size=config.batch_size,
        tokens_per_row=config.tokens_per_row,
        loss_mean=data.mixture.loss_mean,
        num_steps=config.get("num_steps", 0),
        num_workers=config.num_workers,
    )


def headline_answers(clips: Sequence[AnnotatedClip], book: TaskBook) -> dict[str, int]:
    """Index of the right option by annotation id, for the headline task's questions about these clips."""
    return book.headline_answers(annotation for clip in clips for annotation in clip.annotations)
