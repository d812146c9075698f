"""Any folder of videos: classes by subfolder name, by a `labels.csv`, or no labels at all.

`labels.csv` lies in the folder and has the columns `file,label` and, if wanted, `event_time_s`, `alert_time_s`,
`split`, `ego_involved` and `source_video_id`. Label names are matched in lower case with `_` for spaces and hyphens, so
that a subfolder "Near-Collision" is the class near_collision.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autodrive.datasets.source_folder import read_folder, require_folder
from autodrive.datasets.table import Row, parse_seconds, read_table
from autodrive.errors import InputError
from autodrive.schema import ROAD, SPLITS, SetAside, SourceVideo, SourceView

LABELS_FILE = "labels.csv"
NEEDED_COLUMNS = ("file", "label")
OPTIONAL_COLUMNS = ("event_time_s", "alert_time_s", "split", "ego_involved", "source_video_id")
_TRUTH = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False, "": None}


@dataclass(frozen=True)
class VideoFolderAdapter:
    """Reads a folder of videos.

    Attributes:
        source: Folder that holds the videos.
    """

    source: str | None

    @property
    def name(self) -> str:
        """See `Adapter.name`."""
        return "video_folder"

    def videos(self) -> tuple[list[SourceVideo], list[SetAside]]:
        """See `Adapter.videos`."""
        root = require_folder(self.source, self.name)
        table = root / LABELS_FILE
        items = _listed(root, table) if os.path.lexists(table) else _by_folder(root)
        videos: list[SourceVideo] = []
        aside: list[SetAside] = []
        earlier: dict[str, tuple[str, SourceVideo]] = {}
        for where, item in items:
            if isinstance(item, SetAside):
                aside.append(item)
                continue
            first_where, first = earlier.setdefault(os.path.realpath(item.road.path), (where, item))
            if first is not item:
                _check_agreement(first_where, first, where, item)
                aside.append(
                    SetAside(item=item.id, reason="repeated_file", detail=f"{where}: the file of {first_where}")
                )
            else:
                videos.append(item)
        if not videos and not aside:
            raise InputError(f"source={self.source}: no video below this folder; give a folder that holds videos")
        return videos, aside


def canonical_label(text: str) -> str | None:
    """A label as manifests write it: lower case, `_` for spaces and hyphens; None for an empty one."""
    return text.strip().lower().replace("-", "_").replace(" ", "_") or None


def _by_folder(root: Path) -> Iterator[tuple[str, SourceVideo | SetAside]]:
    """Class by the first subfolder's name; no labels where every video lies in the folder itself.

    Yields:
        Where an item was found, and the item.
    """
    files, aside = read_folder(root)
    labelled = any(path.parent != root for path in files)
    for path in files:
        relative = path.relative_to(root)
        if labelled and len(relative.parts) == 1:
            detail = f"{path}: lies beside the class folders; move it into one, or write a {LABELS_FILE}"
            yield str(path), SetAside(item=relative.as_posix(), reason="no_class_folder", detail=detail)
            continue
        label = canonical_label(relative.parts[0]) if labelled else None
        yield str(path), _video(relative.as_posix(), path, label)
    yield from ((item.item, item) for item in aside)


def _listed(root: Path, table: Path) -> Iterator[tuple[str, SourceVideo | SetAside]]:
    """What the table lists, and all that lies in the folder beside it; as `_by_folder`."""
    listed = [table]
    for number, row in read_table(table, NEEDED_COLUMNS, OPTIONAL_COLUMNS):
        name, where = row["file"], f"{table}:{number}"
        if not name:
            yield where, SetAside(item=where, reason="bad_row", detail=f"{where}: no file")
            continue
        path = root / name
        listed.append(path)
        if not os.path.isfile(path):
            yield where, SetAside(item=name, reason="missing", detail=f"{where}: there is no such file")
            continue
        try:
            yield where, _from_row(name, path, row)
        except ValueError as error:
            yield where, SetAside(item=name, reason="bad_row", detail=f"{where}: {error}")
    files, aside = read_folder(root, listed)
    for path in files:
        item = path.relative_to(root).as_posix()
        yield item, SetAside(item=item, reason="not_listed", detail=f"{table} has no row for it")
    yield from ((item.item, item) for item in aside)


def _check_agreement(first_where: str, first: SourceVideo, where: str, second: SourceVideo) -> None:
    """Refuse two rows or folders that say different things of one file."""
    for fact in ("label", *OPTIONAL_COLUMNS):
        said = [getattr(video, fact) for video in (first, second)]
        if fact == "source_video_id":  # without one, each name stands for itself
            said = [None if value == video.id else value for value, video in zip(said, (first, second), strict=True)]
        if said[0] != said[1]:
            contradiction = f"the file of {first_where}, but {fact} is {said[1]!r} here and {said[0]!r} there"
            raise InputError(f"{where}: {contradiction}; keep one of the two")


def _from_row(name: str, path: Path, row: Row) -> SourceVideo:
    split = row.get("split", "").lower() or None
    if split is not None and split not in SPLITS:
        raise ValueError(f"split {split!r} is none of {', '.join(SPLITS)}")
    ego = row.get("ego_involved", "").lower()
    if ego not in _TRUTH:
        raise ValueError(f"ego_involved {ego!r} is neither yes nor no")
    video = _video(name, path, canonical_label(row["label"]))
    return video.model_copy(
        update={
            "source_video_id": row.get("source_video_id") or video.source_video_id,
            "event_time_s": parse_seconds(row.get("event_time_s", ""), "event_time_s"),
            "alert_time_s": parse_seconds(row.get("alert_time_s", ""), "alert_time_s"),
            "ego_involved": _TRUTH[ego],
            "split": split,
        }
    )


def _video(name: str, path: Path, label: str | None) -> SourceVideo:
    return SourceVideo(
        id=name, dataset="video_folder", source_video_id=name, views={ROAD: SourceView(path=str(path))}, label=label
    )
