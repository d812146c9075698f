"""Turns a source of videos into clips.

    python -m autodrive.prepare dataset=nexar source=<folder> out=<folder> [duration_s=6] [stride_s=5]

Writes into `out`: clips.jsonl (one Clip a line), quarantine.jsonl (one video or row that is not used a line, with the
reason), prepare.json (settings and counts) and scan_cache.jsonl (so that an interrupted run continues where it was).
Every video of the source ends as clips or as a line of quarantine.jsonl.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from autodrive.datasets.adapter import Adapter
from autodrive.datasets.exclusive import exclusive
from autodrive.datasets.splits import assign_splits, check_fractions
from autodrive.datasets.windows import ManifestPlace, cut_video
from autodrive.entry_point import run_with_hydra
from autodrive.errors import InputError
from autodrive.schema import SPLITS, Clip, SetAside, SourceVideo, write_jsonl
from autodrive.video.chunker import default_stride_s
from autodrive.video.preflight import VideoInfo
from autodrive.video.scan_cache import ScanCache, ScanResult

DEFAULT_FRACTIONS: Mapping[str, float] = {"train": 0.8, "val": 0.1, "test": 0.1}
UNLABELLED = "unlabelled"
MAX_SCAN_THREADS = 8


@dataclass(frozen=True)
class PrepareReport:
    """What `prepare` did; every count adds up.

    Attributes:
        num_items: rows and files of the source = `num_used` + the sum of `set_aside`.
        num_used: videos that gave clips.
        set_aside: items that did not, by reason.
        num_windows: windows of all usable videos = `num_clips` + the sum of `windows_not_used`.
        windows_not_used: windows of videos set aside after their scan, by reason.
        clips: number of clips by split and label.
        videos: number of source videos by split.
        clips_per_video: least, mean and most clips of a video that gave any.
        num_identical_files: used files whose bytes equal an earlier one's: they may leak between splits.
        num_scans_reused: files that an earlier run had scanned already.
    """

    out: str
    dataset: str
    num_items: int
    num_used: int
    set_aside: dict[str, int]
    num_windows: int
    num_clips: int
    windows_not_used: dict[str, int]
    clips: dict[str, dict[str, int]]
    videos: dict[str, int]
    clips_per_video: tuple[int, float, int]
    num_identical_files: int
    num_scans_reused: int
    settings: dict[str, object] = field(default_factory=dict)


def prepare(
    adapter: Adapter,
    out: Path,
    duration_s: float,
    stride_s: float | None = None,
    split_fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    seed: int = 0,
    num_workers: int | None = None,
    data_dir: Path | None = None,
) -> PrepareReport:
    """Scan, split and cut all videos of a source and write the manifest.

    Processes that prepare the same folder take turns; the second finds what the first has scanned and rendered.

    Args:
        adapter: the source.
        out: folder for the manifest and its companions.
        duration_s: window length; a shorter video is one clip of its own length.
        stride_s: distance between window starts; None: 7 windows in 40 s, at most `duration_s`.
        split_fractions: shares of train, val and test, where the source has no splits.
        seed: of the split.
        num_workers: scanning threads; None: one per processor, at most 8.
        data_dir: folder above `out` that may be moved as a whole, with videos elsewhere in it; None: only `out` may.

    Raises:
        InputError: a setting is wrong, the source is not there or contradicts itself, or no video is usable (then
            quarantine.jsonl says why for each).
    """
    check_fractions(split_fractions)
    stride_s = default_stride_s(duration_s) if stride_s is None else stride_s
    out = Path(os.path.abspath(out))
    num_workers = num_workers or min(MAX_SCAN_THREADS, os.cpu_count() or 1)
    with exclusive(out):
        return _prepare(adapter, out, duration_s, stride_s, split_fractions, seed, num_workers, data_dir)


def _prepare(
    adapter: Adapter,
    out: Path,
    duration_s: float,
    stride_s: float,
    split_fractions: Mapping[str, float],
    seed: int,
    num_workers: int,
    data_dir: Path | None,
) -> PrepareReport:
    videos, aside = adapter.videos()
    num_items = len(videos) + len(aside)
    _check_unique(videos)
    cache = ScanCache(out / "scan_cache.jsonl")
    scans = _scan(cache, videos, num_workers)
    checked = [(video, _check_views(video, scans)) for video in videos]
    aside += [outcome for _, outcome in checked if isinstance(outcome, SetAside)]
    usable = [(video, outcome) for video, outcome in checked if not isinstance(outcome, SetAside)]
    splits = assign_splits([video for video, _ in usable], split_fractions, seed)
    clips: list[Clip] = []
    not_used: Counter[str] = Counter()
    place = ManifestPlace(out, out if data_dir is None else Path(os.path.abspath(data_dir)))
    for video, infos in usable:
        cut = cut_video(video, infos, splits[video.source_video_id], place, duration_s, stride_s)
        clips.extend(cut.clips)
        if cut.aside is not None:
            aside.append(cut.aside)
            not_used[cut.aside.reason] += cut.num_windows
    write_jsonl(out / "quarantine.jsonl", aside)
    if not clips:
        reasons = ", ".join(f"{reason} {count}" for reason, count in Counter(a.reason for a in aside).most_common())
        raise InputError(f"{out / 'quarantine.jsonl'}: none of {num_items} items is usable ({reasons}); see each line")
    settings = {
        "duration_s": duration_s,
        "stride_s": stride_s,
        "split_fractions": dict(split_fractions),
        "seed": seed,
    }
    report = _report(out, adapter.name, num_items, aside, clips, not_used, cache.num_reused, settings)
    (out / "prepare.json").write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
    # Last, since the manifest's presence says that everything else is there.
    write_jsonl(out / "clips.jsonl", clips)
    return report


def _check_unique(videos: list[SourceVideo]) -> None:
    repeated = [identity for identity, count in Counter(video.id for video in videos).items() if count > 1]
    if repeated:
        raise InputError(f"video id {repeated[0]!r} occurs more than once in the source; ids must be unique")


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


def _report(
    out: Path,
    dataset: str,
    num_items: int,
    aside: list[SetAside],
    clips: list[Clip],
    not_used: Counter[str],
    num_reused: int,
    settings: dict[str, object],
) -> PrepareReport:
    by_split = {split: Counter(c.label or UNLABELLED for c in clips if c.split == split) for split in SPLITS}
    per_video = Counter(clip.id.rpartition("#")[0] for clip in clips)
    hashes = {clip.id.rpartition("#")[0]: clip.road.content_hash for clip in clips}
    return PrepareReport(
        out=str(out),
        dataset=dataset,
        num_items=num_items,
        num_used=len(per_video),
        set_aside=dict(Counter(item.reason for item in aside).most_common()),
        num_windows=len(clips) + not_used.total(),
        num_clips=len(clips),
        windows_not_used=dict(not_used.most_common()),
        clips={split: dict(counts) for split, counts in by_split.items()},
        videos={split: len({c.source_video_id for c in clips if c.split == split}) for split in SPLITS},
        clips_per_video=(min(per_video.values()), len(clips) / len(per_video), max(per_video.values())),
        num_identical_files=len(hashes) - len(set(hashes.values())),
        num_scans_reused=num_reused,
        settings=settings,
    )


def print_report(report: PrepareReport, console: Console) -> None:
    """Show the counts: clips by split and class, and what is not used, with sums."""
    labels = list(dict.fromkeys(label for counts in report.clips.values() for label in counts))
    table = Table(title=f"{report.dataset}: clips by split and class")
    for column in ("split", "source videos", *labels, "clips"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split, counts in report.clips.items():
        cells = [counts.get(label, 0) for label in labels]
        table.add_row(split, *(str(value) for value in (report.videos[split], *cells, sum(cells))))
    totals = [sum(counts.get(label, 0) for counts in report.clips.values()) for label in labels]
    sums = (sum(report.videos.values()), *totals, report.num_clips)
    table.add_row("all", *(str(value) for value in sums), style="bold")
    console.print(table)
    least, mean, most = report.clips_per_video
    num_aside = sum(report.set_aside.values())
    console.print(f"items of the source: {report.num_items} = {report.num_used} used + {num_aside} set aside")
    for reason, count in report.set_aside.items():
        console.print(f"  {count} {reason}")
    unused = sum(report.windows_not_used.values())
    console.print(f"windows: {report.num_windows} = {report.num_clips} clips + {unused} not used")
    for reason, count in report.windows_not_used.items():
        console.print(f"  {count} {reason}")
    console.print(f"clips per video: {mean:.1f} ({least} to {most})")
    for split in SPLITS:
        if not report.videos[split]:
            console.print(f"note: {split} is empty; change split_fractions or seed, or give a split in labels.csv")
    if report.num_identical_files:
        console.print(f"note: {report.num_identical_files} files equal another file byte for byte")
    console.print(f"{report.out}/clips.jsonl", soft_wrap=True)


def task(config: DictConfig) -> PrepareReport:
    """The verb: prepare what the configuration names and show the counts."""
    fractions = OmegaConf.to_container(config.split_fractions)
    if not isinstance(fractions, dict):
        raise InputError("split_fractions: give shares by name, e.g. split_fractions.train=0.8")
    report = prepare(
        instantiate(config.dataset),
        Path(config.out),
        duration_s=config.duration_s,
        stride_s=config.stride_s,
        split_fractions={str(name): float(share) for name, share in fractions.items()},
        seed=config.seed,
        num_workers=config.num_workers,
    )
    print_report(report, Console())
    return report


if __name__ == "__main__":
    run_with_hydra(task, "prepare")
