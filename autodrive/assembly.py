"""From a configuration and a run's data to the objects of the run, in the order in which they depend on each other.

With `data_assembly`, from which the data come, the only place that sees the whole configuration. Verbs call it; rooms
receive what it builds.
"""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from omegaconf import DictConfig

from autodrive.config_check import key_to_blame
from autodrive.config_identity import config_hash
from autodrive.data_assembly import headline_answers
from autodrive.errors import InputError
from autodrive.inference.answering import weights_digest
from autodrive.mixture.clip_batches import Batching, ClipReader, training_texts
from autodrive.mixture.datamodule import ClipTreeDataModule
from autodrive.mixture.reply_lengths import length_facts, reply_lengths
from autodrive.mixture.run_data import RunData
from autodrive.ranks.group import Group
from autodrive.runs.checkpoints import WholeCheckpoints, checkpoint_to_continue
from autodrive.runs.folder import RunFiles, read_run
from autodrive.runs.frame import Run
from autodrive.runs.machine import device_of
from autodrive.runs.provenance import git_commit
from autodrive.students.bases import check_base_name, is_adapter_folder
from autodrive.students.processor import Processor
from autodrive.students.recipe import StudentSpec
from autodrive.students.resolution import Resolution, solve_resolution
from autodrive.students.self_check import check_once
from autodrive.students.sharding import weights_from_the_first
from autodrive.students.student import Student, load_student
from autodrive.students.towers import TOWERS, Tower
from autodrive.students.tuning import LowRankAdapter, Tuning, make_trainable
from autodrive.tracking.record import JobType, run_record
from autodrive.tracking.tracker import Tracker, UnfailingLogger
from autodrive.training.callbacks import training_callbacks
from autodrive.training.combinations import TrainingChoice
from autodrive.training.fitting import Training, training_lines
from autodrive.training.sft import Steps
from autodrive.training.strategies import Sharing
from autodrive.trees.clip_tree import ClipTree
from autodrive.trees.sharing import Share
from autodrive.video.frame_grid import chosen_frames

log = logging.getLogger(__name__)


def build_student(config: DictConfig, data: RunData, *, elsewhere: bool = False) -> Student:
    """The student that training starts with: that of `student_from`, or a fresh one of `student`'s recipe.

    Args:
        config: Configuration of the run.
        data: Its data; a student from scratch takes its words from them.
        elsewhere: Whether this process leaves it to the first one to read weights, see `weights_from_the_first`.

    Raises:
        InputError: The weights are not there, or as `student_spec` does.
    """
    source = config.student_from and Path(config.student_from)
    if source and not is_adapter_folder(source):
        # Full fine-tuning goes on from the float32 weights that an earlier one left, not from rounded ones.
        dtype = torch.float32 if instantiate(config.adapter).kind == "full" else None
        return saved_student(config, source, dtype, elsewhere=elsewhere)
    return fresh_student(config, training_texts(data.clips["train"], data.writer), elsewhere=elsewhere)


def fresh_student(config: DictConfig, texts: Iterable[str], *, elsewhere: bool = False) -> Student:
    """What the recipe makes, with the adapter that `student_from` names in peft's layout, if it does."""
    spec = student_spec(config)
    if config.student_from is not None:
        check_base_name(Path(config.student_from), spec.base())
    resolution = resolution_of(config, spec)
    with weights_from_the_first(here=elsewhere and spec.base() is not None):
        student = spec.build(texts, resolution, config.seed)
        if config.student_from is not None:
            student.add_adapter(Path(config.student_from))
    return student


def student_digest(config: DictConfig, student: Student, group: Group) -> str | None:
    """Identifies the weights that came from files, as the first process has them; None where the configuration does."""
    digest = None
    if group.leads and (config.get("ckpt") or config.student_from):
        digest = weights_digest(student)
    elif group.leads and student.base is not None:
        digest = student.base.digest()
    return group.from_first(digest)


def check_training(config: DictConfig, group: Group | None = None) -> None:
    """Find a wrong student, resolution, adapter, optimiser, schedule or trainer before anything is prepared.

    Args:
        config: Configuration of a training.
        group: The processes that train together; None where one does.

    Raises:
        InputError: As `student_spec` and `resolution_of` do, settings contradict each other, an adapter does not suit
            the student, or a value does not suit the optimiser or the schedule.
    """
    spec = student_spec(config)
    resolution = resolution_of(config, spec)
    tuning = training_choice(config, spec)
    # Of another run's released student nothing need be at hand but that run: it is checked once it is read.
    if isinstance(tuning, LowRankAdapter) and (config.student_from is None or spec.base() is None):
        tuning.layers(spec.sketch(resolution).towers)
    parameter = torch.nn.Parameter(torch.zeros(1))
    # Classes of other libraries check much of what they are given only when they are built.
    in_a_group = _in_a_group(config, group or Group(), 1.0)
    trials: dict[str, Callable[[DictConfig], Any]] = {
        "optimizer": lambda node: _moving(instantiate(node)([parameter])),
        "schedule": lambda node: instantiate(node)(0),
        "trainer": lambda node: instantiate(node, max_steps=config.num_steps, logger=False, **in_a_group),
    }
    for name, build in trials.items():
        try:
            build(config[name])
        except (TypeError, ValueError, KeyError, InstantiationException) as error:
            key = key_to_blame(config[name], build)
            where = name if key is None else f"{name}.{key}={config[name][key]}"
            text = " ".join(str(error.__cause__ or error).split())
            raise InputError(f"{where}: {text}; fix the value, see --cfg job") from None


def training_choice(config: DictConfig, spec: StudentSpec) -> Tuning:
    """How the configured student is trained.

    Raises:
        InputError: Settings contradict each other.
    """
    tuning: Tuning = instantiate(config.adapter)
    choice = TrainingChoice(
        tuning=tuning,
        rank=config.rank,
        frozen=frozen_towers(config),
        tower_lr=_tower_lr(config),
        precision=config.trainer.precision,
        from_scratch=spec.name if spec.base() is None and config.student_from is None else None,
        strategy=sharing_of(config).kind,
        optimizer=config.optimizer._target_,
    )
    choice.check()
    return tuning


def frozen_towers(config: DictConfig) -> tuple[Tower, ...]:
    """Towers of which nothing is to be trained."""
    return tuple(tower for tower in TOWERS if config.freeze[tower])


def _tower_lr(config: DictConfig) -> dict[Tower, float]:
    return {tower: config.tower_lr[tower] for tower in TOWERS if config.tower_lr[tower] is not None}


def _moving(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    if not optimizer.param_groups[0].get("lr", 1) > 0:
        raise ValueError("a learning rate of 0 would train nothing")
    return optimizer


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


def saved_student(
    config: DictConfig, run: Path, dtype: torch.dtype | None = None, *, elsewhere: bool = False
) -> Student:
    """The student that a run folder holds, set to this configuration's resolution.

    Args:
        config: Configuration of this run.
        run: The run folder.
        dtype: As in `load_student`.
        elsewhere: Whether this process leaves it to the first one to read weights, see `weights_from_the_first`.
    """
    with weights_from_the_first(here=elsewhere):
        student = load_student(RunFiles(run).student, dtype)
    resolution = resolution_of(config, student.processor)
    student.processor = student.processor.with_resolution(resolution)
    return student


def resolution_of(config: DictConfig, student: StudentSpec | Processor) -> Resolution:
    """The configured resolution; `auto` is solved from `tokens_per_clip`, and the solution is logged.

    Args:
        config: Configuration of the run.
        student: Recipe or processor of the student.

    Raises:
        InputError: The student's frames have one size and a resolution is given, or the other way round.
    """
    if student.fixed_resolution != (config.resolution == "fixed"):
        if student.fixed_resolution:
            found = f"resolution={config.resolution}: frames of student={config.student.name} have one size"
            raise InputError(f"{found}; give resolution=fixed")
        raise InputError(f"resolution=fixed: frames of student={config.student.name} have none; give resolution=AxB")
    if config.resolution != "auto":
        return Resolution.parse(config.resolution)
    num_frames = chosen_frames(config.fps, config.num_frames).num_frames(config.duration_s)
    resolution, num_tokens = solve_resolution(num_frames, config.tokens_per_clip, student.frames_per_group)
    log.info("resolution=auto: %s, at most %d of %d tokens a clip", resolution, num_tokens, config.tokens_per_clip)
    return resolution


def build_reader(config: DictConfig, student: Student) -> ClipReader:
    """Reads clips the way this student wants them."""
    cache = instantiate(config.frame_cache)
    frames = chosen_frames(config.fps, config.num_frames)
    return ClipReader(instantiate(config.decoder), student.processor, frames, cache=cache)


def build_loaders(
    config: DictConfig, data: RunData, student: Student, group: Group | None = None
) -> ClipTreeDataModule:
    """Loaders that read clips the way this student wants them; those of training where the data have a plan.

    The processes of `group` share what is read; where it is None, one reads all.
    """
    batching = Batching(
        batch_size=config.batch_size,
        tokens_per_row=config.tokens_per_row,
        num_workers=config.num_workers,
        loss_mean=data.mixture.loss_mean,
        share=Share() if group is None else Share(group.rank, group.size),
        width=student.text_model.config.hidden_size,
    )
    schedule = None if data.plan is None else data.mixture.schedule(data.plan, config.batch_size)
    reader = build_reader(config, student)
    return ClipTreeDataModule(data.clips, schedule, reader, data.writer, batching, config.num_steps)


def build_training(
    config: DictConfig, data: RunData, student: Student, loaders: ClipTreeDataModule, run: Run
) -> Training:
    """Method, trainer, loggers and callbacks, and the checkpoint that a resumed run continues from.

    Raises:
        InputError: The adapter does not suit the student, the run that is resumed saw other data, or its checkpoints
            are not its own.
    """
    assert run.inputs is not None
    tower_lr, group, sharing = _tower_lr(config), run.group, sharing_of(config)
    make_trainable(student.towers, instantiate(config.adapter), frozen_towers(config), config.seed)
    counts = student.towers.counts()
    frames = chosen_frames(config.fps, config.num_frames)
    remarks = student.processor.remarks(frames.num_frames(config.duration_s), frames.rate(config.duration_s))
    for line in (*student.adapter_lines(), *frames.lines(), *remarks, *training_lines(counts, tower_lr, config.lr)):
        log.info(line)
    optimizer, schedule = instantiate(config.optimizer), instantiate(config.schedule)
    steps = Steps(optimizer, schedule, tower_lr, config.seed, sharing, group)
    answers = headline_answers(data.clips["val"], data.writer.book)
    method = instantiate(config.method)(student=student, steps=steps, answers=answers)
    resume_from = config.resume and checkpoint_to_continue(config.resume, run.inputs, method.trained_weights())
    files = run.files
    choosing = bool(method.answers)
    callbacks = training_callbacks(files, config.batch_size, choosing=choosing, resume=config.resume, group=group)
    trainer = instantiate(
        config.trainer,
        max_steps=config.num_steps,
        callbacks=list(callbacks),
        logger=build_loggers(config, files.folder) if group.leads else [],
        default_root_dir=str(files.folder),
        **_in_a_group(config, group, method.max_grad_norm, WholeCheckpoints(run.inputs)),
    )
    return Training(method, loaders, trainer, callbacks, resume_from, counts)


def check_reply_lengths(data: RunData, student: Student) -> dict[str, Any]:
    """Say which limits of replies are below what is taught, before the hours that a training takes.

    Returns:
        What `provenance.json` says of all of them.
    """
    assert data.plan is not None, "nothing to train"
    lengths = reply_lengths(data.plan.clips, data.writer, student.processor)
    for line in filter(None, (length.line for length in lengths)):
        log.warning(line)
    return {"reply_lengths": length_facts(lengths)}


def _in_a_group(config: DictConfig, group: Group, max_grad_norm: float, *plugins: Any) -> dict[str, Any]:
    """What Lightning's trainer is told of the processes that train together, which have met already."""
    strategy = sharing_of(config).for_lightning(group.size, max_grad_norm)
    # Or Lightning would look for a launcher itself, and take a shell in a Slurm job for one of several processes.
    return {"strategy": strategy, "plugins": [*plugins, LightningEnvironment()]}


def sharing_of(config: DictConfig) -> Sharing:
    """How several processes take steps together, as configured."""
    return instantiate(config.strategy)


def check_trees(config: DictConfig, student: Student, clip: Callable[[], ClipTree | None], autocast: bool) -> None:
    """Move a student to its device and see, once a machine, that clip trees are exact there; see `check_once`.

    A process that has not read the weights leaves that to the first one.

    Args:
        config: Configuration of the run.
        student: The student as it will work.
        clip: Gives a clip to try it with.
        autocast: Whether the forward pass computes in bfloat16 whatever the type of the weights.
    """
    if any(parameter.is_meta for parameter in student.parameters()):
        return
    student.to(device_of(config.trainer.accelerator))
    check_once(student, clip, autocast, Path(config.paths.data_dir))


def build_loggers(config: DictConfig, folder: Path) -> list[UnfailingLogger]:
    """Lightning's loggers as configured, which write into a folder and cannot end the run."""
    nodes = (config.logger or {}).values()
    return [UnfailingLogger(instantiate(logger, save_dir=str(folder))) for logger in nodes]


def build_tracker(
    config: DictConfig, run: Run, job_type: JobType, data: RunData, training: Training | None = None
) -> Tracker:
    """The loggers of a run that has begun, and what they are told of it: its configuration, data and parameters."""
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    facts: dict[str, Any] = {"data": data.facts(), "training": training.facts() if training else {}}
    facts["run"] = {"commit": git_commit(Path(__file__).resolve().parents[1]), "config_hash": config_hash(config)}
    sweep = hydra is not None and hydra.mode == RunMode.MULTIRUN
    record = run_record(read_run(run.files.folder), job_type, facts, sweep=sweep)
    loggers = build_loggers(config, run.files.folder) if run.group.leads and not training else []
    return Tracker(training.loggers if training else loggers, record)
