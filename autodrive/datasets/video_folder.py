"""Any folder of videos: classes by subfolder name, by a `labels.csv`, or no labels at all.

`labels.csv` lies in the folder and has the columns `file,label` and, if wanted, `event_time_s`, `alert_time_s`,
`split`, `ego_involved` and `source_video_id`. Label names are matched in lower case with `_` for spaces and hyphens, so
that a subfolder "Near-Collision" is the class near_collision.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from autodrive.datasets.adapter import find_videos, parse_seconds, require_folder
from autodrive.errors import InputError
from autodrive.schema import ROAD, SetAside, SourceVideo, SourceView, Split
from autodrive.video.chunker import NORMAL

LABELS_FILE = "labels.csv"
NEEDED_COLUMNS = ("file", "label")
OPTIONAL_COLUMNS = ("event_time_s", "alert_time_s", "split", "ego_involved", "source_video_id")
_TRUTH = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False, "": None}


@dataclass(frozen=True)
class VideoFolderAdapter:
    """Reads a folder of videos.

    Attributes:
        source: Folder that holds the videos.
        keep_witnessed: Use incidents in which the ego vehicle is only a witness (`ego_involved` is no); they are set
            aside by default, since the task is about the ego vehicle.
    """

    source: str | None
    keep_witnessed: bool = False

    @property
    def name(self) -> str:
        """See `Adapter.name`."""
        return "video_folder"

    def videos(self) -> tuple[list[SourceVideo], list[SetAside]]:
        """See `Adapter.videos`."""
        root = require_folder(self.source, self.name)
        files = find_videos(root)
        table = root / LABELS_FILE
        items = _listed(root, table, files) if table.is_file() else _by_folder(root, files)
        videos: list[SourceVideo] = []
        aside: list[SetAside] = []
        for item in items:
            if isinstance(item, SetAside):
                aside.append(item)
            elif item.ego_involved is False and item.label not in (None, NORMAL) and not self.keep_witnessed:
                detail = f"{item.road.path}: the ego vehicle only witnesses this {item.label}"
                aside.append(SetAside(item=item.id, reason="ego_not_involved", detail=detail))
            else:
                videos.append(item)
        if not videos and not aside:
            raise InputError(f"source={self.source}: no video below this folder; give a folder that holds videos")
        return videos, aside


def canonical_label(text: str) -> str | None:
    """A label as manifests write it: lower case, `_` for spaces and hyphens; None for an empty one."""
    return text.strip().lower().replace("-", "_").replace(" ", "_") or None


def _by_folder(root: Path, files: list[Path]) -> Iterator[SourceVideo | SetAside]:
    """Class by the first subfolder's name; no labels where every video lies in the folder itself."""
    labelled = any(path.parent != root for path in files)
    for path in files:
        relative = path.relative_to(root)
        if labelled and len(relative.parts) == 1:
            detail = f"{path}: lies beside the class folders; move it into one, or write a {LABELS_FILE}"
            yield SetAside(item=relative.as_posix(), reason="no_class_folder", detail=detail)
            continue
        label = canonical_label(relative.parts[0]) if labelled else None
        yield _video(relative.as_posix(), path, label)


def _listed(root: Path, table: Path, files: list[Path]) -> Iterator[SourceVideo | SetAside]:
    listed: set[Path] = set()
    for number, row in _rows(table):
        name = (row["file"] or "").strip()
        path = root / name
        where = f"{table}:{number}"
        if not name or path in listed:
            detail = f"{where}: {'repeats an earlier row' if name else 'no file'}"
            yield SetAside(item=name or where, reason="bad_row", detail=detail)
            continue
        listed.add(path)
        if not path.is_file():
            yield SetAside(item=name, reason="missing", detail=f"{where}: the file is not there")
            continue
        try:
            yield _from_row(name, path, row)
        except ValueError as error:
            yield SetAside(item=name, reason="bad_row", detail=f"{where}: {error}")
    for path in files:
        if path not in listed:
            yield SetAside(
                item=path.relative_to(root).as_posix(), reason="not_listed", detail=f"{table} has no row for it"
            )


def _from_row(name: str, path: Path, row: dict[str, str | None]) -> SourceVideo:
    split = (row.get("split") or "").strip().lower() or None
    if split is not None and split not in get_args(Split):
        raise ValueError(f"split {split!r} is none of {', '.join(get_args(Split))}")
    ego = (row.get("ego_involved") or "").strip().lower()
    if ego not in _TRUTH:
        raise ValueError(f"ego_involved {ego!r} is neither yes nor no")
    video = _video(name, path, canonical_label(row["label"] or ""))
    return video.model_copy(
        update={
            "source_video_id": (row.get("source_video_id") or "").strip() or video.source_video_id,
            "event_time_s": parse_seconds(row.get("event_time_s"), "event_time_s"),
            "alert_time_s": parse_seconds(row.get("alert_time_s"), "alert_time_s"),
            "ego_involved": _TRUTH[ego],
            "split": cast(Split | None, split),
        }
    )


def _video(name: str, path: Path, label: str | None) -> SourceVideo:
    return SourceVideo(
        id=name, dataset="video_folder", source_video_id=name, views={ROAD: SourceView(path=str(path))}, label=label
    )


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    with table.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        columns = reader.fieldnames or ()
        known = (*NEEDED_COLUMNS, *OPTIONAL_COLUMNS)
        missing = [column for column in NEEDED_COLUMNS if column not in columns]
        unknown = [column for column in columns if column not in known]
        if missing or unknown:
            problem = f"no column {missing[0]!r}" if missing else f"unknown column {unknown[0]!r}"
            raise InputError(f"{table}:1: {problem}; the columns are {', '.join(known)}, the first two needed")
        for row in reader:
            if None in row:
                raise InputError(f"{table}:{reader.line_num}: more cells than columns; quote cells that hold commas")
            yield reader.line_num, row
