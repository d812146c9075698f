"""What `prepare` needs from a source of videos, and what the folder-reading adapters share."""

import math
from pathlib import Path
from typing import Protocol

from autodrive.errors import InputError
from autodrive.schema import SetAside, SourceVideo

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg", ".flv", ".wmv", ".3gp")


class Adapter(Protocol):
    """One source of videos; built by Hydra from `conf/dataset/*.yaml`."""

    @property
    def name(self) -> str:
        """Name of the data set, written to every clip."""
        ...

    def videos(self) -> tuple[list[SourceVideo], list[SetAside]]:
        """Every video of the source with absolute paths, and every row or file that is none, with its reason.

        Raises:
            InputError: The source is not there or not in this layout.
        """
        ...


def require_folder(source: str | None, dataset: str) -> Path:
    """The folder a user named as `source`.

    Raises:
        InputError: None was named, or it is not a folder.
    """
    if not source:
        raise InputError(f"dataset={dataset}: source is not set; add source=<folder>")
    folder = Path(source).expanduser().absolute()
    if not folder.is_dir():
        raise InputError(f"source={source}: no such folder; give the folder that holds the videos")
    return folder


def find_videos(folder: Path) -> list[Path]:
    """All files below `folder` with a video's suffix, sorted; hidden files and folders are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def parse_seconds(text: str | None, column: str) -> float | None:
    """A time in seconds from a CSV cell; None for an empty cell.

    Raises:
        ValueError: The cell is not a finite number of seconds at or after 0.
    """
    text = (text or "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{column} {text!r} is not a time in seconds")
    return value
