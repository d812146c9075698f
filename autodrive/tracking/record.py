"""What loggers are told of a run before it works: its name and kind, tags, and a flat configuration to filter by."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import MaxLen
from omegaconf import DictConfig, OmegaConf
from pydantic import Field

from autodrive.config_check import HYDRA_KEYS
from autodrive.config_identity import MACHINE_KEYS, PLACES_OF_DATA
from autodrive.runs.folder import (
    RunFolder,
    Value,
    group_choices,
    load_configuration,
    parse_overrides,
    read_json,
)
from autodrive.schema import Record
from autodrive.whole_files import whole

JobType = Literal["train", "eval", "predict", "table"]
Scalar = str | int | float | bool

IDENTITY_FILE = "wandb.json"
TAGGED = ("experiment", "table", "dataset", "student", "adapter")
LONGEST_TAG = 64  # of Weights & Biases
LONGEST_VALUE = 250  # MLflow cuts longer ones, and nobody filters by them
LONGEST_NAME = 120
# Keys whose values say where something lies. What lies there is known by the data fingerprint and the digests.
PLACES = frozenset({*MACHINE_KEYS, *PLACES_OF_DATA, "ckpt", "video", "out", "hydra"})
PLACE_NAMES = frozenset({"path", "folder", "root"})
SEPARATOR = re.compile(r"[/\\]")
MACHINE_PATH = re.compile(r"""(?<![\w.)\]<>])(?:~\w*/|[A-Za-z]:\\|\\\\|/)(?=[\w.~])[^\s"',;]*""")


class Identity(Record):
    """The W&B run that a folder's run is logged as: what `wandb.json` holds.

    Attributes:
        project: The run's project.
        id: Identifies the run within its project.
        name: Its name for people.
        group: The group that it belongs to.
    """

    project: Annotated[str, MaxLen(200)]
    id: Annotated[str, Field(pattern=r"^[\w-]{1,64}$")]
    name: str
    group: str | None = None

    @classmethod
    def of(cls, folder: Path) -> "Identity | None":
        """The W&B run that a folder's run is logged as; None if it is not, or not known."""
        found = read_json(folder / IDENTITY_FILE)
        try:
            return cls.model_validate(found)
        except ValueError:
            return None

    def save(self, folder: Path) -> None:
        """Write it into a folder."""
        with whole(folder / IDENTITY_FILE) as partial:
            partial.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class RunRecord:
    """What every logger is told of a run.

    Attributes:
        name: The run for people: a job of a sweep by what its command line sets, any other by its folder.
        job_type: What kind of work it is.
        group: What it is shown with, such as a sweep.
        tags: What it can be found by.
        config: Flat keys and plain values; none says where something lies or who runs it.
        earlier: The W&B run that it goes on with; None: it is a new one.
    """

    name: str
    job_type: JobType
    group: str | None
    tags: tuple[str, ...]
    config: Mapping[str, Scalar]
    earlier: Identity | None = None


def run_record(run: RunFolder, job_type: JobType, facts: Mapping[str, Any], *, sweep: bool) -> RunRecord:
    """The record of a run that has begun: its folder holds its configuration.

    Args:
        run: The run's folder.
        job_type: `train` or `eval`.
        facts: What only the run itself knows, such as its data fingerprint; nested, each leaf becomes a key.
        sweep: Whether the run is a job of a sweep, whose folder gives the group its name.
    """
    choices = _choices(run)
    earlier = Identity.of(Path(run.config.resume)) if run.config.get("resume") else None
    evaluated = Identity.of(Path(run.config.ckpt)) if run.config.get("ckpt") else None
    folder = run.path.resolve()
    own = _own_overrides(run) if sweep else {}
    name, group = _in_words(own)[:LONGEST_NAME] or folder.name, folder.parent.name if sweep else None
    if earlier is not None:
        name, group = earlier.name, earlier.group
    elif evaluated is not None and not sweep:
        group = evaluated.group
    about: dict[str, Any] = {"run": {"name": name, "group": group, "job_type": job_type, "swept": ",".join(own)}}
    about["run"]["overrides"] = _in_words({key: v for key, v in run.overrides.items() if not _names_a_place(key, v)})
    about |= _evaluates(evaluated) | {"paper": paper_values(run, choices)}
    config = composed_keys(run) | choices | flat(about) | flat(facts)
    chosen = {key: choices.get(key) or run.value(key) for key in TAGGED}
    tags = tuple(f"{key}:{value}"[:LONGEST_TAG] for key, value in chosen.items() if value is not None)
    return RunRecord(name, job_type, group, tags, config, earlier)


def video_record(config: DictConfig, facts: Mapping[str, Any]) -> RunRecord:
    """The record of a prediction about one video, linked to the training whose student watches it.

    Args:
        config: The configuration of `predict`.
        facts: What was measured of the video, whose own name may say where it comes from.
    """
    evaluated = Identity.of(Path(config.ckpt))
    name = f"video {facts['content_hash'][:8]}"
    asked = {key: config[key] for key in ("fps", "num_frames", "window_s", "stride_s", "num_orders")}
    about = {"run": {"name": name, "job_type": "predict"}, "video": dict(facts), **asked, **_evaluates(evaluated)}
    return RunRecord(name, "predict", evaluated.group if evaluated else None, (), flat(about))


def composed_keys(run: RunFolder) -> dict[str, Scalar]:
    """The values that a run computes with, under their Hydra keys with `/` for `.`.

    W&B cannot filter by a key with a dot in it. Left out: places, classes that Hydra builds, and long texts, which the
    prompts' hash identifies.
    """
    config = run.config.copy()
    OmegaConf.update(config, "paths.data_dir", "", force_add=True)  # other values are made of it
    run = RunFolder(run.path, run.overrides, run.choices, config, run.metrics, run.error)
    keys = [key for key in _leaf_keys(OmegaConf.to_container(config, resolve=False)) if not key.startswith("axes.")]
    return flat({key: run.select(key) for key in keys if not _names_a_place(key, None)})


def paper_values(run: RunFolder, choices: Mapping[str, str]) -> dict[str, Any]:
    """For each axis of the paper's tables, the paper's value that this run's stands for at its scale."""
    values: dict[str, Any] = {}
    for axis, stand_ins in (run.select("axes") or {}).items():
        ours = choices.get(axis) or run.select(axis)
        values[axis] = next((paper for paper, value in stand_ins.items() if value == ours), ours)
    return values


def flat(facts: Mapping[str, Any]) -> dict[str, Scalar]:
    """Nested facts as keys with `/`, without what is empty, long, or names a place on this machine.

    >>> flat({"lr": 1e-3, "evaluation.modes": ["direct", "reasoning"], "data": {"clips": 3, "at": "/data/me"}})
    {'lr': 0.001, 'evaluation/modes': 'direct,reasoning', 'data/clips': 3}
    """
    found: dict[str, Scalar] = {}
    for key, value in facts.items():
        key = str(key).replace(".", "/")
        if isinstance(value, Mapping):
            found |= {f"{key}/{below}": leaf for below, leaf in flat(value).items()}
            continue
        if isinstance(value, list | tuple) and all(isinstance(item, Scalar) for item in value):
            value = ",".join(map(str, value))
        if isinstance(value, Scalar) and _is_told(str(value)):
            found[key] = value
    return found


def _is_told(text: str) -> bool:
    return text not in ("", "???") and len(text) <= LONGEST_VALUE and not MACHINE_PATH.search(text)


def without_places(text: str) -> str:
    """A text in which paths of this machine are cut down to their last part, for errors of failed jobs."""
    return MACHINE_PATH.sub(lambda found: f"…/{re.split(SEPARATOR, found[0].rstrip('/'))[-1]}", text)


def _choices(run: RunFolder) -> dict[str, str]:
    """The option that a run took of each group: with `ckpt=` or `resume=` that run's, unless it was typed."""
    came_from = run.config.get("ckpt") or run.config.get("resume")
    choices = dict(run.choices)
    if came_from:
        own = {key: choices[key] for key in run.overrides if key in choices}
        choices = dict(group_choices(Path(came_from))) | own
    plain = {key: option for key, option in choices.items() if re.fullmatch(r"\w+", key) and option not in ("None", "")}
    return {key: option for key, option in plain.items() if not _names_a_place(key, option)}


def _own_overrides(run: RunFolder) -> dict[str, Value]:
    """What a job of a sweep sets and not every job does, in order; Hydra keeps what was typed for all beside them."""
    settings: Any = OmegaConf.to_container(load_configuration(run.path.parent / "multirun.yaml"), resolve=False)
    typed = settings.get("hydra", {}).get("overrides", {}).get("task", [])
    common = {override for override in typed if isinstance(override, str)}
    own = [override for override in run.command_line() if override not in common]
    return {key: value for key, value in parse_overrides(own).items() if not _names_a_place(key, value)}


def _in_words(overrides: Mapping[str, Value]) -> str:
    return " ".join(f"{key}={value}" for key, value in overrides.items())


def _evaluates(training: Identity | None) -> dict[str, Any]:
    """The W&B run of the training whose student is asked, as the address that is shown for it there."""
    if training is None:
        return {}
    return {"evaluates": {"run": training.name, "id": training.id, "project": training.project}}


def _names_a_place(key: str, value: Any) -> bool:
    parts = key.split(".")
    return parts[0] in PLACES or parts[-1] in PLACE_NAMES or bool(MACHINE_PATH.search(str(value)))


def _leaf_keys(node: Any, above: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaf_keys(value, f"{above}{key}.")
        elif key not in HYDRA_KEYS:
            yield f"{above}{key}"
