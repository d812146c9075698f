"""Continuing interrupted work: a run in a new folder, a sweep in its old one."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from autodrive.config import MACHINE_KEYS
from autodrive.errors import InputError

# Keys that say where and how fast a run works, not what it computes: they may differ when it is continued.
# Groups without a node of their own in the configuration: they are compared by the option chosen.
SPREAD_GROUPS = ("experiment", "scale")
# What a saved student settles, so that saying it again could only contradict it.
SETTLED_BY_CKPT = ("student", *SPREAD_GROUPS)


def config_hash(config: DictConfig) -> str:
    """Identifies what a configuration computes: 16 hexadecimal digits."""
    content = OmegaConf.to_container(config, resolve=True)
    assert isinstance(content, dict)
    kept = {str(key): value for key, value in content.items() if key not in MACHINE_KEYS | {"frame_cache"}}
    if (codec := lossy_codec(config)) is not None:
        kept["frame_cache"] = codec
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:16]


def lossy_codec(config: DictConfig) -> Any:
    """What the frame cache does to pixels: its codec; None where frames stay as they were decoded."""
    node = OmegaConf.select(config, "frame_cache.codec")
    if node is None or node["_target_"].endswith(".RawCodec"):
        return None
    return OmegaConf.to_container(node, resolve=True)


def run_config(run: Path) -> DictConfig:
    """The configuration a run folder was made with.

    Raises:
        InputError: the folder is not a run's.
    """
    path = run / ".hydra" / "config.yaml"
    if not path.is_file():
        raise InputError(f"{run}: not a run folder (no .hydra/config.yaml); give the folder that train.py wrote")
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    return config


def save_config(config: DictConfig, run_dir: Path) -> None:
    """Write what a run computes with, which may be more than its command line: a resumed or evaluated run's keys."""
    (run_dir / ".hydra").mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, run_dir / ".hydra" / "config.yaml")


def overridden_keys(overrides: Sequence[str]) -> list[str]:
    """Keys or groups that a command line sets, in order, with dots as separators."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [(o.package or o.key_or_group).replace("/", ".") for o in parsed]


def resumed_config(config: DictConfig, overrides: Sequence[str], choices: Mapping[str, str | None]) -> DictConfig:
    """The configuration to train with: the given one, or with `resume=<run>` that run's.

    Args:
        config: composed from the command line.
        overrides: of the command line.
        choices: the option taken of each group, by Hydra.

    Raises:
        InputError: the run cannot be resumed, or the command line asks for something else than the run did.
    """
    if config.resume is None:
        return _with_student_of(config, overrides)
    run = Path(config.resume)
    resumed = run_config(run)
    if not (run / "checkpoints" / "last.ckpt").is_file():
        raise InputError(f"resume={run}: no checkpoints/last.ckpt there; it was stopped before its first validation")
    earlier_choices = _choices(run)
    for key in overridden_keys(overrides):
        if key.split(".")[0] == "frame_cache" and lossy_codec(config) == lossy_codec(resumed):
            key = "frame_cache"  # the same pixels, kept elsewhere or not at all
        elif key.split(".")[0] not in MACHINE_KEYS:
            same_choice = key not in SPREAD_GROUPS or choices.get(key) == earlier_choices.get(key)
            if not same_choice or OmegaConf.select(config, key) != OmegaConf.select(resumed, key):
                raise InputError(f"resume={run}: {key} differs from that run's; leave it out, or start a new run")
            continue
        OmegaConf.update(resumed, key, OmegaConf.select(config, key), merge=False)
    resumed.resume = str(run)
    return resumed


def _with_student_of(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """With `student_from=<run>`: the configuration with that run's student in the place of the default one.

    Raises:
        InputError: The run has no student, or the command line asks for another one.
    """
    if config.student_from is None:
        return config
    run = Path(config.student_from)
    if not (run / "checkpoints" / "student").is_dir():
        raise InputError(f"student_from={run}: no checkpoints/student there; give the folder of a finished training")
    student = run_config(run).student
    given = [key for key in overridden_keys(overrides) if key.split(".")[0] == "student"]
    if given and config.student != student:
        raise InputError(f"{given[0]}: differs from the student of student_from={run}; leave it out")
    OmegaConf.update(config, "student", student, merge=False)
    return config


def resume_checkpoint(config: DictConfig, run_dir: Path, data_fingerprint: str) -> str | None:
    """The Lightning checkpoint to continue from, if any; leaves the clips' fingerprint where this run's will lie.

    Raises:
        InputError: the run that is resumed saw other clips, labels or splits.
    """
    note = run_dir / "checkpoints" / "data_fingerprint.txt"
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(data_fingerprint + "\n")
    if config.resume is None:
        return None
    earlier = Path(config.resume) / "checkpoints"
    if (earlier / note.name).read_text().strip() != data_fingerprint:
        raise InputError(
            f"resume={config.resume}: the clips, labels or splits have changed since that run; restore them"
        )
    return str(earlier / "last.ckpt")


def finished_metrics(run_dir: Path, config: DictConfig) -> dict[str, float] | None:
    """Metrics of a job that is already done in this folder; None if it has to run.

    Raises:
        InputError: the folder holds a finished run of another configuration.
    """
    metrics, provenance = run_dir / "metrics.json", run_dir / "provenance.json"
    if not (metrics.is_file() and provenance.is_file()):
        return None
    if json.loads(provenance.read_text())["config_hash"] != config_hash(config):
        raise InputError(f"{run_dir}: holds a finished run of another configuration; choose another folder")
    return json.loads(metrics.read_text())


def with_run_config(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """With `ckpt=<run>`: that run's configuration, changed only where the command line says so.

    Raises:
        InputError: `ckpt` is no run folder, or the command line also sets what comes with it.
    """
    if config.ckpt is None:
        return _with_student_of(config, overrides)
    merged = run_config(Path(config.ckpt))
    keys = overridden_keys(overrides)
    settled = [key for key in keys if key.split(".")[0] in SETTLED_BY_CKPT]
    if settled:
        raise InputError(f"{settled[0]}: comes with ckpt={config.ckpt}; leave it out, or give ckpt=null")
    for key in ("ckpt", *keys):
        OmegaConf.update(merged, key, OmegaConf.select(config, key), merge=False)
    for key in config:
        if key not in merged:
            merged[key] = config[key]
    return merged


def _choices(run: Path) -> Mapping[str, str | None]:
    path = run / ".hydra" / "hydra.yaml"
    return (OmegaConf.select(OmegaConf.load(path), "hydra.runtime.choices") or {}) if path.is_file() else {}
