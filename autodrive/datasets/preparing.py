"""From a source of videos to a manifest: scan, split, cut, and an account of everything that was not used."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from autodrive.counted import counted
from autodrive.datasets.adapter import Adapter
from autodrive.datasets.copies import find_copies
from autodrive.datasets.exclusive import exclusive
from autodrive.datasets.splits import assign_splits, check_fractions
from autodrive.datasets.windows import ManifestPlace, cut_video
from autodrive.errors import InputError
from autodrive.schema import ROAD, SPLITS, Clip, SetAside, SourceVideo, write_jsonl
from autodrive.video.chunker import NORMAL, default_stride_s
from autodrive.video.preflight import VideoInfo
from autodrive.video.scan_cache import ScanCache, ScanResult
from autodrive.whole_files import whole

UNLABELLED = "unlabelled"
MAX_SCAN_THREADS = 8
MAX_EXAMPLES = 3


@dataclass(frozen=True)
class PrepareSettings:
    """How the videos of a source become clips; the values are in `conf/prepare/`.

    Attributes:
        duration_s: Length of a window in seconds; a shorter video is one clip of its own length.
        stride_s: Seconds between window starts; None: 7 windows in 40 s, at most `duration_s`.
        split_fractions: Shares of train, val and test, where the source has no splits.
        seed: Seed of the split.
        keep_witnessed: Use incidents in which the ego vehicle is only a witness (`ego_involved` is false); they are
            set aside by default, since the task is about the ego vehicle.
    """

    duration_s: float
    stride_s: float | None
    split_fractions: Mapping[str, float]
    seed: int
    keep_witnessed: bool

    def __post_init__(self) -> None:
        check_fractions(self.split_fractions)

    @property
    def seconds_between_windows(self) -> float:
        """`stride_s`, or what stands for it."""
        return default_stride_s(self.duration_s) if self.stride_s is None else self.stride_s


@dataclass(frozen=True)
class PrepareReport:
    """What `prepare` did; every count adds up.

    Attributes:
        out: Folder of the manifest.
        dataset: Name of the source.
        num_items: Rows and files of the source = `num_used` + the sum of `set_aside`.
        num_used: Videos that gave clips.
        set_aside: Number of items that did not, by reason.
        examples: Names of the first few of those, by reason.
        labels: Number of videos by the label that their source gives, used or not.
        num_windows: Windows of all usable videos = `num_clips` + the sum of `windows_not_used`.
        num_clips: Number of clips in the manifest.
        windows_not_used: Number of windows of videos set aside after their scan, by reason.
        clips: Number of clips by split and label.
        videos: Number of source videos by split.
        clips_per_video: Least, mean and most clips of a video that gave any.
        num_scans_reused: Files that an earlier run had scanned already.
        settings: The settings that were used.
    """

    out: str
    dataset: str
    num_items: int
    num_used: int
    set_aside: dict[str, int]
    examples: Mapping[str, Sequence[str]]
    labels: Mapping[str, int]
    num_windows: int
    num_clips: int
    windows_not_used: dict[str, int]
    clips: Mapping[str, Mapping[str, int]]
    videos: Mapping[str, int]
    clips_per_video: tuple[int, float, int]
    num_scans_reused: int
    settings: Mapping[str, Any]


def prepare(
    adapter: Adapter,
    out: Path,
    settings: PrepareSettings,
    num_workers: int | None = None,
    data_dir: Path | None = None,
) -> PrepareReport:
    """Scan, split and cut all videos of a source and write the manifest.

    Processes that prepare the same folder take turns; the second finds what the first has scanned and rendered.

    Args:
        adapter: Finds the videos of the source and what is known of each.
        out: Folder for the manifest and its companions.
        settings: How the videos become clips.
        num_workers: Number of scanning threads; None: one per processor, at most 8.
        data_dir: Folder above `out` that may be moved as a whole, with videos elsewhere in it; None: only `out` may.

    Raises:
        InputError: A setting is wrong, the source is not there or contradicts itself, or no video is usable (then
            quarantine.jsonl says why for each).
        OSError: `out` cannot be written: the disk is full, or permission is missing.
    """
    out = Path(os.path.abspath(out))
    place = ManifestPlace(out, out if data_dir is None else Path(os.path.abspath(data_dir)))
    num_workers = num_workers or min(MAX_SCAN_THREADS, os.cpu_count() or 1)
    with exclusive(out):
        return _prepare(adapter, place, settings, num_workers)


def _prepare(adapter: Adapter, place: ManifestPlace, settings: PrepareSettings, num_workers: int) -> PrepareReport:
    out, stride_s = place.folder, settings.seconds_between_windows
    videos, aside = adapter.videos()
    num_items = len(videos) + len(aside)
    _check_unique(videos)
    witnessed = {} if settings.keep_witnessed else {v.id: line for v in videos if (line := _witnessed(v))}
    aside += witnessed.values()
    wanted = [video for video in videos if video.id not in witnessed]
    cache = ScanCache(out / "scan_cache.jsonl")
    scans = _scan(cache, wanted, num_workers)
    checked = [(video, _check_views(video, scans)) for video in wanted]
    aside += [outcome for _, outcome in checked if isinstance(outcome, SetAside)]
    usable = [(video, outcome) for video, outcome in checked if not isinstance(outcome, SetAside)]
    copies = find_copies([v for v, _ in usable], {v.id: infos[ROAD].content_hash for v, infos in usable})
    aside += copies.values()
    usable = [(video, infos) for video, infos in usable if video.id not in copies]
    splits = assign_splits([video for video, _ in usable], settings.split_fractions, settings.seed)
    clips: list[Clip] = []
    not_used: Counter[str] = Counter()
    for video, infos in usable:
        cut = cut_video(video, infos, splits[video.source_video_id], place, settings.duration_s, stride_s)
        clips.extend(cut.clips)
        if cut.aside is not None:
            aside.append(cut.aside)
            not_used[cut.aside.reason] += cut.num_windows
    write_jsonl(out / "quarantine.jsonl", aside)
    reasons = Counter(item.reason for item in aside)
    if not clips:
        counts = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        why = f"no video is usable, {counted(num_items, 'item')} set aside ({counts})"
        raise InputError(f"{out / 'quarantine.jsonl'}: {why}; see each line")
    by_split = {split: Counter(c.label or UNLABELLED for c in clips if c.split == split) for split in SPLITS}
    per_video = Counter(clip.id.rpartition("#")[0] for clip in clips)
    report = PrepareReport(
        out=str(out),
        dataset=adapter.name,
        num_items=num_items,
        num_used=len(per_video),
        set_aside=dict(reasons.most_common()),
        examples={reason: [a.item for a in aside if a.reason == reason][:MAX_EXAMPLES] for reason in reasons},
        labels=dict(Counter(video.label for video in videos if video.label is not None)),
        num_windows=len(clips) + not_used.total(),
        num_clips=len(clips),
        windows_not_used=dict(not_used.most_common()),
        clips={split: dict(counts) for split, counts in by_split.items()},
        videos={split: len({c.source_video_id for c in clips if c.split == split}) for split in SPLITS},
        clips_per_video=(min(per_video.values()), len(clips) / len(per_video), max(per_video.values())),
        num_scans_reused=cache.num_reused,
        settings=asdict(settings) | {"stride_s": stride_s},
    )
    with whole(out / "prepare.json") as partial:
        partial.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
    # Last, since the manifest's presence says that everything else is there.
    write_jsonl(out / "clips.jsonl", clips)
    return report


def _check_unique(videos: list[SourceVideo]) -> None:
    repeated = [identity for identity, count in Counter(video.id for video in videos).items() if count > 1]
    if repeated:
        raise InputError(f"video id {repeated[0]!r} occurs more than once in the source; ids must be unique")


def _witnessed(video: SourceVideo) -> SetAside | None:
    """The line of an incident that happens to others."""
    if video.ego_involved is not False or video.label in (None, NORMAL):
        return None
    detail = f"{video.road.path}: the ego vehicle only witnesses this {video.label}; keep_witnessed=true would use it"
    return SetAside(item=video.id, reason="ego_not_involved", detail=detail)


def _files(video: SourceVideo) -> list[Path]:
    return [Path(os.path.abspath(view.path)) for view in video.views.values()]


def _scan(cache: ScanCache, videos: list[SourceVideo], num_workers: int) -> dict[Path, ScanResult]:
    paths = list(dict.fromkeys(path for video in videos for path in _files(video)))
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(TextColumn("checking videos"), *columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("scan", total=len(paths))
        return cache.scan_all(paths, num_workers, lambda count: progress.advance(task, count))


def _check_views(video: SourceVideo, scans: dict[Path, ScanResult]) -> dict[str, VideoInfo] | SetAside:
    """What was measured of every view, or why the video cannot be used; every file of it must be usable."""
    infos: dict[str, VideoInfo] = {}
    for name, path in zip(video.views, _files(video), strict=True):
        result = scans[path]
        if result.info is None:
            return SetAside(item=video.id, reason=result.reason, detail=f"{path}: {result.detail}")
        infos[name] = result.info
    for kind, file in (("sensor", video.sensors), ("truth", video.truth)):
        if file and not Path(file).is_file():
            return SetAside(item=video.id, reason="missing", detail=f"{file}: no such {kind} file")
    return infos
