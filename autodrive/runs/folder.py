"""A run folder: where its files lie, and what a run left in them; a sweep folder holds one run folder per job."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from autodrive.config import NODES, EvalConfig, TrainConfig
from autodrive.config_check import check_root
from autodrive.errors import InputError
from autodrive.labels import LabelSet
from autodrive.runs.foreign import check_foreign, unbuilt_as_data, without_resolvers
from autodrive.schema import Prediction, ProbeName, SetAside, read_jsonl
from autodrive.whole_files import whole

Value = int | float | str | bool | None


class RunFiles:
    """The files of a run folder; nowhere else are they named.

    Attributes:
        folder: The run folder, which need not exist yet.
        config: What the run computes with; Hydra's own files lie beside it.
        overrides: What the command line set, one `key=value` each.
        hydra: Hydra's settings, with the option taken of each group.
        metrics: Flat metric keys and their values; there once the evaluation has ended.
        predictions: One `Prediction` per line.
        retention: The same of what is asked apart, to see what was forgotten.
        retention_before: The same before the training.
        samples: The same of the replies that were drawn, several to each question.
        annotations: The `Annotation`s that were asked, one per line.
        dropped: One `SetAside` per clip that the run could not use.
        provenance: What the run was made of and what it cost; there once the run has ended.
        error: Why a job of a sweep failed.
        page: The run as a web page.
        losses: What the CSV logger wrote: losses and validation scores by step.
        checkpoints: Folder of everything that holds weights.
        last_checkpoint: The newest state of training, to resume from.
        best_checkpoint: The state of training with the best validation score.
        student: Folder of the finished student, in Hugging Face's layout.
        student_settings: What is said of it there beside its weights.
        log: What the run logged.
        wandb: Which run of Weights & Biases this one is.
        lock: Held by the process that is at work here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / ".hydra" / "config.yaml"
        self.overrides = folder / ".hydra" / "overrides.yaml"
        self.hydra = folder / ".hydra" / "hydra.yaml"
        self.metrics = folder / "metrics.json"
        self.predictions = folder / "predictions.jsonl"
        self.retention = folder / "retention.jsonl"
        self.retention_before = folder / "retention_before.jsonl"
        self.samples = folder / "samples.jsonl"
        self.annotations = folder / "annotations.jsonl"
        self.dropped = folder / "dropped.jsonl"
        self.provenance = folder / "provenance.json"
        self.error = folder / "error.json"
        self.page = folder / "report.html"
        self.losses = folder / "metrics.csv"
        self.checkpoints = folder / "checkpoints"
        self.last_checkpoint = self.checkpoints / "last.ckpt"
        self.best_checkpoint = self.checkpoints / "best.ckpt"
        self.student = self.checkpoints / "student"
        self.student_settings = self.student / "student.json"
        self.log = folder / "run.log"
        self.wandb = folder / "wandb.json"
        self.lock = folder / ".lock"

    def probe(self, name: ProbeName) -> Path:
        """The replies under a probe, one `Prediction` per line."""
        return self.folder / f"predictions_{name}.jsonl"


@dataclass(frozen=True)
class RunFolder:
    """What a run left behind.

    Attributes:
        path: Folder of the run.
        overrides: What the command line set for this job: key to value, in order.
        choices: The option taken of each configuration group.
        config: The configuration that the run computed with.
        metrics: Flat metric keys; empty for a job that did not finish.
        error: Why the job failed, in one line; None if it finished.
    """

    path: Path
    overrides: Mapping[str, Value]
    choices: Mapping[str, str]
    config: DictConfig
    metrics: Mapping[str, float]
    error: str | None

    @property
    def files(self) -> RunFiles:
        """Where the run's files lie."""
        return RunFiles(self.path)

    @property
    def trained(self) -> bool:
        """Whether the student was trained, rather than evaluated as it was released (`ckpt=null`)."""
        return "ckpt" not in self.config or self.config.ckpt is not None

    def command_line(self) -> list[str]:
        """The overrides of the run's command as they were typed, with Hydra's quotes."""
        return _command_line(self.files.overrides)

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
            InputError: The run's configuration holds none.
        """
        node = self.select("labels")
        if not isinstance(node, Mapping) or "classes" not in node:
            raise InputError(f"{self.files.config}: no `labels`; give a folder written by train or eval")
        return LabelSet(str(node.get("name", "labels")), node["classes"], node.get("shown"))

    def split(self) -> str:
        """The split that was evaluated, whose name begins the keys of the metrics; a training evaluates on test."""
        return str(self.select("split") or "test")

    def headline_task(self) -> str:
        """Name of the task whose scores carry no task name.

        Raises:
            InputError: The run's configuration names none.
        """
        headline = self.select("prompts.headline")
        if not isinstance(headline, str):
            path = self.files.config
            raise InputError(f"{path}: no `prompts.headline`; give a folder written by train or eval")
        return headline

    def other_tasks(self) -> list[str]:
        """Names of the run's other tasks."""
        return [name for name in self.select("prompts.tasks") or {} if name != self.headline_task()]

    def slices(self) -> list[str]:
        """Keys of the clips' metadata for whose values the run was scored apart."""
        return [str(key) for key in self.select("evaluation.slices") or ()]

    def predictions(self) -> list[Prediction]:
        """The run's predictions; raises InputError if there are none or a line is broken."""
        return read_jsonl(self.files.predictions, Prediction)

    def dropped(self) -> list[SetAside]:
        """What the run set aside; empty if it wrote no such file."""
        path = self.files.dropped
        return read_jsonl(path, SetAside) if path.is_file() else []

    def provenance(self) -> dict[str, Any]:
        """Where the run came from: commit, versions, fingerprint, mixture counts, wall time; empty if not written."""
        return read_json(self.files.provenance)


def run_config(path: Path, typed: Collection[str] = (), unbuilt: Collection[str] = ()) -> DictConfig:
    """The configuration a run folder was made with, to build a run's parts from.

    Args:
        path: The run folder.
        typed: Keys that the user gives on the command line.
        unbuilt: Keys at the root from which nothing will be built, see `unbuilt_as_data`.

    Raises:
        InputError: The folder is not a run's, or its configuration names what a run folder may not or holds values that
            no run can work with.
    """
    files = RunFiles(path)
    if not files.config.is_file():
        raise InputError(f"{path}: not a run folder (no .hydra/config.yaml); give the folder that train.py wrote")
    config = load_configuration(files.config)
    missing = [field.name for field in fields(TrainConfig) if field.name not in config]
    if missing:
        raise InputError(
            f"{files.config}: no `{missing[0]}`; give a folder that this version's train.py or eval.py wrote"
        )
    config = unbuilt_as_data(config, unbuilt)
    check_foreign(config, files.config, typed)
    for key in (field.name for field in fields(TrainConfig) if field.type is Any and field.default == MISSING):
        if not OmegaConf.is_dict(config[key]):
            raise InputError(f"{files.config}: `{key}` should hold keys and values; restore it or rerun")
    try:
        check_root(config, EvalConfig, NODES)
    except InputError as error:
        raise InputError(f"{files.config}: {error}") from None
    return config


def load_configuration(path: Path) -> DictConfig:
    """A configuration as it lies in a run folder, unchecked; empty if there is none.

    Raises:
        InputError: It is no YAML, or no mapping.
    """
    config = OmegaConf.create({})
    if path.is_file():
        try:
            config = OmegaConf.load(path)
        except Exception as error:  # OmegaConf passes on whatever its YAML parser raises
            raise InputError(
                f"{path}: not valid YAML ({' '.join(str(error).split())[:100]}); restore it or rerun"
            ) from None
    if not isinstance(config, DictConfig):
        raise InputError(f"{path}: should hold keys and values; restore it or rerun")
    return config


def save_config(config: DictConfig, path: Path) -> None:
    """Write what a run computes with, and in a Hydra job what its command line set and which options it took.

    Hydra itself would write before the run can be refused, over the configuration of the run that lies there.
    """
    files = RunFiles(path)
    files.config.parent.mkdir(parents=True, exist_ok=True)
    texts = {files.config: OmegaConf.to_yaml(config)}
    if HydraConfig.initialized():
        settings = HydraConfig.get()
        texts[files.hydra] = OmegaConf.to_yaml(OmegaConf.create({"hydra": settings}))
        texts[files.overrides] = OmegaConf.to_yaml(settings.overrides.task)
    for file, text in texts.items():
        with whole(file) as partial:
            partial.write_text(text, encoding="utf-8")


def group_choices(path: Path) -> Mapping[str, str]:
    """The option that a run took of each configuration group, by Hydra; empty if its folder does not say."""
    file = RunFiles(path).hydra
    found: Any = OmegaConf.to_container(load_configuration(file), resolve=False)  # resolvers stay text
    for key in ("hydra", "runtime", "choices"):
        found = found.get(key, {}) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        raise InputError(f"{file}: hydra.runtime.choices should be options by group; restore it or rerun")
    return {str(key): str(value) for key, value in found.items()}


def find_runs(folders: Sequence[Path]) -> list[RunFolder]:
    """All runs in these run folders and sweep folders, in natural order (job 2 before job 10).

    Raises:
        InputError: A folder is missing, or holds no run.
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
        InputError: One of its files is not valid JSON or YAML.
    """
    files = RunFiles(path)
    metrics = read_json(files.metrics)
    error = read_json(files.error)
    reason = f"{error.get('type', 'error')}: {error.get('message', 'no message')}" if error else None
    if not metrics and reason is None:
        reason = "did not finish (no metrics.json)"
    return RunFolder(
        path=path,
        overrides=parse_overrides(_command_line(files.overrides)),
        choices=group_choices(path),
        config=without_resolvers(load_configuration(files.config)),
        metrics=metrics,
        error=" ".join(reason.split()) if reason else None,
    )


def _command_line(path: Path) -> list[str]:
    try:
        overrides = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else []
    except (ValueError, yaml.YAMLError):
        overrides = None
    if not isinstance(overrides, list):
        raise InputError(f"{path}: should be a list of the keys that the command line set; restore it or rerun")
    return [str(item) for item in overrides]


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
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(path))]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is no such file, InputError if it holds something else."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON ({error.msg}); remove the file and rerun") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not JSON in UTF-8; remove the file and rerun") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: should hold a JSON object; remove the file and rerun")
    return content
