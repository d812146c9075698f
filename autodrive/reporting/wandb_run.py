"""Weights & Biases: the run must work with no account and no network, so it is online only for who is logged in."""

import netrc
import os
from urllib.parse import urlparse

import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.loggers import WandbLogger


def wandb_mode() -> str:
    """`WANDB_MODE` if set; else online for a logged-in user, offline for everybody else."""
    chosen = os.environ.get("WANDB_MODE")
    if chosen:
        return chosen
    return "online" if _logged_in() else "offline"


def _logged_in() -> bool:
    """Whether a key lies where W&B documents it; asking W&B itself prompts or warns, depending on its version."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def make_wandb_logger(project: str, save_dir: str) -> WandbLogger:
    """A logger for one run; the jobs of a sweep share a group named after the sweep's folder."""
    if wandb.run is not None:  # the sweep's previous job; Lightning would write into its run
        wandb.finish()
    wandb.setup(settings=wandb.Settings(silent=True))
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    sweep = hydra is not None and hydra.mode == RunMode.MULTIRUN
    logger = WandbLogger(
        project=project,
        save_dir=save_dir,
        name=os.path.basename(save_dir),
        group=os.path.basename(os.path.dirname(save_dir)) if sweep else None,
        mode=wandb_mode(),
    )
    logger._wandb_init.pop("anonymous")  # Lightning always passes it; W&B dropped the setting and warns of it
    return logger
