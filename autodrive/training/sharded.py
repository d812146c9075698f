"""FSDP2 under Lightning, with checkpoints that any strategy can go on from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.strategies import Strategy as LightningStrategy
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from autodrive.runs.checkpoints import read_checkpoint
from autodrive.runs.parts import PARTS, changed, read_parts, remove_older_parts, write_parts


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, with checkpoints as one process writes them, or in parts.

    Args:
        num_ranks: Processes that train together; by default Lightning would shard nothing on one machine.
        one_file_up_to: Most trained weights that are put together in one process; more are written in parts.
    """

    def __init__(self, num_ranks: int, one_file_up_to: int) -> None:
        super().__init__(data_parallel_size=num_ranks, tensor_parallel_size=1, save_distributed_checkpoint=False)
        self.one_file_up_to = one_file_up_to

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether `load_optimizer_state_dict` is called."""
        return True

    @property
    def in_parts(self) -> bool:
        """Whether checkpoints are written in parts."""
        return sum(weight.numel() for weight in self._trained().values()) > self.one_file_up_to

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The trained weights, whole, on the CPU of rank 0, other ranks have none; or this rank's parts."""
        return self._trained() if self.in_parts else whole(self._trained(), self.is_global_zero)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take over the weights that a checkpoint has."""
        assert self.lightning_module is not None
        state = self.lightning_module.state_dict()
        ours = {name: state[name] for name in checkpoint["state_dict"]}
        if PARTS in checkpoint:
            read_parts({f"/state_dict/{name}": tensor for name, tensor in ours.items()}, checkpoint[PARTS])
            return
        for name, value in checkpoint["state_dict"].items():
            ours[name].copy_(like(value, ours[name]))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimizer's state as one process has it, on rank 0; or this rank's parts."""
        inner = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        return inner.state_dict() if self.in_parts else whole(inner.state_dict(), self.is_global_zero)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Cut up what one process wrote, or read this rank's parts."""
        (optimizer,), (given,) = self.optimizers, checkpoint["optimizer_states"]
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        state = {
            place: {name: like(value, parameters[place]) for name, value in values.items()}
            for place, values in given["state"].items()
        }
        if PARTS in checkpoint:
            moments: dict[str, torch.Tensor] = {}
            changed(state, lambda place, tensor: moments.setdefault(f"/optimizer_states/0/state{place}", tensor))
            read_parts(
                {name: tensor for name, tensor in moments.items() if isinstance(tensor, DTensor)}, checkpoint[PARTS]
            )
        optimizer.load_state_dict({**given, "state": state})

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; all ranks call this."""
        parts = self.in_parts
        if parts:
            checkpoint = write_parts(checkpoint, Path(filepath))
        LightningStrategy.save_checkpoint(self, checkpoint, filepath, storage_options)
        if parts and self.is_global_zero:
            remove_older_parts(Path(filepath), kept=checkpoint[PARTS])

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint; tensors stay on the disk until they are cut up."""
        return read_checkpoint(Path(checkpoint_path), mapped=True)

    def _trained(self) -> dict[str, torch.Tensor]:
        assert self.lightning_module is not None
        return {name: t.detach() for name, t in cast(Any, self.lightning_module).trained_weights().items()}


def whole(node: Any, kept: bool) -> Any:
    """A nest of dictionaries and lists with sharded tensors put together on the CPU; all ranks must call it.

    Args:
        node: What a module's or an optimizer's `state_dict` gives.
        kept: Whether this rank keeps what is put together.
    """

    def put_together(_: str, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        return tensor.detach().cpu() if kept else torch.empty(0)

    return changed(node, put_together)


def like(value: Any, parameter: torch.Tensor) -> Any:
    """A tensor cut up as a parameter of the same shape is, without values if it has none; anything else as it is."""
    if not isinstance(parameter, DTensor) or not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
        return value
    if value.is_meta:
        return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False)
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
