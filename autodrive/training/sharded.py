"""FSDP2 under Lightning, with checkpoints as one process writes them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.strategies import Strategy as LightningStrategy
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, with checkpoints in one file, which any strategy can go on from.

    Args:
        num_ranks: Processes that train together; by default Lightning would shard nothing on one machine.
    """

    def __init__(self, num_ranks: int) -> None:
        super().__init__(data_parallel_size=num_ranks, tensor_parallel_size=1, save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether `load_optimizer_state_dict` is called."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """All weights, whole, on the CPU of rank 0; other ranks have none."""
        assert self.lightning_module is not None
        return whole(self.lightning_module.state_dict(), self.is_global_zero)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take over the weights that a checkpoint has."""
        assert self.lightning_module is not None
        ours = self.lightning_module.state_dict()
        for name, value in checkpoint["state_dict"].items():
            ours[name].copy_(like(value, ours[name]))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimizer's state as one process has it, on rank 0."""
        inner = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        return whole(inner.state_dict(), self.is_global_zero)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Cut up what `optimizer_state` put together."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            cut = {
                place: {name: like(value, parameters[place]) for name, value in values.items()}
                for place, values in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": cut})

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint as one process does."""
        return LightningStrategy.load_checkpoint(self, checkpoint_path, weights_only)


def whole(node: Any, kept: bool) -> Any:
    """A nest of dictionaries and lists with sharded tensors put together on the CPU; all ranks must call it.

    Args:
        node: What a module's or an optimizer's `state_dict` gives.
        kept: Whether this rank keeps what is put together.
    """
    if isinstance(node, Mapping):
        return {key: whole(value, kept) for key, value in node.items()}
    if isinstance(node, list):
        return [whole(value, kept) for value in node]
    if isinstance(node, DTensor):
        node = node.full_tensor()
    return (node.detach().cpu() if kept else torch.empty(0)) if isinstance(node, torch.Tensor) else node


def like(value: Any, parameter: torch.Tensor) -> Any:
    """A tensor cut up as a parameter of the same shape is; anything else as it is."""
    if isinstance(parameter, DTensor) and isinstance(value, torch.Tensor) and value.shape == parameter.shape:
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value
