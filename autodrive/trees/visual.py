"""What a student's vision tower takes, seen from outside: something that can be joined and moved."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import torch


class VisualInput(ABC):
    """The pixels of one or more trees in the form of one student family, which alone looks inside."""

    @classmethod
    @abstractmethod
    def cat(cls, inputs: Sequence[Self]) -> Self:
        """Join the inputs of several trees in order."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """The same input on `device`."""
