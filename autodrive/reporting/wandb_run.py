"""Weights & Biases: the run must work with no account and no network, so it is online only for who is logged in."""

import os

import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.loggers import WandbLogger


def wandb_mode() -> str:
    """`WANDB_MODE` if set; else online for a logged-in user, offline for everybody else."""
    chosen = os.environ.get("WANDB_MODE")
    if chosen:
        return chosen
    return "online" if wandb.api.api_key else "offline"


def make_wandb_logger(project: str, save_dir: str) -> WandbLogger:
    """A logger for one run; the jobs of a sweep share a group named after the sweep's folder."""
    if wandb.run is not None:  # the sweep's previous job; Lightning would write into its run
        wandb.finish()
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    sweep = hydra is not None and hydra.mode == RunMode.MULTIRUN
    return WandbLogger(
        project=project,
        save_dir=save_dir,
        name=os.path.basename(save_dir),
        group=os.path.basename(os.path.dirname(save_dir)) if sweep else None,
        mode=wandb_mode(),
        settings=wandb.Settings(silent=True),
    )
