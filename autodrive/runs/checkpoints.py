"""Checkpoints of a training: written whole, read without trust, and the one that a resumed run continues from."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor

from autodrive.errors import InputError
from autodrive.runs.folder import RunFiles
from autodrive.runs.inputs import RunInputs
from autodrive.runs.parts import PARTS, with_parts
from autodrive.whole_files import whole

INPUTS = "inputs"  # key of a checkpoint under which lies what its run computes with
DICTIONARIES = ("state_dict", "callbacks", "loops", INPUTS)
LISTS = ("optimizer_states", "lr_schedulers")


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its target and renames it, so that a full disk or a kill leaves the last good one.

    Lightning's own writer fills the system's temporary folder, whose contents may then have to be copied. It also holds
    the file in memory once more.

    Args:
        inputs: What the run computes with; a checkpoint that says something else is another run's.
    """

    def __init__(self, inputs: RunInputs) -> None:
        self.inputs = inputs

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; OSError if that is not possible, with the earlier one still there."""
        with whole(Path(path)) as partial, partial.open("wb") as file:
            torch.save(checkpoint | {INPUTS: asdict(self.inputs)}, file)

    def load_checkpoint(
        self, path: str | Path, map_location: Callable | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint as `read_checkpoint` does, whatever `weights_only` says."""
        return read_checkpoint(Path(path))


def read_checkpoint(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    """Read a checkpoint of a training; nothing in it is executed.

    Args:
        path: A checkpoint that training wrote.
        mapped: Whether its tensors stay on the disk until they are used, for a look at what else is in it. Those that
            are in parts (`autodrive/runs/parts.py`) then have no values.

    Raises:
        InputError: It is missing, cut off, or not a checkpoint of this project; or its parts are not there.
    """
    fix = "restore it, or start the training anew"
    if not path.is_file():
        raise InputError(f"{path}: there is no such checkpoint; {fix}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # whatever a file that is none makes the unpickler and the archive's reader raise
        reason = " ".join(str(error).split())[:100]
        raise InputError(f"{path}: cannot be read, so it is cut off or no checkpoint ({reason}); {fix}") from None
    found = state if isinstance(state, dict) else {}
    whole_kinds = [isinstance(found.get(key), dict) for key in DICTIONARIES]
    whole_kinds += [isinstance(found.get(key), list) for key in LISTS]
    if not all(whole_kinds) or not isinstance(found.get("global_step"), int):
        raise InputError(f"{path}: not a checkpoint that this version's train.py wrote; {fix}")
    if PARTS not in found:
        return found
    found[PARTS] = str(path.with_name(Path(str(found[PARTS])).name))
    if not Path(found[PARTS]).is_dir():
        raise InputError(f"{path}: its parts, {found[PARTS]}, are not there; {fix}")
    return found if mapped else with_parts(found)


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copy a checkpoint, with its parts if it has any."""
    parts = read_checkpoint(source, mapped=True).get(PARTS)
    if parts is not None:
        shutil.copytree(parts, target.with_name(Path(parts).name), dirs_exist_ok=True)
    with whole(target) as partial:
        shutil.copyfile(source, partial)


def checkpoint_to_continue(resume: str, inputs: RunInputs, weights: Mapping[str, Tensor]) -> Path:
    """The newest checkpoint of a run: `last.ckpt`, or `best.ckpt` if the run was stopped between writing the two.

    Args:
        resume: Folder of the run that is resumed.
        inputs: What the resumed run computes with.
        weights: The weights that the checkpoint is to fill, by name.

    Raises:
        InputError: A checkpoint cannot be read, is another run's, or does not belong to the other one; or the clips or
            the student are not those that the run began with.
    """
    run = RunFiles(Path(resume))
    best, last = run.best_checkpoint, run.last_checkpoint
    best_state = _checked(best, resume, inputs, weights)
    if not last.is_file():
        return best
    last_state = _checked(last, resume, inputs, weights)
    if best_state["global_step"] > last_state["global_step"]:
        return best
    if _best_score(best_state) != _best_score(last_state):
        raise InputError(f"{best}: not the best checkpoint that last.ckpt knows of; restore both from the same run")
    return last


def _checked(path: Path, resume: str, inputs: RunInputs, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    state = read_checkpoint(path, mapped=True)
    earlier = state[INPUTS]
    if earlier.get("data_fingerprint") != inputs.data_fingerprint:
        raise InputError(f"resume={resume}: the clips, labels or splits have changed since that run; restore them")
    if earlier.get("student_digest") != inputs.student_digest:
        raise InputError(
            f"resume={resume}: that run began with a student of other weights; give student_from=<its place>"
        )
    if earlier.get("config_hash") != inputs.config_hash:
        raise InputError(f"{path}: the checkpoint of another configuration; restore the run's own")
    shapes = [{n: tuple(getattr(t, "shape", ())) for n, t in named.items()} for named in (state["state_dict"], weights)]
    if shapes[0] != shapes[1]:
        raise InputError(f"{path}: its weights do not fit the student of that run; restore the run's own checkpoint")
    return state


def _best_score(state: Mapping[str, Any]) -> Any:
    """The best validation so far as a checkpoint knows it; the step where no score chooses, and the newest is best."""
    found = [values for values in state["callbacks"].values() if "best_model_score" in values]
    score = found[0]["best_model_score"] if found else None
    return state["global_step"] if score is None else float(score)
