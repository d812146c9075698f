"""Lightning callbacks of a training run: progress with an estimate, the best and the last checkpoint."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar


class StepProgress(RichProgressBar):
    """A progress bar over optimiser steps: the stream of visits has no end that Lightning could know."""

    @property
    def total_train_batches(self) -> int:
        """Steps of the whole training."""
        return self.trainer.max_steps

    def _get_train_description(self, current_epoch: int) -> str:
        return "training"


class Checkpoints(ModelCheckpoint):
    """After every validation: `last.ckpt` to resume from, `best.ckpt` with the highest validation accuracy."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor="val/accuracy",
            mode="max",
            save_top_k=1,
            save_last=True,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best checkpoint of the run that is resumed; Lightning would forget it with the folder."""
        assert self.dirpath is not None
        earlier = Path(state_dict["best_model_path"])
        best = Path(self.dirpath) / earlier.name
        if earlier != best:
            best.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(earlier, best)
        moved = {"dirpath": self.dirpath, "best_model_path": str(best), "kth_best_model_path": str(best)}
        moved |= {"best_k_models": {str(best): state_dict["best_model_score"]}, "last_model_path": ""}
        super().load_state_dict(state_dict | moved)

    def restore(self, module: L.LightningModule) -> None:
        """Give a module the best checkpoint's weights."""
        state = torch.load(self.best_model_path, map_location="cpu", weights_only=True)
        module.load_state_dict(state["state_dict"])


class TrainingCallbacks(NamedTuple):
    """What `train.py` hands to the trainer."""

    checkpoints: Checkpoints
    progress: StepProgress


def training_callbacks(run_dir: Path) -> TrainingCallbacks:
    """Callbacks that write into a run folder."""
    return TrainingCallbacks(Checkpoints(run_dir / "checkpoints"), StepProgress(leave=True))
