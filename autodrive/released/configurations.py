"""Configurations of released checkpoints, one JSON file each, and where every one of them comes from.

A file holds the checkpoint's name on the hub, its `config.json` as it is published, and the `source` of that: a copy of
the published file, or `reconstructed` with what it was put together from.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from autodrive.errors import InputError

FOLDER = Path(__file__).parent
CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class ReleasedConfiguration:
    """What is known of a checkpoint without its weights.

    Attributes:
        checkpoint: Repository on the Hugging Face hub, or a local folder.
        source: Where `config` comes from, in words; begins with "reconstructed" where it is not the published file.
        config: The checkpoint's `config.json`.
    """

    checkpoint: str
    source: str
    config: Mapping[str, Any]


@cache
def released_configurations() -> Mapping[str, ReleasedConfiguration]:
    """The configurations that come with this package, by the checkpoint's name on the hub."""
    known = [ReleasedConfiguration(**json.loads(path.read_text(encoding="utf-8"))) for path in FOLDER.glob("*.json")]
    return {one.checkpoint: one for one in sorted(known, key=lambda one: one.checkpoint)}


def configuration_of(checkpoint: str) -> ReleasedConfiguration:
    """The configuration of a checkpoint, without a network: that of a local folder, or one that comes with the package.

    Raises:
        InputError: It is neither, or the folder has no `config.json` that can be read.
    """
    path = Path(checkpoint) / CONFIG_FILE
    if path.is_file():
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read ({error}); restore the checkpoint's folder") from None
        return ReleasedConfiguration(checkpoint, str(path), config)
    known = released_configurations()
    if checkpoint not in known:
        fix = f"give a local folder with a {CONFIG_FILE}, or one of {', '.join(known)}"
        raise InputError(f"student.checkpoint={checkpoint}: its sizes are not known before it is downloaded; {fix}")
    return known[checkpoint]
