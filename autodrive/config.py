"""The typed keys at the root of `conf/train.yaml` and `conf/eval.yaml`; groups are checked by their classes."""

import hashlib
import json
import re
from dataclasses import dataclass, fields
from typing import Any, get_args

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from autodrive.errors import InputError
from autodrive.schema import Mode, Split

POSITIVE_KEYS = ("fps", "duration_s", "tokens_per_clip", "lr", "batch_size", "tokens_per_row", "num_steps")
NON_NEGATIVE_KEYS = ("seed", "num_workers")
# Where, how fast and by what way a run is made rather than what it computes: they may differ when it is continued. The
# student that a run starts from is known by its weights, wherever its folder lies.
MACHINE_KEYS = frozenset({"resume", "student_from", "num_workers", "paths", "logger"})
MAX_FOLDER_NAME = 200
LEADING_FOLDERS = re.compile(r"(?<=-)/?(?:[^/_]+/)+(?=[^/_]+/[^/])")  # of a path, all but its last two parts


@dataclass
class TrainConfig:
    """Keys of training.

    Attributes:
        seed: Seed of everything random. Runs that differ in it only are replicates within a row of a table.
        clips: A manifest written by `python -m autodrive.prepare`; null prepares `dataset` first.
        source: Folder of the data set, for those that need one.
        fps: Frames per second that the student sees.
        duration_s: Length of a window in seconds, when `dataset` is prepared.
        resolution: `AxB` visual tokens per temporal patch (at most A, at least B), or `auto`.
        tokens_per_clip: Budget of visual tokens that `resolution=auto` solves for.
        lr: Peak learning rate.
        batch_size: Clip visits per optimiser step, and clips per batch of an evaluation.
        tokens_per_row: Most tokens of a packed row; a step packs its clip visits into as few rows as fit them.
        num_steps: Optimiser steps of the whole training.
        num_workers: Number of loader processes.
        student_from: A run folder whose student a new training starts from, with its family, size and tokenizer.
        resume: A run folder to continue in a new one, with its configuration.
        table: Published table that a sweep is compared with; null finds it by the swept keys.
        scale: Name of the scale in force.
        axes: For each axis of the paper's tables, the paper's values and those that stand for them at this scale.
    """

    seed: int = MISSING
    clips: str | None = None
    source: str | None = None
    fps: float = MISSING
    duration_s: float = MISSING
    resolution: str = MISSING
    tokens_per_clip: int = MISSING
    lr: float = MISSING
    batch_size: int = MISSING
    tokens_per_row: int = MISSING
    num_steps: int = MISSING
    num_workers: int = MISSING
    student_from: str | None = None
    resume: str | None = None
    table: str | None = None
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
    method: Any = MISSING
    optimizer: Any = MISSING
    schedule: Any = MISSING
    evaluation: Any = MISSING
    prepare: Any = MISSING
    trainer: Any = MISSING
    logger: Any = None
    paths: Any = MISSING


@dataclass
class EvalConfig(TrainConfig):
    """Keys of evaluation; those of training come from the evaluated run.

    Attributes:
        ckpt: A run folder; null evaluates `student` as it is (zero-shot).
        split: The split to evaluate; its name begins the keys of the metrics.
    """

    ckpt: str | None = MISSING
    split: str = "test"


def check_values(config: DictConfig) -> None:
    """Refuse what no run can work with before anything is rendered, prepared or loaded.

    Raises:
        InputError: A key at the root is unknown (`+key=` passes Hydra), or a value is out of its range.
    """
    unknown = [str(key) for key in config if key not in {field.name for field in fields(EvalConfig)}]
    if unknown:
        raise InputError(f"+{unknown[0]}: there is no such key; check the spelling, or leave it out")
    for key in POSITIVE_KEYS:
        if config[key] <= 0:
            raise InputError(f"{key}={config[key]:g}: must be above 0")
    for key in NON_NEGATIVE_KEYS:
        if config[key] < 0:
            raise InputError(f"{key}={config[key]}: must not be negative")
    if config.get("split", "test") not in get_args(Split):
        raise InputError(f"split={config.split}: choose one of {', '.join(get_args(Split))}")
    modes = list(config.evaluation.modes)
    if not modes or not set(modes) <= set(get_args(Mode)):
        raise InputError(f"evaluation.modes=[{','.join(modes)}]: choose from {', '.join(get_args(Mode))}")


def config_hash(config: DictConfig) -> str:
    """Identifies what a configuration computes: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(computed_values(config), sort_keys=True, default=str).encode()).hexdigest()[:16]


def computed_values(config: DictConfig) -> dict[str, Any]:
    """What a configuration computes with, as plain values: all of it but what only says where and how fast."""
    content = OmegaConf.to_container(config, resolve=True)
    assert isinstance(content, dict)
    kept = {str(key): value for key, value in content.items() if key not in MACHINE_KEYS | {"frame_cache"}}
    if (codec := lossy_codec(config)) is not None:
        kept["frame_cache"] = codec
    return kept


def lossy_codec(config: DictConfig) -> Any:
    """What the frame cache does to pixels: its codec; None where frames stay as they were decoded."""
    node = OmegaConf.select(config, "frame_cache.codec")
    if node is None or node["_target_"].endswith(".RawCodec"):
        return None
    return OmegaConf.to_container(node, resolve=True)


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
