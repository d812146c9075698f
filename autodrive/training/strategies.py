"""How several processes take a step together (`conf/strategy/*.yaml`): what each does with a row, and how a step ends.

A step's rows are dealt to all processes (`autodrive/trees/sharing.py`). Their weights share one normaliser, so the
gradient of the step is the sum of all rows' gradients, wherever they are read. Everything here averages over processes
where it reduces, as data parallelism usually wants; losses are therefore multiplied by their number.

The arithmetic is that of one process: what is trained is float32, and a precision of `bf16-mixed` is torch's autocast
in every strategy.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol, cast

import torch
from annotated_types import Ge, Le
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from autodrive.students.noise import EmbeddingNoise
from autodrive.students.sharding import check_divisible, shard
from autodrive.training.method import Method
from autodrive.training.sharded import ShardedStrategy, whole
from autodrive.trees.clip_tree import TreeRow

StrategyKind = Literal["single", "ddp", "fsdp", "deepspeed_zero2", "deepspeed_zero3"]


class Sharing(Protocol):
    """A way in which processes take steps together.

    Attributes:
        kind: Name of its file.
        shards_weights: Whether a process has a part of the weights only, so that all must read rows side by side.
        reads_once: Whether the first process alone reads the student from files, and the others get their parts of it.
    """

    @property
    def kind(self) -> StrategyKind:
        """Name of its file."""
        ...

    @property
    def shards_weights(self) -> bool:
        """Whether no process has all weights."""
        ...

    @property
    def reads_once(self) -> bool:
        """Whether the first process alone reads weights."""
        ...

    def for_lightning(self, num_ranks: int, max_grad_norm: float) -> Strategy | str:
        """What Lightning's trainer takes.

        Args:
            num_ranks: Processes that train together.
            max_grad_norm: What the gradient of a step is scaled down to, where a library does that itself.
        """
        ...

    def cut_up(self, method: Method) -> None:
        """Give each process its part of the student, where parts are not made by a library."""
        ...

    def whole_weights(self, method: Method) -> Mapping[str, Tensor] | None:
        """The student's weights, put together on the CPU of rank 0, where no process has them all; else None."""
        ...

    def backward(self, method: Method, row: TreeRow, noise: EmbeddingNoise | None, last: bool) -> Tensor:
        """The forward and backward pass over a row.

        Args:
            method: What is trained.
            row: The row.
            noise: Laid over the row's embeddings, if given.
            last: Whether this process has no more rows in this step.

        Returns:
            The row's share of the step's loss.
        """
        ...

    def step(self, method: Method, optimizer: Optimizer, max_grad_norm: float) -> Tensor:
        """Clip the gradient of the whole step and take the step; returns the gradient's norm before clipping."""
        ...


@dataclass(frozen=True)
class OneProcess:
    """One process with one device."""

    kind: ClassVar[StrategyKind] = "single"
    shards_weights: ClassVar[bool] = False
    reads_once: ClassVar[bool] = False

    def for_lightning(self, num_ranks: int, max_grad_norm: float) -> Strategy | str:
        """See `Sharing`."""
        return "auto"

    def cut_up(self, method: Method) -> None:
        """See `Sharing`."""

    def whole_weights(self, method: Method) -> Mapping[str, Tensor] | None:
        """See `Sharing`."""
        return None

    def backward(self, method: Method, row: TreeRow, noise: EmbeddingNoise | None, last: bool) -> Tensor:
        """See `Sharing`."""
        loss = method(row, noise)
        method.manual_backward(loss)
        return loss.detach()

    def step(self, method: Method, optimizer: Optimizer, max_grad_norm: float) -> Tensor:
        """See `Sharing`."""
        norm = torch.nn.utils.clip_grad_norm_(parameters_of(optimizer), max_grad_norm)
        optimizer.step()
        return norm


@dataclass(frozen=True)
class DataParallel(OneProcess):
    """Every process has all weights (torch's DDP); gradients are added up once a step."""

    kind: ClassVar[StrategyKind] = "ddp"

    def for_lightning(self, num_ranks: int, max_grad_norm: float) -> Strategy | str:
        """See `Sharing`."""
        # The buffers of a student (means of pixels, frequencies) never change.
        return DDPStrategy(gradient_as_bucket_view=True, forward_sync_buffers=False)

    def backward(self, method: Method, row: TreeRow, noise: EmbeddingNoise | None, last: bool) -> Tensor:
        """See `Sharing`."""
        wrapped = cast(DistributedDataParallel, method.trainer.strategy.model)
        # DDP would add up gradients at every backward pass, and pair a process's second row with another's next step.
        with nullcontext() if last else wrapped.no_sync():
            loss = method(row, noise)
            method.manual_backward(loss * method.group.size)
        return loss.detach()


@dataclass(frozen=True)
class FullySharded(OneProcess):
    """Weights, gradients and optimizer states are cut up among all processes (torch's FSDP2, `fully_shard`).

    Every layer's weights are gathered when a row comes to it, so all processes read as many rows; and a row's gradients
    are added up and cut up again at once, so that no process ever holds the gradient of the whole student.

    Attributes:
        one_file_up_to: Most trained weights that a checkpoint of one file holds, which the first process puts together
            in its memory; of more, every process writes its part.
    """

    kind: ClassVar[StrategyKind] = "fsdp"
    shards_weights: ClassVar[bool] = True
    reads_once: ClassVar[bool] = True

    one_file_up_to: Annotated[int, Ge(0), Le(10**13)] = 3 * 10**9

    def for_lightning(self, num_ranks: int, max_grad_norm: float) -> Strategy | str:
        """See `Sharing`."""
        return ShardedStrategy(num_ranks, self.one_file_up_to)

    def cut_up(self, method: Method) -> None:
        """See `Sharing`."""
        if not isinstance(method.student, FSDPModule):
            assert method.device_mesh is not None
            shard(method.student, method.device_mesh["data_parallel"])

    def whole_weights(self, method: Method) -> Mapping[str, Tensor] | None:
        """See `Sharing`."""
        return whole(method.student.model.state_dict(), method.group.leads)

    def backward(self, method: Method, row: TreeRow, noise: EmbeddingNoise | None, last: bool) -> Tensor:
        """See `Sharing`."""
        loss = method(row, noise)
        method.manual_backward(loss * method.group.size)
        return loss.detach()

    def step(self, method: Method, optimizer: Optimizer, max_grad_norm: float) -> Tensor:
        """See `Sharing`."""
        parameters = parameters_of(optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if isinstance(norm, DTensor):  # each process knows the norm of its parts
            norm = norm.full_tensor()
        torch.nn.utils.clip_grads_with_norm_(parameters, max_grad_norm, norm)
        optimizer.step()
        return norm


@dataclass(frozen=True)
class ZeroRedundancy:
    """DeepSpeed's ZeRO (Rajbhandari et al. 2020): stage 2 cuts up gradients and optimizer states, stage 3 weights, too.

    Attributes:
        stage: 2 or 3.
    """

    reads_once: ClassVar[bool] = False

    stage: Literal[2, 3]

    @property
    def kind(self) -> StrategyKind:
        """See `Sharing`."""
        return "deepspeed_zero2" if self.stage == 2 else "deepspeed_zero3"

    @property
    def shards_weights(self) -> bool:
        """See `Sharing`."""
        return self.stage == 3

    def for_lightning(self, num_ranks: int, max_grad_norm: float) -> Strategy | str:
        """See `Sharing`."""
        from autodrive.training.zero import ZeroStrategy

        return ZeroStrategy(self.stage, max_grad_norm)

    def cut_up(self, method: Method) -> None:
        """See `Sharing`; the engine does it, and switches off the autocast around it, which comes back within."""
        check_divisible(method.student)
        method.autocast = method.trainer.precision_plugin.forward_context

    def whole_weights(self, method: Method) -> Mapping[str, Tensor] | None:
        """See `Sharing`."""
        from autodrive.training.zero import gathered

        return gathered(method.student.model, method.group.leads) if self.stage == 3 else None

    def backward(self, method: Method, row: TreeRow, noise: EmbeddingNoise | None, last: bool) -> Tensor:
        """See `Sharing`."""
        engine = cast(Any, method.trainer.strategy.model)
        # One pass of the engine a row: it takes the end of a pass for the end of a step, and would apply the gradient
        # of the last row only, without a word.
        engine.set_gradient_accumulation_boundary(last)
        loss = engine(row, noise)
        method.manual_backward(loss * method.group.size)
        return loss.detach()

    def step(self, method: Method, optimizer: Optimizer, max_grad_norm: float) -> Tensor:
        """See `Sharing`; the engine clips, to what it was set up with."""
        optimizer.step()
        return torch.as_tensor(cast(Any, method.trainer.strategy.model).get_global_grad_norm())


def parameters_of(optimizer: Optimizer) -> Sequence[torch.nn.Parameter]:
    """All parameters that an optimizer moves."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
