"""The processes of a run as one of them sees the others, and what they tell each other.

A process is called a *rank*, by its number. Whatever is exchanged here is small: counts, flags, replies. Gradients and
weights are exchanged by the strategies (`autodrive/training/strategies.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class Group:
    """The ranks of a run; every method must be called by all of them, and costs one process nothing.

    Attributes:
        rank: Number of this process.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that speaks, writes and logs for all."""
        return self.rank == 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each value, added up over all ranks."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def largest(self, values: Sequence[float]) -> list[float]:
        """Each value's largest over all ranks."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set anywhere."""
        return bool(self.largest([flag])[0])

    def all_of(self, value: ValueT) -> list[ValueT]:
        """Every rank's value, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return cast(list[ValueT], values)

    def from_first(self, value: ValueT) -> ValueT:
        """What rank 0 has."""
        if self.size == 1:
            return value
        values: list[Any] = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def wait(self) -> None:
        """Go on when all have come here."""
        self.sums([0])

    def _reduced(self, values: Sequence[float], operation: dist.ReduceOp.RedOpType) -> list[float]:
        if self.size == 1:
            return list(values)
        reduced = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(reduced, operation)
        return reduced.tolist()


def this_group() -> Group:
    """The ranks of this run; a process that belongs to no process group is alone."""
    if not (dist.is_available() and dist.is_initialized()):
        return Group()
    return Group(dist.get_rank(), dist.get_world_size())
