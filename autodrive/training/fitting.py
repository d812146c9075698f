"""A training, put together: what is needed to fit a student, and what fitting leaves behind."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning as L
from annotated_types import Ge, Le
from torch import Tensor, nn

from autodrive.bounds import Count
from autodrive.students.towers import Tower, TowerCount
from autodrive.tracking.tracker import UnfailingLogger
from autodrive.training.callbacks import TrainingCallbacks
from autodrive.training.schedules import validation_interval
from autodrive.training.sft import SupervisedFineTuning

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


def training_lines(counts: Mapping[Tower, TowerCount], tower_lr: Mapping[Tower, float], lr: float) -> Iterator[str]:
    """What is trained of each tower, in words.

    Args:
        counts: How many parameters of each tower are trained, and how many are not.
        tower_lr: Peak learning rates of towers that have one of their own.
        lr: The peak learning rate of the others.
    """
    for tower, (trained, frozen) in counts.items():
        if trained:
            rest = f", {frozen:,} stay as they are" if frozen else ""
            yield f"{tower}: {trained:,} parameters are trained at lr={tower_lr.get(tower, lr):g}{rest}"
        else:
            yield f"{tower}: {frozen:,} parameters, none is trained"


@contextmanager
def standing_in(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let a model's `state_dict` give these weights meanwhile, in place of the parts that are in this process."""

    def replace(module: nn.Module, state: dict[str, Tensor], prefix: str, facts: Any) -> None:
        state.update({prefix + name: tensor for name, tensor in weights.items()})

    hook = model.register_state_dict_post_hook(replace)
    try:
        yield
    finally:
        hook.remove()


@dataclass(frozen=True)
class Training:
    """Everything that fitting a student needs.

    Attributes:
        method: What a step does; holds the student.
        loaders: Training and validation batches.
        trainer: Lightning's trainer, which runs the steps.
        callbacks: The callbacks that the trainer calls.
        resume_from: The checkpoint to continue from, if any.
        parameters: How many parameters of each tower are trained, and how many are not.
    """

    method: SupervisedFineTuning
    loaders: L.LightningDataModule
    trainer: L.Trainer
    callbacks: TrainingCallbacks
    resume_from: Path | None
    parameters: Mapping[Tower, TowerCount]

    @property
    def loggers(self) -> Sequence[UnfailingLogger]:
        """What the trainer logs to."""
        return [logger for logger in self.trainer.loggers if isinstance(logger, UnfailingLogger)]

    def fit(self, student: Path) -> None:
        """Train to the last step, and write the student with the weights of its best validation.

        Args:
            student: Folder that is written.

        Raises:
            KeyboardInterrupt: The user stopped it.
        """
        checkpoint = None if self.resume_from is None else str(self.resume_from)
        self.method.at_end = partial(self._keep_best, student)
        try:
            self.trainer.fit(self.method, self.loaders, ckpt_path=checkpoint)
        except SystemExit:
            if not self.trainer.interrupted:
                raise
            raise KeyboardInterrupt from None  # which Lightning turns into an exit with code 1
        if not self.method.ended:  # it was resumed after its last step, of which Lightning makes no end
            self._keep_best(student)

    def _keep_best(self, folder: Path) -> None:
        self.callbacks.checkpoints.restore(self.method)
        weights = self.method.sharing.whole_weights(self.method)
        student, group = self.method.student, self.method.group
        if group.leads:
            with standing_in(student.model, weights or {}):
                student.save(folder)
        group.wait()

    def facts(self) -> dict[str, Any]:
        """What `provenance.json` says of the training."""
        counts = {tower: count._asdict() for tower, count in self.parameters.items()}
        return {
            "num_parameters": sum(sum(count.values()) for count in counts.values()),
            "parameters": counts,
            "num_steps": self.trainer.max_steps,
            "throughput": self.callbacks.throughput.summary(),
        }
