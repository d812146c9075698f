"""From one scanned source video to its clips, or to the reason why it gives none."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autodrive.schema import ROAD, Clip, DataFile, SetAside, SourceVideo, Split
from autodrive.video.chunker import NORMAL, sliding_windows, window_label
from autodrive.video.preflight import VideoInfo, hash_content


@dataclass(frozen=True)
class VideoWindows:
    """What became of one usable video: all of its windows are clips, or it is set aside with all of them."""

    clips: tuple[Clip, ...]
    aside: SetAside | None
    num_windows: int


@dataclass(frozen=True)
class ManifestPlace:
    """Where a manifest lies, which decides how it names files.

    Attributes:
        folder: Folder of the manifest.
        data_dir: Folder that is moved as a whole, if at all: a file below it is named relative to the manifest, any
            other by its absolute path. The manifest's own folder, or one above it.
    """

    folder: Path
    data_dir: Path

    def portable(self, path: str) -> str:
        """A path as the manifest names it."""
        absolute = os.path.abspath(path)
        inside = Path(absolute).is_relative_to(self.data_dir)
        return Path(os.path.relpath(absolute, self.folder)).as_posix() if inside else absolute

    def data_file(self, path: str) -> DataFile:
        """A file beside the video."""
        return DataFile(path=self.portable(path), content_hash=hash_content(Path(path)))


def cut_video(
    video: SourceVideo,
    infos: Mapping[str, VideoInfo],
    split: Split,
    place: ManifestPlace,
    duration_s: float,
    stride_s: float,
) -> VideoWindows:
    """Cut a video into labelled windows.

    Set aside are videos with an event whose time is not given (unless the video is no longer than one window, which
    then takes the label) and videos that end before the event time they give, `normal` ones too, except that sources
    which keep those for anticipation (metadata `purpose: anticipation`) get unlabelled clips.

    Args:
        video: The video as the adapter found it, with absolute paths.
        infos: What the pre-flight scan measured of each view's file.
        split: Split of its source video.
        place: Where the manifest will lie.
        duration_s: Length of a window in seconds.
        stride_s: Distance between window starts.
    """
    video_s = infos[ROAD].duration_s
    windows = sliding_windows(video_s, duration_s, stride_s)
    labels = label_windows(video, video_s, windows)
    if isinstance(labels, SetAside):
        return VideoWindows((), labels, len(windows))
    views = {name: infos[name].view(place.portable(view.path), view.offset_s) for name, view in video.views.items()}
    sensors = place.data_file(video.sensors) if video.sensors else None
    truth = place.data_file(video.truth) if video.truth else None
    clips = tuple(
        Clip(
            id=f"{video.id}#{index}",
            dataset=video.dataset,
            source_video_id=video.source_video_id,
            views=views,
            start_s=start_s,
            end_s=end_s,
            label=name,
            event_time_s=video.event_time_s,
            alert_time_s=video.alert_time_s,
            ego_involved=video.ego_involved,
            split=split,
            metadata=metadata_within(video, start_s, end_s),
            driving_events=tuple(e for e in video.driving_events if _overlap((e.start_s, e.end_s), start_s, end_s)),
            sensors=sensors,
            truth=truth,
        )
        for index, ((start_s, end_s), name) in enumerate(zip(windows, labels, strict=True))
    )
    return VideoWindows(clips, None, len(windows))


def label_windows(
    video: SourceVideo, video_duration_s: float, windows: Sequence[tuple[float, float]]
) -> Sequence[str | None] | SetAside:
    """The label of each window of a video, or why the windows cannot be judged.

    Args:
        video: The video as the adapter found it.
        video_duration_s: Measured length of its road view.
        windows: Starts and ends in seconds.
    """
    label, event_s = video.label, video.event_time_s
    if label is None or (label == NORMAL and (event_s is None or event_s < video_duration_s)):
        return [label] * len(windows)
    if event_s is None:
        if len(windows) == 1:
            return [label]
        detail = f"{video.road.path}: {video_duration_s:.2f} s labelled {label!r} without event_time_s"
        return SetAside(item=video.id, reason="event_time_unknown", detail=detail)
    if event_s >= video_duration_s:
        if video.metadata.get("purpose") == "anticipation":
            return [None] * len(windows)
        detail = f"{video.road.path}: ends at {video_duration_s:.2f} s, the event is at {event_s:.2f} s"
        return SetAside(item=video.id, reason="event_after_end", detail=detail)
    return [window_label(label, event_s, start_s, end_s) for start_s, end_s in windows]


def metadata_within(video: SourceVideo, start_s: float, end_s: float) -> dict[str, Any]:
    """What is known of a window [start_s, end_s).

    Facts that come and go are true if they hold at some moment of the window; the event's facts are there only if the
    window holds its moment.
    """
    facts = {name: any(_overlap(span, start_s, end_s) for span in spans) for name, spans in video.spans.items()}
    facts = video.metadata | facts
    moment_s = video.event_time_s if video.hazard_time_s is None else video.hazard_time_s
    if moment_s is None or not start_s <= moment_s < end_s:
        return facts
    moment = {} if video.hazard_time_s is None else {"hazard_time_s": video.hazard_time_s}
    return facts | video.event_metadata | moment


def _overlap(span_s: tuple[float, float], start_s: float, end_s: float) -> bool:
    return span_s[0] < end_s and span_s[1] >= start_s
