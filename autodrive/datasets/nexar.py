"""The public Nexar Collision Prediction data set, in the layout of its Hugging Face repository.

`{train,test-public,test-private}/{positive,negative}/NNNNN.mp4`, each of these folders with a `metadata.csv`. The files
do not say which positives are collisions and which near-collisions, so positives are labelled `event`.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autodrive.datasets.source_folder import read_folder, require_folder
from autodrive.datasets.table import Row, parse_seconds, read_table
from autodrive.errors import InputError
from autodrive.schema import ROAD, SetAside, SourceVideo, SourceView, Split

FOLDER_SPLITS: dict[str, Split] = {"train": "train", "test-public": "test", "test-private": "test"}
FOLDER_LABELS = {"positive": "event", "negative": "normal"}
NEEDED_COLUMNS = ("file_name", "time_of_event", "time_of_alert")
# An early revision had no time_to_accident in train.
METADATA_COLUMNS = {"light_conditions": "light", "weather": "weather", "scene": "scene"}
ID_DIGITS = 5


@dataclass(frozen=True)
class NexarAdapter:
    """Reads a download of `nexar-ai/nexar_collision_prediction`; folders that were not downloaded may be missing.

    Attributes:
        source: The folder that holds `train/`, `test-public/` and `test-private/`.
        keep_for_anticipation: Keep positives that end before their event, as unlabelled clips; else they are set aside.
    """

    source: str | None
    keep_for_anticipation: bool = False

    @property
    def name(self) -> str:
        """See `Adapter.name`."""
        return "nexar"

    def videos(self) -> tuple[list[SourceVideo], list[SetAside]]:
        """See `Adapter.videos`."""
        root = require_folder(self.source, self.name)
        names = [f"{split}/{label}" for split in FOLDER_SPLITS for label in FOLDER_LABELS]
        folders = [name for name in names if os.path.isdir(root / name)]
        if not folders:
            raise InputError(
                f"source={self.source}: holds no train/positive or similar folder; give the data set's root"
            )
        files, aside = read_folder(root, [root / folder / "metadata.csv" for folder in folders])
        by_folder: dict[str, list[Path]] = {folder: [] for folder in folders}
        for path in files:
            relative = path.relative_to(root)
            folder = "/".join(relative.parts[:2])
            if folder in by_folder and len(relative.parts) > 2:
                by_folder[folder].append(path)
            else:
                detail = f"{path}: lies in none of {', '.join(folders)}; move it into one"
                aside.append(SetAside(item=relative.as_posix(), reason="outside_layout", detail=detail))
        videos: list[SourceVideo] = []
        for folder, paths in by_folder.items():
            for item in self._folder(root / folder / "metadata.csv", folder, paths):
                if isinstance(item, SetAside):
                    aside.append(item)
                else:
                    videos.append(item)
        return _with_unique_ids(videos), aside

    def _folder(self, table: Path, folder: str, paths: list[Path]) -> Iterator[SourceVideo | SetAside]:
        files: dict[str, Path] = {}
        for path in paths:
            if files.setdefault(_padded(path), path) != path:
                detail = f"{path}: has the same number as {files[_padded(path)]}"
                yield SetAside(item=f"{folder}/{path.name}", reason="repeated_id", detail=detail)
        if not os.path.lexists(table):
            raise InputError(f"{table}: missing; download the metadata.csv that belongs to this folder")
        listed: dict[str, tuple[int, Row]] = {}
        for number, row in read_table(table, NEEDED_COLUMNS):
            name, where = row["file_name"], f"{table}:{number}"
            key = _padded(Path(name))
            item = f"{folder}/{name}"
            if not name:
                yield SetAside(item=item, reason="bad_row", detail=f"{where}: no file_name")
                continue
            first, known = listed.setdefault(key, (number, row))
            if first != number:
                differing = [column for column in row if column != "file_name" and row[column] != known[column]]
                if differing:
                    said = f"{differing[0]} is {row[differing[0]]!r} here and {known[differing[0]]!r} there"
                    raise InputError(f"{where}: the file of line {first}, but {said}; keep one of the two")
                yield SetAside(item=item, reason="repeated_file", detail=f"{where}: the file of line {first}")
            elif key not in files:
                yield SetAside(item=item, reason="missing", detail=f"{where}: there is no such file")
            else:
                try:
                    yield self._video(files[key], row, folder)
                except ValueError as error:
                    yield SetAside(item=item, reason="bad_row", detail=f"{where}: {error}")
        for key in sorted(files.keys() - listed.keys()):
            yield SetAside(item=f"{folder}/{files[key].name}", reason="not_listed", detail=f"{table} has no row for it")

    def _video(self, path: Path, row: Row, folder: str) -> SourceVideo:
        split, label = folder.split("/")
        metadata: dict[str, object] = {"folder": folder}
        metadata |= {name: row[column] for column, name in METADATA_COLUMNS.items() if row.get(column)}
        # Filled for negatives too: it says how the test clip was cut, not that something happens.
        time_to_accident_s = parse_seconds(row.get("time_to_accident", ""), "time_to_accident")
        if time_to_accident_s is not None:
            metadata["time_to_accident_s"] = time_to_accident_s
        if self.keep_for_anticipation:
            metadata["purpose"] = "anticipation"
        identity = path.stem.zfill(ID_DIGITS)
        return SourceVideo(
            id=identity,
            dataset=self.name,
            source_video_id=identity,
            views={ROAD: SourceView(path=str(path))},
            label=FOLDER_LABELS[label],
            event_time_s=parse_seconds(row["time_of_event"], "time_of_event"),
            alert_time_s=parse_seconds(row["time_of_alert"], "time_of_alert"),
            split=FOLDER_SPLITS[split],
            metadata=metadata,
        )


def _with_unique_ids(videos: list[SourceVideo]) -> list[SourceVideo]:
    """Numbers are unique over the published data set; where a copy repeats one, its folder is put before the number."""
    counts = Counter(video.id for video in videos)
    result = []
    for video in videos:
        identity = video.id if counts[video.id] == 1 else f"{video.metadata['folder']}/{video.id}"
        result.append(video.model_copy(update={"id": identity, "source_video_id": identity}))
    return result


def _padded(path: Path) -> str:
    """File name with its zero padding: tools that read ids as integers drop it ("822" or "822.mp4")."""
    return path.stem.zfill(ID_DIGITS)
