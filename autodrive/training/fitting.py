"""A training, put together: what is needed to fit a student, and what fitting leaves behind."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L

from autodrive.training.callbacks import TrainingCallbacks


@dataclass(frozen=True)
class Training:
    """Everything that fitting a student needs.

    Attributes:
        method: What a step does; holds the student.
        loaders: Training and validation batches.
        trainer: Lightning's trainer, which runs the steps.
        callbacks: The callbacks that the trainer calls.
        resume_from: The checkpoint to continue from, if any.
    """

    method: L.LightningModule
    loaders: L.LightningDataModule
    trainer: L.Trainer
    callbacks: TrainingCallbacks
    resume_from: Path | None

    def fit(self) -> None:
        """Train to the last step, and give the student the weights of its best validation.

        Raises:
            KeyboardInterrupt: The user stopped it.
        """
        checkpoint = None if self.resume_from is None else str(self.resume_from)
        try:
            self.trainer.fit(self.method, self.loaders, ckpt_path=checkpoint)
        except SystemExit:
            if not self.trainer.interrupted:
                raise
            raise KeyboardInterrupt from None  # which Lightning turns into an exit with code 1
        self.callbacks.checkpoints.restore(self.method)

    def log(self, metrics: Mapping[str, float]) -> None:
        """Give the loggers the scores of the finished student, as the last thing they get."""
        for logger in self.trainer.loggers:
            logger.log_metrics(dict(metrics), step=self.trainer.global_step)
            logger.finalize("success")

    def facts(self) -> dict[str, Any]:
        """What `provenance.json` says of the training."""
        return {
            "num_parameters": sum(parameter.numel() for parameter in self.method.parameters()),
            "num_steps": self.trainer.max_steps,
            "throughput": self.callbacks.throughput.summary(),
        }
