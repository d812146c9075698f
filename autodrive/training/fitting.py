"""A training, put together: what is needed to fit a student, and what fitting leaves behind."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning as L
from annotated_types import Ge, Le

from autodrive.bounds import Count
from autodrive.tracking.tracker import UnfailingLogger
from autodrive.training.callbacks import TrainingCallbacks
from autodrive.training.schedules import validation_interval

DONE_BY_A_STEP = {"gradient_clip_val": "method.max_grad_norm", "accumulate_grad_batches": "batch_size, tokens_per_row"}


def make_trainer(
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"],
    devices: Annotated[int, Ge(-1), Le(1024)] | Literal["auto"] | Sequence[int],
    num_nodes: Count,
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"],
    log_every_n_steps: Count,
    val_check_interval: Count,
    **settings: Any,
) -> L.Trainer:
    """Lightning's trainer for an endless stream of visits, which the number of steps ends.

    Args:
        accelerator: Kind of device, in Lightning's words.
        devices: How many of them, or which.
        num_nodes: Machines that train together.
        precision: Precision of the arithmetic, in Lightning's words.
        log_every_n_steps: Optimiser steps between logged losses.
        val_check_interval: Most optimiser steps between validations; checkpoints are written after them.
        settings: Further arguments of `lightning.Trainer`, `max_steps` among them.

    Raises:
        ValueError: An argument is among them that would be ignored, since a step does that itself.
    """
    for name, own in DONE_BY_A_STEP.items():
        if settings.get(name) is not None:
            raise ValueError(f"{name} has no effect here; give {own}")
    return L.Trainer(
        accelerator=accelerator,
        devices=devices if isinstance(devices, int | str) else list(devices),
        num_nodes=num_nodes,
        precision=precision,
        log_every_n_steps=log_every_n_steps,
        val_check_interval=validation_interval(settings["max_steps"], val_check_interval),
        max_epochs=-1,
        check_val_every_n_epoch=None,  # an endless stream has no epochs to count
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the stream is one for all processes; Lightning must not cut it up
        enable_model_summary=False,
        **settings,
    )


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

    @property
    def loggers(self) -> Sequence[UnfailingLogger]:
        """What the trainer logs to."""
        return [logger for logger in self.trainer.loggers if isinstance(logger, UnfailingLogger)]

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

    def facts(self) -> dict[str, Any]:
        """What `provenance.json` says of the training."""
        return {
            "num_parameters": sum(parameter.numel() for parameter in self.method.parameters()),
            "num_trained": sum(p.numel() for p in self.method.parameters() if p.requires_grad),
            "num_steps": self.trainer.max_steps,
            "throughput": self.callbacks.throughput.summary(),
        }
