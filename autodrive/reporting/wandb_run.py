"""Weights & Biases: the run must work with no account and no network, so it is online only for who is logged in."""

import netrc
import os
from typing import Annotated
from urllib.parse import urlparse

import wandb
from annotated_types import MinLen
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.loggers import WandbLogger

from autodrive.errors import InputError

MODES = ("online", "offline", "disabled", "shared")
KEY_LENGTH = 40  # of the part behind the last hyphen; W&B accepts no shorter one


def wandb_mode() -> str:
    """`WANDB_MODE` if set; else online for a logged-in user, offline for everybody else.

    Raises:
        InputError: It is set to something else than W&B's modes, or to online without a key.
    """
    chosen = os.environ.get("WANDB_MODE")
    if chosen:
        if chosen not in MODES:
            raise InputError(f"WANDB_MODE={chosen}: choose one of {', '.join(MODES)}, or unset it")
        if chosen == "online" and not _logged_in():
            raise InputError("WANDB_MODE=online: no key is there; run `wandb login`, or unset it to stay offline")
        return chosen
    return "online" if _logged_in() else "offline"


def _logged_in() -> bool:
    """Whether a key lies where W&B documents it; asking W&B itself prompts or warns, depending on its version."""
    if key := os.environ.get("WANDB_API_KEY"):
        if len(key.rpartition("-")[2]) < KEY_LENGTH:
            raise InputError("WANDB_API_KEY: too short to be a key; copy it again, or unset it to stay offline")
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def make_wandb_logger(project: Annotated[str, MinLen(1)], save_dir: str) -> WandbLogger:
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
