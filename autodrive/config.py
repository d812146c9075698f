"""The keys at the root of every verb's configuration, with types and bounds; groups are checked by their classes."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Le
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from pydantic import AfterValidator

from autodrive.annotation.config import AnnotateConfig
from autodrive.bounds import (
    Choices,
    Count,
    Fraction,
    FramesPerSecond,
    PathText,
    PositiveNumber,
    Processes,
    Seconds,
    Seed,
    Width,
    one_of,
)
from autodrive.config_check import check_root, check_targets
from autodrive.errors import InputError
from autodrive.evaluation.config import EvaluationKeys, PowerConfig
from autodrive.exporting.config import ParityConfig
from autodrive.schema import SPLITS, Record, Split
from autodrive.students.resolution import Resolution
from autodrive.video.frame_grid import chosen_frames

MAX_FOLDER_NAME = 200
LEADING_FOLDERS = re.compile(r"(?<=-)/?(?:[^/_]+/)+(?=[^/_]+/[^/])")  # of a path, all but its last two parts
BatchSize = Annotated[Count, Le(4096)]


def _resolution(text: str) -> str:
    if text != "auto":
        Resolution.parse(text)
    return text


def _paths(value: Any) -> Any:
    paths = value if isinstance(value, list) else [value]
    if value is not None and not (paths and all(isinstance(path, str) and path for path in paths)):
        raise ValueError("must be a folder, or a list of folders")
    return value


@dataclass
class TrainConfig:
    """Keys at the root of a training's configuration.

    Their values stand in conf/train.yaml: the keys of other verbs, which are composed after it and its experiment,
    would bring a default here along and put it in the place of the experiment's value.

    Attributes:
        seed: Seed of everything random. Runs that differ in it only are replicates within a row of a table.
        clips: A manifest written by `python -m autodrive.prepare`; null prepares `dataset` first.
        source: Folder of the data set, for those that need one.
        fps: Frames per second that the student sees; null where `num_frames` says how many.
        num_frames: Frames of every clip that the student sees, spread evenly over it; null where `fps` says how many.
        duration_s: Length of a window in seconds, when `dataset` is prepared.
        resolution: `AxB` visual tokens per temporal patch (at most A, at least B), `auto`, or `fixed` for a student
            whose frames have one size.
        tokens_per_clip: Budget of visual tokens that `resolution=auto` solves for.
        rank: Rank of an adapter's matrices; null where there is no adapter.
        freeze: Towers of which nothing is trained.
        tower_lr: Peak learning rates of towers that have one of their own.
        lr: Learning rate at the peak of the schedule.
        batch_size: Clip visits per optimiser step, and clips per batch of an evaluation.
        tokens_per_row: Most tokens of a packed row; a step packs its clip visits into as few rows as fit them.
        num_steps: Optimiser steps of the whole training.
        num_workers: Number of loader processes.
        student_from: A run folder whose student a new training starts from, with its family, size and tokenizer; or a
            folder with an adapter in peft's layout, which is put on `student`.
        resume: A run folder to continue in a new one, with its configuration.
        dry_run: Say from records alone what would be taught and asked, and do nothing else.
        table: Published table that a sweep is compared with; null finds it by the swept keys.
        scale: Name of the scale in force.
        axes: For each axis of the paper's tables, the paper's values and those that stand for them at this scale.
    """

    seed: Seed = MISSING
    clips: PathText | None = MISSING
    source: PathText | None = MISSING
    fps: FramesPerSecond | None = MISSING
    num_frames: Annotated[Count, Le(100_000)] | None = MISSING  # as fps: not what would hide a student's own
    duration_s: Seconds = MISSING
    resolution: Annotated[str, AfterValidator(_resolution)] = MISSING
    tokens_per_clip: Count = MISSING
    rank: Width | None = MISSING
    freeze: Any = MISSING
    tower_lr: Any = MISSING
    lr: PositiveNumber = MISSING
    batch_size: BatchSize = MISSING
    tokens_per_row: Count = MISSING
    num_steps: Count = MISSING
    num_workers: Processes = MISSING
    student_from: PathText | None = MISSING
    resume: PathText | None = MISSING
    dry_run: bool = MISSING
    table: PathText | None = MISSING
    scale: str = MISSING
    axes: Any = MISSING
    dataset: Any = MISSING
    annotations: Any = MISSING
    mixture: Any = MISSING
    questions: Any = MISSING
    labels: Any = MISSING
    prompts: Any = MISSING
    student: Any = MISSING
    decoder: Any = MISSING
    frame_cache: Any = MISSING
    adapter: Any = MISSING
    method: Any = MISSING
    optimizer: Any = MISSING
    schedule: Any = MISSING
    evaluation: Any = MISSING
    prepare: Any = MISSING
    trainer: Any = MISSING
    strategy: Any = MISSING
    logger: Any = None
    paths: Any = MISSING


@dataclass
class EvalConfig(TrainConfig):
    """Keys of evaluation; those of training come from the evaluated run.

    Attributes:
        ckpt: A run folder; null evaluates `student` as it is (zero-shot).
        split: The split to evaluate; its name begins the keys of the metrics.
        base_url: Address of the server of `student=endpoint`, up to `/v1`.
        model: The model that is asked there.
    """

    ckpt: PathText | None = MISSING
    split: Annotated[str, one_of(*SPLITS)] = "test"
    base_url: PathText | None = None
    model: PathText | None = None
    logger: Any = MISSING  # a default here would hide the one of conf/train.yaml, which is composed before these keys


@dataclass
class PlanConfig(TrainConfig):
    """Keys of a plan; those of training say what is planned.

    Attributes:
        gpu_memory_gib: Memory of one device, in GiB.
        workload: What is assumed of the data.
        out: A JSON file; null: none.
    """

    gpu_memory_gib: PositiveNumber = MISSING
    workload: Any = MISSING
    out: PathText | None = None


@dataclass
class PredictConfig:
    """Keys of a prediction about one whole video.

    Attributes:
        video: The video file that the student watches.
        ckpt: The run folder whose student watches it: a training's, or that of an evaluation of a released student.
        out: Folder for `timeline.json` and `timeline.png`.
        fps: Frames per second that the student sees.
        num_frames: Frames of every window that it sees, in place of `fps`; null both: as in its training.
        window_s: Length of a window in seconds; null: that of the clips it was trained on.
        stride_s: Seconds between window starts.
        num_orders: Option orders asked of every window and averaged.
        batch_size: Windows in a batch.
        num_workers: Number of loader processes.
        logger: What the timeline is logged to.
        question: A question that is asked about the window shown, answered in free words; null: none.
        ask_as: The task of the run that puts it.
    """

    video: PathText = MISSING
    ckpt: PathText = MISSING
    out: PathText = MISSING
    fps: FramesPerSecond | None = None
    num_frames: Annotated[Count, Le(100_000)] | None = None
    window_s: Seconds | None = None
    stride_s: Seconds = MISSING
    num_orders: Annotated[Count, Le(720)] = MISSING
    batch_size: BatchSize = MISSING
    num_workers: Processes = MISSING
    question: PathText | None = None
    ask_as: str = MISSING
    decoder: Any = MISSING
    frame_cache: Any = MISSING
    logger: Any = None
    paths: Any = MISSING


@dataclass
class ExportConfig:
    """Keys of an export.

    Attributes:
        ckpt: The run folder whose student is exported.
        out: Folder for the files; it must not hold any yet.
        form: `merged`, a whole checkpoint, or `adapter`, the adapter alone in peft's layout.
        dtype: Type of a whole checkpoint's weights, `float32` or `bfloat16`; null: that of the student.
        clips: A manifest with clips to verify on; null: the run's own.
        split: The split of which clips are taken.
        num_clips: Clips that are asked about.
        accelerator: Where it is computed; as the trainer's.
    """

    ckpt: PathText = MISSING
    out: PathText = MISSING
    form: Annotated[str, one_of("merged", "adapter")] = MISSING
    dtype: Annotated[str, one_of("float32", "bfloat16")] | None = None
    clips: PathText | None = None
    split: Annotated[str, one_of(*SPLITS)] = "test"
    num_clips: Annotated[Count, Le(1000)] = MISSING
    accelerator: Annotated[str, one_of("auto", "cpu", "gpu", "cuda")] = MISSING
    paths: Any = MISSING


@dataclass
class PrepareConfig:
    """Keys of preparing a data set; those that are not explained here are in `PrepareSettings`.

    Attributes:
        source: Folder of the data set.
        out: Folder for the manifest and its companions.
        num_workers: Number of scanning threads; null: one per processor, at most 8.
    """

    source: PathText | None = None
    out: PathText = MISSING
    duration_s: Seconds = MISSING
    stride_s: Seconds | None = None
    split_fractions: Any = MISSING
    seed: Seed = MISSING
    keep_witnessed: bool = MISSING
    num_workers: Annotated[Count, Le(256)] | None = None
    dataset: Any = MISSING
    paths: Any = MISSING


@dataclass
class ReportConfig:
    """Keys of a report.

    Attributes:
        runs: A run folder, a sweep folder, or a list of them.
        table: Published table to compare with; null finds it by what the runs vary.
        out: Folder for the table's files.
        wandb: Project of Weights & Biases that the table is logged to, too; null: none.
    """

    runs: Any = None
    table: PathText | None = None
    out: PathText | None = None
    wandb: PathText | None = None


@dataclass
class BenchConfig:
    """Keys of a benchmark; conf/bench.yaml explains them."""

    name: Annotated[str, one_of("tree", "train", "adapters", "ranks", "evaluate", "decode", "loader", "patchify")] = (
        MISSING
    )
    out: PathText | None = None
    repeats: Annotated[Count, Le(1000)] = MISSING
    accelerator: Annotated[str, one_of("auto", "cpu", "gpu", "cuda")] = MISSING
    dtype: Annotated[str, one_of("float32", "bfloat16")] = MISSING
    video: PathText | None = None
    prefix_tokens: Any = MISSING
    branches: Any = MISSING
    tokens_per_row: Count = MISSING
    padded_batch_size: BatchSize = MISSING
    rank: Width = MISSING
    student: Any = MISSING


class PathKeys(Record):
    """What the node `paths` holds.

    Attributes:
        data_dir: Folder of rendered and prepared data sets and of frames that are kept.
    """

    data_dir: PathText


class FreezeKeys(Record):
    """The node `freeze`: for each tower, whether nothing of it is trained."""

    vision: bool
    projector: bool
    language: bool


class TowerRateKeys(Record):
    """The node `tower_lr`: for each tower its own peak learning rate; null where it is `lr`."""

    vision: PositiveNumber | None
    projector: PositiveNumber | None
    language: PositiveNumber | None


class PrepareKeys(Record):
    """The node `prepare`; see `PrepareSettings`."""

    stride_s: Seconds | None
    split_fractions: Mapping[Split, Fraction]
    seed: Seed
    keep_witnessed: bool


# Nodes that no class takes as they are, whichever verb has them.
NODES: Mapping[str, Any] = {
    "axes": Mapping[str, Mapping[str, str | int | float]],
    "evaluation": EvaluationKeys,
    "freeze": FreezeKeys,
    "paths": PathKeys,
    "prepare": PrepareKeys,
    "tower_lr": TowerRateKeys,
    "split_fractions": Mapping[Split, Fraction],
    "runs": Annotated[Any, AfterValidator(_paths)],
    "prefix_tokens": Choices[Annotated[Count, Le(1_000_000)]],
    "branches": Choices[Annotated[Count, Le(1000)]],
}


def check_config(config: DictConfig, keys: type) -> None:
    """Refuse keys that do not exist and values that no work can be done with, before there is any.

    Args:
        config: Configuration of a verb.
        keys: The dataclass above that declares its keys.

    Raises:
        InputError: As `check_root`, `check_targets` and `chosen_frames` do, or `source` would be ignored.
        MissingMandatoryValue: A key without a default was not given.
    """
    check_root(config, keys, NODES)
    if config.get("source") is not None and "source" not in config.dataset:
        fix = "add dataset=video_folder or dataset=nexar, or leave it out"
        raise InputError(f"source={config.source}: this data set reads no folder and would ignore it; {fix}")
    if config.get("source") is not None and config.get("clips") is not None:
        raise InputError(f"source={config.source}: clips={config.clips} is used in its place; leave one of them out")
    if "num_frames" in config and (keys is not PredictConfig or config.fps is not None):
        chosen_frames(config.fps, config.num_frames)
    check_targets(config)


def _axis_values(key: str, *, _root_: DictConfig) -> str:
    """`${axis_values:lr}`: the values of an axis at this scale, as a sweep writes them."""
    return ",".join(str(value) for value in _root_.axes[key].values())


def _folder_name(overrides: str) -> str:
    """`${folder_name:…}`: a job's overrides as the name of one folder, without slashes, quotes and spaces."""
    name = re.sub(r"[^\w.,+-]+", "-", LEADING_FOLDERS.sub("", overrides))
    name = re.sub(r"-{2,}", "-", name).strip("-") or "job"
    if len(name) <= MAX_FOLDER_NAME:
        return name
    return f"{name[:MAX_FOLDER_NAME]}-{hashlib.sha256(overrides.encode()).hexdigest()[:8]}"


def register() -> None:
    """Make the typed keys known to Hydra under the names that the primary configs list first."""
    store = ConfigStore.instance()
    OmegaConf.register_new_resolver("axis_values", _axis_values, replace=True)
    OmegaConf.register_new_resolver("folder_name", _folder_name, replace=True)
    store.store(name="train_keys", node=TrainConfig)
    store.store(name="eval_keys", node=EvalConfig)
    store.store(name="plan_keys", node=PlanConfig)
    store.store(name="predict_keys", node=PredictConfig)
    store.store(name="export_keys", node=ExportConfig)
    store.store(name="prepare_keys", node=PrepareConfig)
    store.store(name="annotate_keys", node=AnnotateConfig)
    store.store(name="report_keys", node=ReportConfig)
    store.store(name="power_keys", node=PowerConfig)
    store.store(name="parity_keys", node=ParityConfig)
    store.store(name="bench_keys", node=BenchConfig)
