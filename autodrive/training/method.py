"""What processes share the steps of, whichever method makes them."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning as L

from autodrive.ranks.group import Group
from autodrive.students.student import Student


class Method(L.LightningModule):
    """A way to train a student; called with a row, it gives the row's share of the loss of its step, in nats.

    Args:
        student: The model; its parameters that require gradients are trained.
        group: The processes that train together.

    Attributes:
        autocast: What forward passes are made in, where the strategy does not see to that itself.
    """

    def __init__(self, student: Student, group: Group) -> None:
        super().__init__()
        self.student, self.group = student, group
        self.autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
