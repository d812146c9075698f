"""What a training shows while it runs, beside its loss: learning rate, gradient norm, speed, waiting and memory."""

import resource
import sys
import time
from collections import deque
from typing import Any

import lightning as L
import torch

from autodrive.ranks.group import Group

WINDOW_STEPS = 10  # that rates are taken over: a single step's jump about


class Curves(L.Callback):
    """Gives the loggers what a step came with; rates are over the last `WINDOW_STEPS` steps.

    Args:
        batch_size: Clip visits per optimiser step.
        group: The processes that train together; memory is that of all, and what is waited for is waited for by all.
    """

    def __init__(self, batch_size: int, group: Group) -> None:
        self.batch_size, self.group = batch_size, group
        self._waited_s: deque[float] = deque(maxlen=WINDOW_STEPS)
        self._took_s: deque[float] = deque(maxlen=WINDOW_STEPS)
        self._ended: float | None = None
        self._began = 0.0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """What went by since the last step was waiting for the loader."""
        self._began = time.monotonic()
        self._waited_s.append(0.0 if self._ended is None else self._began - self._ended)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the steps that are due, under the number that Lightning gives their loss.

        Not by the module's own `log`: that keeps a mean of every value at every step, which took 2 ms a step.
        """
        self._ended = time.monotonic()
        self._took_s.append(self._ended - self._began)
        if trainer.global_step % trainer.log_every_n_steps:  # pyright: ignore[reportAttributeAccessIssue] - set by it
            return
        waited_s, total_s = sum(self._waited_s), sum(self._waited_s) + sum(self._took_s)
        values = {
            "train/lr": float(outputs["lr"]),
            "train/gradient_norm": float(outputs["gradient_norm"]),
            "train/clips_per_s": self.batch_size * len(self._took_s) / total_s,
            "train/share_waiting_for_data": waited_s / total_s,
            "train/memory_mb": self.group.sums([peak_memory_mb()])[0],
        }
        if torch.cuda.is_available():
            values["train/gpu_memory_mb"] = self.group.largest([torch.cuda.max_memory_allocated() / 2**20])[0]
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step - 1)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validation is no waiting."""
        self._ended = None


def peak_memory_mb() -> float:
    """The most memory that this process has held so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, kilobytes elsewhere
