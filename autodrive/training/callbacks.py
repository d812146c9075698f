"""Lightning callbacks of a training run: progress with an estimate, checkpoints, throughput."""

import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar

from autodrive.errors import InputError
from autodrive.ranks.group import Group
from autodrive.runs.checkpoints import copy_checkpoint
from autodrive.runs.folder import RunFiles
from autodrive.training.curves import Curves


class StepProgress(RichProgressBar):
    """A progress bar over optimiser steps: the stream of visits has no end that Lightning could know."""

    @property
    def total_train_batches(self) -> int:
        """Steps of the whole training."""
        return self.trainer.max_steps

    def _get_train_description(self, current_epoch: int) -> str:
        return "training"


class Checkpoints(ModelCheckpoint):
    """After every validation: `last.ckpt` to resume from, `best.ckpt` with the highest validation accuracy.

    Args:
        files: Files of the run folder.
        choosing: Whether validation asks what accuracy is measured by; else the newest checkpoint counts as the best.
        group: The processes that train together, of which the first one writes.
        earlier: Files of the run that is resumed, if any.
    """

    def __init__(self, files: RunFiles, choosing: bool, group: Group, earlier: RunFiles | None = None) -> None:
        super().__init__(
            dirpath=files.checkpoints,
            filename=files.best_checkpoint.stem,
            monitor="val/accuracy" if choosing else None,
            mode="max",
            save_top_k=1,
            save_last=True,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        self.files, self.group, self.earlier = files, group, earlier

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write what is due; Lightning itself writes `last.ckpt` only where the best has changed."""
        super().on_validation_end(trainer, pl_module)
        if self._last_global_step_saved != trainer.global_step:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best checkpoint of the run that is resumed; Lightning would forget it with the folder.

        The state names the places where that run was made. Its folder may have been moved since, so the checkpoint is
        taken from where the folder is now.
        """
        assert self.earlier is not None
        best = self.files.best_checkpoint
        if self.group.leads and self.earlier.best_checkpoint.resolve() != best.resolve():
            copy_checkpoint(self.earlier.best_checkpoint, best)
        self.group.wait()
        moved = {"dirpath": self.dirpath, "best_model_path": str(best), "kth_best_model_path": str(best)}
        moved |= {"best_k_models": {str(best): state_dict["best_model_score"]}, "last_model_path": ""}
        super().load_state_dict(state_dict | moved)

    def restore(self, module: L.LightningModule) -> None:
        """Give a module the best checkpoint's weights; what was not trained is not in it and stays."""
        strategy = module.trainer.strategy
        strategy.load_model_state_dict(
            strategy.load_checkpoint(self.files.best_checkpoint), strict=module.strict_loading
        )


class Throughput(L.Callback):
    """Counts what training works through, and the time that takes; validation is left out.

    Args:
        batch_size: Clip visits per optimiser step.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.clips = self.annotations = self.tokens = self.rows = self.steps = 0
        self.working_s = self.waiting_s = 0.0
        self._since: float | None = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """What went by since the last step was waiting for the loader."""
        now = time.monotonic()
        if self._since is not None:
            self.waiting_s += now - self._since
        self._since = now

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a step, over all processes; its loss is read here, so that a GPU has finished it."""
        torch.as_tensor(outputs["loss"]).item()
        now = time.monotonic()
        self.working_s += now - (self._since or now)
        self._since = now
        self.steps += 1
        self.clips += self.batch_size
        for name in ("rows", "annotations", "tokens"):
            setattr(self, name, getattr(self, name) + outputs[name])

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validation is no waiting."""
        self._since = None

    def summary(self) -> dict[str, float]:
        """Rates over the whole training, for `provenance.json`."""
        total_s = self.working_s + self.waiting_s
        if not self.steps or not total_s:
            return {}
        rates = {name: getattr(self, name) / total_s for name in ("clips", "annotations", "tokens")}
        return {
            **{f"{name}_per_s": round(rate, 2) for name, rate in rates.items()},
            "rows_per_step": round(self.rows / self.steps, 3),
            "tokens_per_row": round(self.tokens / self.rows, 1),
            "share_waiting_for_data": round(self.waiting_s / total_s, 4),
        }


class FiniteSteps(L.Callback):
    """Ends training at the first step whose loss or gradient is not finite, before anything of it is saved.

    The values are read when the step is over, so that a GPU need not wait for them in its middle: the weights of such a
    step are lost, and the checkpoints are those of validations before it.

    Args:
        files: Files of the run folder.
    """

    def __init__(self, files: RunFiles) -> None:
        self.files = files

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at a step; raises InputError if it has diverged."""
        values = {"loss": float(outputs["loss"]), "gradient's norm": float(outputs["gradient_norm"])}
        wrong = [f"the {name} is {value}" for name, value in values.items() if not math.isfinite(value)]
        if wrong:
            # A resumed run has none of its own before its first validation.
            known = (self.files.last_checkpoint, *([Path(trainer.ckpt_path)] if trainer.ckpt_path else []))
            saved = next((path for path in known if path.is_file()), None)
            good = "there is no checkpoint yet" if saved is None else f"the last good checkpoint is {saved}"
            step = f"step {trainer.global_step} of {trainer.max_steps}"
            raise InputError(f"{step}: {wrong[0]} at lr={outputs['lr']:.3g}; {good}; train with a lower lr")


class TrainingCallbacks(NamedTuple):
    """What `train.py` hands to the trainer."""

    checkpoints: Checkpoints
    progress: StepProgress
    throughput: Throughput
    finite: FiniteSteps
    curves: Curves


def training_callbacks(
    files: RunFiles, batch_size: int, choosing: bool, resume: str | None, group: Group
) -> TrainingCallbacks:
    """Callbacks that write into a run folder.

    Args:
        files: Files of the run folder.
        batch_size: Clip visits per optimiser step.
        choosing: Whether validation measures the accuracy by which the best checkpoint is chosen.
        resume: Folder of the run that is resumed; None: this one begins anew.
        group: The processes that train together.
    """
    earlier = RunFiles(Path(resume)) if resume else None
    checkpoints = Checkpoints(files, choosing, group, earlier)
    progress, throughput = StepProgress(leave=True), Throughput(batch_size)
    return TrainingCallbacks(checkpoints, progress, throughput, FiniteSteps(files), Curves(batch_size, group))
