"""Reading a manifest of clips, with its paths made absolute and its videos known to be there."""

from pathlib import Path

from autodrive.errors import InputError
from autodrive.schema import Clip, Views, read_jsonl


def load_clips(path: Path) -> list[Clip]:
    """Read a `clips.jsonl`.

    Args:
        path: the manifest; relative paths in it start at its folder.

    Returns:
        The clips with absolute paths, in the order of the file.

    Raises:
        InputError: the manifest is missing or empty, a line is not a clip (file and line are named), an id occurs
            twice, or a video is missing (the first one is named, all are counted).
    """
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
    _check_files(path, clips)
    return clips


def _with_absolute_paths(clip: Clip, root: Path) -> Clip:
    views = Views(**{name: value and str(root / value) for name, value in clip.views.model_dump().items()})
    telemetry = clip.telemetry and str(root / clip.telemetry)
    return clip.model_copy(update={"views": views, "telemetry": telemetry})


def _check_files(path: Path, clips: list[Clip]) -> None:
    files = dict.fromkeys(file for clip in clips for file in (clip.views.road, clip.views.driver) if file)
    missing = [file for file in files if not Path(file).is_file()]
    if missing:
        count = f"{len(missing)} of {len(files)} videos are missing, the first is {missing[0]}"
        raise InputError(f"{path}: {count}; put them back or run python -m autodrive.prepare again")
