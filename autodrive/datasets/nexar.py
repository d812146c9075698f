"""The public Nexar Collision Prediction data set, in the layout of its Hugging Face repository.

`{train,test-public,test-private}/{positive,negative}/NNNNN.mp4`, each of these folders with a `metadata.csv`. The files
do not say which positives are collisions and which near-collisions, so positives are labelled `event`.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autodrive.datasets.adapter import find_videos, parse_seconds, require_folder
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
        folders = [(root / split / label, split, label) for split in FOLDER_SPLITS for label in FOLDER_LABELS]
        present = [entry for entry in folders if entry[0].is_dir()]
        if not present:
            raise InputError(
                f"source={self.source}: holds no train/positive or similar folder; give the data set's root"
            )
        videos: list[SourceVideo] = []
        aside: list[SetAside] = []
        for folder, split, label in present:
            for item in self._folder(folder, split, label):
                (videos if isinstance(item, SourceVideo) else aside).append(item)  # type: ignore[arg-type]
        return _with_unique_ids(videos), aside

    def _folder(self, folder: Path, split: str, label: str) -> Iterator[SourceVideo | SetAside]:
        files: dict[str, Path] = {}
        for path in find_videos(folder):
            if files.setdefault(_padded(path), path) != path:
                detail = f"{path}: has the same number as {files[_padded(path)]}"
                yield SetAside(item=f"{split}/{label}/{path.name}", reason="repeated_id", detail=detail)
        listed: set[str] = set()
        table = folder / "metadata.csv"
        for number, row in _rows(table):
            name = (row["file_name"] or "").strip()
            key = _padded(Path(name))
            item = f"{split}/{label}/{name}"
            if not name or key in listed:
                detail = f"{table}:{number}: {'repeats an earlier row' if name else 'no file_name'}"
                yield SetAside(item=item, reason="bad_row", detail=detail)
                continue
            listed.add(key)
            if key not in files:
                yield SetAside(item=item, reason="missing", detail=f"{table}:{number}: the file is not there")
                continue
            try:
                yield self._video(files[key], row, split, label)
            except ValueError as error:
                yield SetAside(item=item, reason="bad_row", detail=f"{table}:{number}: {error}")
        for key in sorted(files.keys() - listed):
            item = f"{split}/{label}/{files[key].name}"
            yield SetAside(item=item, reason="not_listed", detail=f"{table} has no row for it")

    def _video(self, path: Path, row: dict[str, str | None], split: str, label: str) -> SourceVideo:
        metadata: dict[str, object] = {"folder": f"{split}/{label}"}
        metadata |= {
            name: value for column, name in METADATA_COLUMNS.items() if (value := (row.get(column) or "").strip())
        }
        # Filled for negatives too: it says how the test clip was cut, not that something happens.
        time_to_accident_s = parse_seconds(row.get("time_to_accident"), "time_to_accident")
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


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    if not table.is_file():
        raise InputError(f"{table}: missing; download the metadata.csv that belongs to this folder")
    with table.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        missing = [column for column in NEEDED_COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise InputError(f"{table}:1: no column {missing[0]!r}; it needs {', '.join(NEEDED_COLUMNS)}")
        for row in reader:
            yield reader.line_num, row
