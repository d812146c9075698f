"""From one scanned source video to its clips, or to the reason why it gives none."""

import os
from dataclasses import dataclass
from pathlib import Path

from autodrive.schema import Clip, SetAside, SourceVideo, Split, Views
from autodrive.video.chunker import NORMAL, sliding_windows, window_label
from autodrive.video.preflight import VideoInfo


@dataclass(frozen=True)
class VideoWindows:
    """What became of one usable video: all of its windows are clips, or it is set aside with all of them."""

    clips: tuple[Clip, ...]
    aside: SetAside | None
    num_windows: int


def cut_video(
    video: SourceVideo, info: VideoInfo, split: Split, root: Path, duration_s: float, stride_s: float
) -> VideoWindows:
    """Cut a video into labelled windows.

    Set aside are videos with an event whose time is not given (unless the video is no longer than one window, which
    then takes the label) and videos that end before their event, except that sources which keep those for anticipation
    (metadata `purpose: anticipation`) get unlabelled clips.

    Args:
        video: as the adapter found it, with absolute paths.
        info: as measured by the pre-flight scan.
        split: of its source video.
        root: folder of the manifest; paths below it are written relative to it.
        duration_s: window length.
        stride_s: distance between window starts.
    """
    windows = sliding_windows(info.duration_s, duration_s, stride_s)
    label = video.label
    eventful = label is not None and label != NORMAL
    if eventful and video.event_time_s is None:
        if len(windows) > 1:
            detail = f"{video.views.road}: {info.duration_s:.2f} s labelled {label!r} without event_time_s"
            return _set_aside(video, "event_time_unknown", detail, len(windows))
        labels = [label]
    elif eventful and video.event_time_s is not None and video.event_time_s >= info.duration_s:
        if video.metadata.get("purpose") != "anticipation":
            detail = f"{video.views.road}: ends at {info.duration_s:.2f} s, the event is at {video.event_time_s:.2f} s"
            return _set_aside(video, "event_after_end", detail, len(windows))
        labels = [None] * len(windows)
    else:
        labels = [window_label(label, video.event_time_s, start_s, end_s) for start_s, end_s in windows]
    numbered = enumerate(zip(windows, labels, strict=True))
    clips = tuple(_clip(video, info, split, root, index, *window, name) for index, (window, name) in numbered)
    return VideoWindows(clips, None, len(windows))


def _set_aside(video: SourceVideo, reason: str, detail: str, num_windows: int) -> VideoWindows:
    return VideoWindows((), SetAside(item=video.id, reason=reason, detail=detail), num_windows)


def _clip(
    video: SourceVideo,
    info: VideoInfo,
    split: Split,
    root: Path,
    index: int,
    start_s: float,
    end_s: float,
    label: str | None,
) -> Clip:
    return Clip(
        id=f"{video.id}#{index}",
        dataset=video.dataset,
        source_video_id=video.source_video_id,
        views=Views(
            road=_portable(video.views.road, root),
            driver=_portable(video.views.driver, root) if video.views.driver else None,
        ),
        start_s=start_s,
        end_s=end_s,
        native_fps=info.native_fps,
        width=info.width,
        height=info.height,
        label=label,
        event_time_s=video.event_time_s,
        alert_time_s=video.alert_time_s,
        ego_involved=video.ego_involved,
        split=split,
        metadata=video.metadata,
        telemetry=_portable(video.telemetry, root) if video.telemetry else None,
        content_hash=info.content_hash,
    )


def _portable(path: str, root: Path) -> str:
    """Relative to the manifest's folder where it lies below it, so that the folder can be moved; else absolute."""
    absolute = Path(os.path.abspath(path))
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else str(absolute)
