"""What lies below the folder of a source: its videos, and a line for every other entry."""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from autodrive.errors import InputError
from autodrive.schema import SetAside

# The containers that FFmpeg is let read; whether a file holds what its name says is for the pre-flight scan to find.
VIDEO_SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".f4v", ".3gp", ".3g2", ".insv"),
    *(".mkv", ".webm", ".avi", ".flv", ".wmv", ".asf", ".ogv"),
    *(".ts", ".mts", ".m2ts", ".m2t", ".mpg", ".mpeg", ".vob"),
}
# What `prepare` writes, which may lie below its own source.
PREPARED_FILES = ("clips.jsonl", "quarantine.jsonl", "prepare.json", "scan_cache.jsonl")


def require_folder(source: str | None, dataset: str) -> Path:
    """The folder a user named as `source`.

    Raises:
        InputError: None was named, or it is not a folder.
    """
    if not source:
        raise InputError(f"dataset={dataset}: source is not set; add source=<folder>")
    folder = Path(os.path.abspath(os.path.expanduser(source)))
    if not os.path.isdir(folder):
        raise InputError(f"source={source}: no such folder; give the folder that holds the videos")
    return folder


def read_folder(folder: Path, own: Iterable[Path] = ()) -> tuple[list[Path], list[SetAside]]:
    """Every video below a folder, and a line for every other entry that is not hidden.

    Links are followed. A folder that several ways lead to is entered once below each entry of the source's folder, so
    that links cannot go in circles. Nothing is opened: pipes and devices do no harm.

    Args:
        folder: The source's folder; hidden files and folders (`.name`) in it are left out.
        own: Files that the caller reads itself, whatever names lead to them; they appear in neither list.

    Returns:
        Files with a video's suffix, sorted, and what is set aside: `unknown_suffix`, `not_a_file` (a pipe, socket or
        device), `dangling_link`, `repeated_folder`, `unreadable_folder`, `unreadable`, `bad_name` (not UTF-8).

    Raises:
        InputError: The folder itself cannot be read.
    """
    known = {os.path.realpath(path) for path in own}
    videos: list[Path] = []
    aside: list[SetAside] = []
    for path, reason, detail in _entries(folder):
        if path.name in PREPARED_FILES or os.path.realpath(path) in known:
            continue
        if reason is None:
            videos.append(path)
        else:
            item = _printable(path.relative_to(folder).as_posix())
            aside.append(SetAside(item=item, reason=reason, detail=f"{_printable(str(path))}: {detail}"))
    return sorted(videos), aside


def _entries(folder: Path) -> Iterator[tuple[Path, str | None, str]]:
    """Videos, and other entries with their reason and detail."""
    entered: dict[tuple[str, int, int], Path] = {}
    waiting = deque([folder])
    while waiting:
        parent = waiting.popleft()
        try:
            entries = sorted(os.scandir(parent), key=lambda entry: (entry.is_symlink(), entry.name))
        except OSError as error:
            if parent == folder:
                raise InputError(f"source={folder}: cannot be read ({error.strerror}); make it readable") from error
            yield parent, "unreadable_folder", f"{error.strerror}; make it readable"
            continue
        for path in (Path(entry.path) for entry in entries if not entry.name.startswith(".")):
            try:
                path.name.encode()
                status = path.stat()
            except UnicodeEncodeError:
                yield path, "bad_name", "its name is not UTF-8; rename it"
                continue
            except OSError as error:
                dangling = path.is_symlink() and error.errno != errno.EACCES
                yield path, "dangling_link" if dangling else "unreadable", str(error.strerror)
                continue
            if stat.S_ISDIR(status.st_mode):
                top = path.relative_to(folder).parts[0]
                first = (
                    folder if path.samefile(folder) else entered.setdefault((top, status.st_dev, status.st_ino), path)
                )
                if first == path:
                    waiting.append(path)
                else:
                    yield path, "repeated_folder", f"leads to {first}, which is read already"
            elif not stat.S_ISREG(status.st_mode):
                yield path, "not_a_file", "a pipe, socket or device, which is not opened"
            elif path.suffix.lower() not in VIDEO_SUFFIXES:
                yield (
                    path,
                    "unknown_suffix",
                    "its ending is none of a video that is known here; rename or convert a video",
                )
            else:
                yield path, None, ""


def _printable(text: str) -> str:
    """Text that can be written as UTF-8: other bytes of a file's name are shown by their numbers."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
