"""Reads what a run left behind: a run folder, or a sweep folder that holds one run folder a job."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from autodrive.errors import InputError
from autodrive.labels import LabelSet
from autodrive.schema import Prediction, SetAside, read_jsonl

Value = int | float | str | bool | None


@dataclass(frozen=True)
class RunFolder:
    """One job's files.

    Attributes:
        path: the folder.
        overrides: what the command line set for this job: key to value, in order.
        choices: which option of each configuration group was taken.
        config: the composed configuration.
        metrics: flat metric keys; empty for a job that did not finish.
        error: why the job failed, in one line; None if it finished.
    """

    path: Path
    overrides: Mapping[str, Value]
    choices: Mapping[str, str]
    config: DictConfig
    metrics: Mapping[str, float]
    error: str | None

    @property
    def trained(self) -> bool:
        """Whether the student was trained, rather than evaluated as it was released (`ckpt=null`)."""
        return "ckpt" not in self.config or self.config.ckpt is not None

    def value(self, key: str) -> Value:
        """The value of a configuration key or the chosen option of a group; None if this run has neither.

        `setting`, which no configuration states, is `fine_tuned` for a trained student and else `zero_shot`.
        """
        if key == "setting":
            return "fine_tuned" if self.trained else "zero_shot"
        if key in self.overrides:
            return self.overrides[key]
        if key in self.choices:
            return self.choices[key]
        selected = self.select(key)
        return selected if isinstance(selected, Value) else None

    def select(self, key: str) -> Any:
        """A node of the configuration as plain values; None if it is missing or cannot be resolved outside the run."""
        try:
            selected = OmegaConf.select(self.config, key)
            return OmegaConf.to_container(selected, resolve=True) if OmegaConf.is_config(selected) else selected
        except OmegaConfBaseException:
            return None

    def labels(self) -> LabelSet:
        """The run's label set.

        Raises:
            InputError: the run's configuration holds none.
        """
        node = self.select("labels")
        if not isinstance(node, Mapping) or "classes" not in node:
            raise InputError(
                f"{self.path / '.hydra' / 'config.yaml'}: no `labels`; give a folder written by train or eval"
            )
        return LabelSet(str(node.get("name", "labels")), node["classes"])

    def headline_task(self) -> str:
        """Name of the task whose scores carry no task name.

        Raises:
            InputError: the run's configuration names none.
        """
        headline = self.select("prompts.headline")
        if not isinstance(headline, str):
            path = self.path / ".hydra" / "config.yaml"
            raise InputError(f"{path}: no `prompts.headline`; give a folder written by train or eval")
        return headline

    def other_tasks(self) -> list[str]:
        """Names of the run's other tasks."""
        return [name for name in self.select("prompts.tasks") or {} if name != self.headline_task()]

    def predictions(self) -> list[Prediction]:
        """The run's predictions; raises InputError if there are none or a line is broken."""
        return read_jsonl(self.path / "predictions.jsonl", Prediction)

    def dropped(self) -> list[SetAside]:
        """What the run set aside; empty if it wrote no such file."""
        path = self.path / "dropped.jsonl"
        return read_jsonl(path, SetAside) if path.is_file() else []

    def provenance(self) -> dict[str, Any]:
        """Where the run came from: commit, versions, fingerprint, mixture counts, wall time; empty if not written."""
        return _read_json(self.path / "provenance.json")


def find_runs(folders: Sequence[Path]) -> list[RunFolder]:
    """All runs in these run folders and sweep folders, in natural order (job 2 before job 10).

    Raises:
        InputError: a folder is missing, or holds no run.
    """
    runs: list[RunFolder] = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"runs={folder}: no such folder; give a run folder or a sweep folder")
        found = sorted({path.parents[1] for path in folder.rglob(".hydra/config.yaml")}, key=_natural)
        if not found:
            raise InputError(f"runs={folder}: holds no run (no .hydra/config.yaml below it); check the path")
        runs += [read_run(path) for path in found]
    return runs


def read_run(path: Path) -> RunFolder:
    """Read one run folder; a job without metrics.json counts as failed.

    Raises:
        InputError: one of its files is not valid JSON or YAML.
    """
    hydra = _load_yaml(path / ".hydra" / "hydra.yaml")
    choices = OmegaConf.select(hydra, "hydra.runtime.choices") or {}
    overrides = _load_yaml(path / ".hydra" / "overrides.yaml")
    metrics = _read_json(path / "metrics.json")
    error = _read_json(path / "error.json")
    reason = f"{error.get('type', 'error')}: {error.get('message', 'no message')}" if error else None
    if not metrics and reason is None:
        reason = "did not finish (no metrics.json)"
    return RunFolder(
        path=path,
        overrides=parse_overrides([str(item) for item in overrides]),
        choices={str(key): str(value) for key, value in choices.items()},
        config=_load_yaml(path / ".hydra" / "config.yaml"),
        metrics=metrics,
        error=" ".join(reason.split()) if reason else None,
    )


def parse_overrides(overrides: Sequence[str]) -> dict[str, Value]:
    """Keys and values of command-line overrides such as `fps=15` or `+labels=event2`; deletions are left out."""
    parsed: dict[str, Value] = {}
    for override in overrides:
        key, equals, value = override.lstrip("+").partition("=")
        if equals and not key.startswith("~"):
            parsed[key] = parse_value(value)
    return parsed


def parse_value(text: str) -> Value:
    """A number if the text is one (also `1e-6`), else the text without its quotes."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text.strip("'\"")


def _natural(path: Path) -> list[int | str]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]


def _load_yaml(path: Path) -> Any:
    if not path.is_file():
        return OmegaConf.create({})
    try:
        return OmegaConf.load(path)
    except Exception as error:  # OmegaConf passes on whatever its YAML parser raises
        raise InputError(
            f"{path}: not valid YAML ({' '.join(str(error).split())[:100]}); restore it or rerun"
        ) from None


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON ({error.msg}); remove the file and rerun") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: should hold a JSON object; remove the file and rerun")
    return content
