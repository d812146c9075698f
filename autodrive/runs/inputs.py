"""What a run computes with, and what a folder that was used before says about it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from autodrive.config_identity import computed_values, config_hash
from autodrive.errors import RefusedFolderError
from autodrive.runs.folder import RunFiles, load_configuration, read_json

ELSEWHERE = "choose another folder with hydra.run.dir=<folder> (hydra.sweep.dir=<folder> for a sweep)"


@dataclass(frozen=True)
class RunInputs:
    """All that decides what a run finds; a run with equal inputs need not be done again.

    Attributes:
        config_hash: Identifies the configuration, without what only says where and how fast.
        data_fingerprint: Identifies the clips with the content of their files, the classes, splits and annotations.
        student_digest: Identifies the weights that this run begins with, where they come from files: another run's
            student, or a released checkpoint; None where the configuration has all that they are drawn from.
    """

    config_hash: str
    data_fingerprint: str
    student_digest: str | None


def is_finished(files: RunFiles) -> bool:
    """Whether a folder holds a run that has ended, with a reply to everything that it asked of a server."""
    done = files.metrics.is_file() and files.provenance.is_file()
    return done and not read_json(files.provenance).get("failed_requests")


def check_configuration(config: DictConfig, files: RunFiles) -> None:
    """Refuse a folder whose results or checkpoints another configuration made.

    Raises:
        RefusedFolderError: It does; the line names the first keys that differ.
    """
    if is_finished(files):
        kept, theirs = "a finished run", read_json(files.provenance).get("config_hash")
    elif files.last_checkpoint.is_file() or files.best_checkpoint.is_file():
        kept, theirs = "checkpoints", None
    else:
        return
    differing = _differing(config, files)
    if theirs != config_hash(config) if theirs else differing:
        what = f" ({'; '.join(differing[:3]) or 'made by another version of the project'})"
        raise RefusedFolderError(f"{files.folder}: holds {kept} of another configuration{what}; {ELSEWHERE}")


def check_inputs(inputs: RunInputs, files: RunFiles) -> None:
    """Refuse a folder with a finished run that had other clips or began with another student.

    Raises:
        RefusedFolderError: The clips or the student are not those of the finished run.
    """
    earlier = read_json(files.provenance)
    for name, what in (
        ("data_fingerprint", "clips, videos, labels, splits or annotations have changed since"),
        ("student_digest", "student has other weights by now"),
    ):
        if earlier.get(name) != asdict(inputs)[name]:
            raise RefusedFolderError(f"{files.folder}: holds a finished run, but its {what}; {ELSEWHERE}")


def _differing(config: DictConfig, files: RunFiles) -> list[str]:
    """The keys whose values differ from those that a folder's configuration has, with both values."""
    try:
        ours, theirs = (_flat(computed_values(one)) for one in (config, load_configuration(files.config)))
    except OmegaConfBaseException:
        return ["its configuration cannot be read"]
    missing = "nothing"
    return [
        f"{key}={theirs.get(key, missing)} there, {ours.get(key, missing)} here"
        for key in {**ours, **theirs}
        if ours.get(key, missing) != theirs.get(key, missing)
    ]


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return flat
