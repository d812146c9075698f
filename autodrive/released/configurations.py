"""Configurations of released checkpoints, one JSON file each, and where every one of them comes from.

A file holds the checkpoint's name on the hub, its licence, its `config.json` as it is published, and the `source` of
that: a copy of the published file, or `reconstructed` with what it was put together from.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class ReleasedConfiguration:
    """What is known of a checkpoint without its weights.

    Attributes:
        checkpoint: Repository on the Hugging Face hub.
        licence: Identifier of the weights' licence, as their publisher's page states it.
        source: Where `config` comes from, in words; begins with "reconstructed" where it is not the published file.
        config: The checkpoint's `config.json`.
    """

    checkpoint: str
    licence: str
    source: str
    config: Mapping[str, Any]


@cache
def released_configurations() -> Mapping[str, ReleasedConfiguration]:
    """The configurations that come with this package, by the checkpoint's name on the hub."""
    known = [ReleasedConfiguration(**json.loads(path.read_text(encoding="utf-8"))) for path in FOLDER.glob("*.json")]
    return {one.checkpoint: one for one in sorted(known, key=lambda one: one.checkpoint)}


def released_at(source: str) -> ReleasedConfiguration | None:
    """The checkpoint with this name on the hub, or in a folder of its name; None if it is not known here."""
    known = released_configurations()
    by_folder = {name.rpartition("/")[2]: one for name, one in known.items()}
    return known.get(source) or by_folder.get(Path(source).name)
