"""Reading a manifest of clips, with its paths made absolute and its files known to be there."""

import json
import os
import stat
from pathlib import Path
from typing import TypeVar

from autodrive.errors import InputError
from autodrive.schema import ENCODING_FIX, Clip, DataFile, read_jsonl
from autodrive.text_files import text_lines

# Fields of a clip in manifests of older versions, which measured one video a clip and knew one file beside it.
OLDER_FIELDS = {"native_fps", "telemetry"}
FileT = TypeVar("FileT", bound=DataFile)


def load_clips(path: Path, check_files: bool = True) -> list[Clip]:
    """Read a `clips.jsonl` and check that every file it names is there.

    Args:
        path: The manifest; relative paths in it start at its folder.
        check_files: Whether files must be there; not where nothing is read but the manifest itself.

    Returns:
        The clips with absolute paths, in the order of the file.

    Raises:
        InputError: The manifest is missing, empty or of an older version, a line is not a clip (file and line are
            named), an id occurs twice, or a file is missing or another one than was prepared (the first one is named,
            all are counted).
    """
    _check_version(path)
    clips = read_jsonl(path, Clip)
    if not clips:
        raise InputError(f"{path}: holds no clips; run python -m autodrive.prepare on a folder with usable videos")
    seen: set[str] = set()
    for clip in clips:
        if clip.id in seen:
            raise InputError(f"{path}: clip id {clip.id!r} occurs twice; ids must be unique, remove one of the lines")
        seen.add(clip.id)
    root = path.absolute().parent
    clips = [_with_absolute_paths(clip, root) for clip in clips]
    if check_files:
        _check_files(path, clips)
    return clips


def _check_version(path: Path) -> None:
    if not os.path.lexists(path):
        return  # said by the reader of records
    first = next((line for _, line in text_lines(path, ENCODING_FIX) if line.strip()), "")
    try:
        fields = json.loads(first)
    except (ValueError, RecursionError):
        return  # named with its line by the reader of records
    if isinstance(fields, dict) and OLDER_FIELDS & fields.keys():
        raise InputError(f"{path}: written by an older version; run python -m autodrive.prepare again")


def _with_absolute_paths(clip: Clip, root: Path) -> Clip:
    def absolute(file: FileT) -> FileT:
        return file.model_copy(update={"path": os.path.normpath(root / file.path)})

    files = {"sensors": clip.sensors and absolute(clip.sensors), "truth": clip.truth and absolute(clip.truth)}
    return clip.model_copy(update={"views": {name: absolute(view) for name, view in clip.views.items()}, **files})


def _check_files(path: Path, clips: list[Clip]) -> None:
    videos = {view.path: view.num_bytes for clip in clips for view in clip.views.values()}
    beside = dict.fromkeys(file.path for clip in clips for file in (clip.sensors, clip.truth) if file is not None)
    for kind, files in (("videos", videos), ("sensor and truth files", beside)):
        found = {file: _num_bytes(file) for file in files}
        missing = [file for file in files if found[file] is None]
        if missing:
            count = f"{len(missing)} of {len(files)} {kind} missing, the first is {missing[0]}"
            raise InputError(f"{path}: {count}; put them back or run python -m autodrive.prepare again")
        replaced = [file for file, expected in files.items() if expected not in (None, found[file])]
        if replaced:
            count = f"{len(replaced)} of {len(files)} {kind} replaced since it was written, the first is {replaced[0]}"
            raise InputError(f"{path}: {count}; put back what was there or run python -m autodrive.prepare again")


def _num_bytes(file: str) -> int | None:
    """Length of a file; None where there is none."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
