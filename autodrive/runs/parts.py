"""Checkpoints in parts: a file that holds no large tensor, and beside it a folder to which every process wrote its own.

The parts are safetensors, cut up as torch's distributed checkpoints are: any number of processes reads them, each what
it needs. In the file a tensor without values stands for each, so that shapes are known without the parts. It names the
folder, and is written last: a run that is killed meanwhile has the checkpoint before.
"""

import itertools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from autodrive.errors import InputError
from autodrive.ranks.group import this_group

PARTS = "parts"  # key of a checkpoint under which its folder stands: the name in the file, the path in memory
ENDING = ".parts"


def changed(node: Any, change: Callable[[str, Tensor], Tensor], place: str = "") -> Any:
    """A copy of a nest of dictionaries and lists, with what `change` makes of each tensor and its place."""
    if isinstance(node, Mapping):
        return {key: changed(value, change, f"{place}/{key}") for key, value in node.items()}
    if isinstance(node, list):
        return [changed(value, change, f"{place}/{number}") for number, value in enumerate(node)]
    return change(place, node) if isinstance(node, Tensor) else node


def write_parts(checkpoint: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Write the tensors of a checkpoint that are cut up among processes, which all call this.

    Args:
        checkpoint: What Lightning would write.
        path: The file that it will be.

    Returns:
        What is left for the file.
    """
    tensors: dict[str, Tensor] = {}

    def take_out(place: str, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, DTensor):
            return tensor
        tensors[place] = tensor.detach()
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    rest = changed(checkpoint, take_out)
    folder = this_group().from_first(_new_folder(path, checkpoint["global_step"]))
    save(tensors, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    return rest | {PARTS: folder.name}


def _new_folder(path: Path, step: int) -> Path:
    """A folder that is not there: one of this step may belong to the file that will be replaced, of an earlier run."""
    endings = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    folders = (path.with_name(f"{path.stem}-{step}{ending}{ENDING}") for ending in endings)
    return next(folder for folder in folders if not folder.exists())


def read_parts(tensors: dict[str, Tensor], folder: str) -> None:
    """Read parts into tensors, in place; by all processes if these are cut up among them, else by one alone.

    Args:
        tensors: Where values are wanted, by their places in the checkpoint.
        folder: The folder of the parts.

    Raises:
        InputError: One of them is missing or damaged.
    """
    alone = not any(isinstance(tensor, DTensor) for tensor in tensors.values())
    try:
        load(tensors, storage_reader=HuggingFaceStorageReader(folder), no_dist=alone)
    except (Exception, CheckpointException) as error:  # whatever the reader of a file raises; torch's is no Exception
        reason = str(error).strip().rpartition("\n")[2][:100]
        raise InputError(
            f"{folder}: cannot be read as a whole ({reason}); restore it, or start the training anew"
        ) from None


def with_parts(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint with everything in this process."""
    tensors: dict[str, Tensor] = {}

    def make_room(place: str, tensor: Tensor) -> Tensor:
        return tensors.setdefault(place, torch.empty_like(tensor, device="cpu")) if tensor.is_meta else tensor

    found = changed(checkpoint, make_room)
    read_parts(tensors, found.pop(PARTS))
    return found


def remove_older_parts(path: Path, kept: str) -> None:
    """Remove the parts of what was at `path` before."""
    for folder in path.parent.glob(f"{path.stem}-*{ENDING}"):
        if folder.name != kept:
            shutil.rmtree(folder)
