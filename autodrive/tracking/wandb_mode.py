"""Weights & Biases: the run must work with no account and no network, so it is online only for who is logged in."""

import netrc
import os
import socket
from urllib.parse import urlparse
from urllib.request import getproxies

from autodrive.errors import InputError

MODES = ("online", "offline", "disabled", "shared")
SERVER = "https://api.wandb.ai"
REFUSED = "WANDB_API_KEY: W&B refuses the key; run `wandb login`, or give WANDB_MODE=offline"
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


def check_account() -> None:
    """Ask the server whether it takes the key, for a run that would log online.

    A server that cannot be reached is no reason to stop: the run will be logged offline.

    Raises:
        InputError: As `wandb_mode` does, or the server refuses the key.
    """
    if wandb_mode() != "online":
        return
    import wandb  # imported here: it takes seconds, and few runs are online
    from wandb.errors import AuthenticationError

    wandb.setup(settings=wandb.Settings(silent=True))
    try:
        wandb.login(verify=True, prompt=False)
    except AuthenticationError:
        if _answers():
            raise InputError(REFUSED) from None


def _answers() -> bool:
    """Whether something listens at W&B's address; behind a proxy that is not known, and taken for granted."""
    address = urlparse(os.environ.get("WANDB_BASE_URL", SERVER))
    port = address.port or (80 if address.scheme == "http" else 443)
    if getproxies():
        return True
    try:
        with socket.create_connection((address.hostname or "", port), timeout=5):
            return True
    except OSError:
        return False


def _logged_in() -> bool:
    """Whether a key lies where W&B documents it; asking W&B itself prompts or warns, depending on its version."""
    if key := os.environ.get("WANDB_API_KEY"):
        if len(key.rpartition("-")[2]) < KEY_LENGTH:
            raise InputError("WANDB_API_KEY: too short to be a key; copy it again, or unset it to stay offline")
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", SERVER)).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
