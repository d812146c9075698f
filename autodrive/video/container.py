"""Opening video files safely and reading their timestamps, shared by the decoders and the pre-flight scan."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream
from numpy.typing import NDArray

from autodrive.errors import InputError
from autodrive.video.sampler import TIMESTAMP_TOLERANCE_S

# FFmpeg guesses formats from content: without these lists a text file renamed .mp4 that holds a playlist could make it
# open other files or network addresses.
OPEN_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,h264,hevc,dv",
}

NATIVE_FPS_TOLERANCE = 0.05
# How far, in frame intervals, the last requested time may lie after the last frame's start.
END_TOLERANCE_FRAMES = 1.5


class UnusableVideo(InputError):  # noqa: N818 - named for what it says about the file
    """A video file that cannot be used, with a reason code for quarantine.jsonl."""

    def __init__(self, path: Path, reason: str, detail: str) -> None:
        self.path = path
        self.reason = reason
        self.detail = detail
        super().__init__(f"{path}: {reason}: {detail}; replace the file or run python -m autodrive.prepare again")


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its first video stream; both are closed on leaving.

    Raises:
        UnusableVideo: The file is missing, unreadable, empty, no video, cut off before its index, or has no picture.
    """
    if not os.path.isfile(path):  # nor a pipe, which would never answer
        raise UnusableVideo(path, "missing", "no such file")
    try:
        container = av.open(str(path), options=OPEN_OPTIONS)
    except (FFmpegError, OSError) as error:
        raise _cannot_open(path, error) from error
    with container:
        if not container.streams.video:
            raise UnusableVideo(path, "no_video_stream", "the file holds no picture")
        yield container, cast(VideoStream, container.streams.video[0])


def _cannot_open(path: Path, error: Exception) -> UnusableVideo:
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as refusal:
        return UnusableVideo(path, "unreadable", f"{refusal.strerror}; make it readable")
    if not head:
        return UnusableVideo(path, "zero_byte", "the file is empty")
    if head[4:8] in (b"ftyp", b"moov", b"mdat"):
        return UnusableVideo(path, "truncated", "an mp4 without its index: it was cut off or never finished")
    return UnusableVideo(path, "not_a_video", f"FFmpeg cannot read it ({type(error).__name__})")


def seconds(pts: int, base: int, time_base: Fraction) -> float:
    """Presentation time in seconds from the first frame; integers until the one division, so that it is exact."""
    return (pts - base) * time_base.numerator / time_base.denominator


def seek_before(container: InputContainer, stream: VideoStream, base: int, time_s: float) -> None:
    """Go to a keyframe at or before `time_s`; `base` is the first frame's timestamp. 0 goes to the very start.

    Some demuxers (MPEG-TS) land after the wanted time; callers look at the first frame they get and go to 0 then.
    """
    offset = base + int(time_s / (stream.time_base or 1)) if time_s > 0 else min(base, 0)
    container.seek(offset, stream=stream)


def presentation_times(path: Path) -> NDArray[np.float64]:
    """Presentation times of all frames of a file, found by demuxing without decoding.

    Returns:
        (N,) ascending seconds from the first frame.

    Raises:
        UnusableVideo: The file cannot be opened or holds no timestamps.
    """
    with open_video(path) as (container, stream):
        pts = [packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard]
        time_base = stream.time_base
    known = sorted(value for value in pts if value is not None)
    if not known or len(known) != len(pts) or time_base is None:
        raise UnusableVideo(path, "no_timestamps", f"{len(pts) - len(known)} of {len(pts)} frames have no time")
    return np.array([seconds(value, known[0], time_base) for value in known])


def check_native_fps(path: Path, native_fps: float) -> None:
    """Refuse a file that has another frame rate than its manifest says: frames would be repeated or left out.

    The header's rate costs nothing and is nearly always right; where it differs, the times of all frames decide.

    Raises:
        UnusableVideo: The rates differ by more than 5 %, or the file cannot be opened.
    """
    with open_video(path) as (_, stream):
        header_fps = float(stream.average_rate or 0)
    if _is_near(header_fps, native_fps):
        return
    times_s = presentation_times(path)
    measured_fps = (len(times_s) - 1) / float(times_s[-1]) if times_s[-1] > 0 else 0.0
    if not _is_near(measured_fps, native_fps):
        detail = f"the manifest says native_fps={native_fps:g}, the file has {measured_fps:.4g} frames per second"
        raise UnusableVideo(path, "wrong_frame_rate", detail)


def _is_near(fps: float, native_fps: float) -> bool:
    return abs(fps - native_fps) <= NATIVE_FPS_TOLERANCE * native_fps


def check_count(path: Path, decoder: str, count: int, expected: int) -> None:
    """Refuse a file in which a decoder sees another number of frames than its index lists.

    Raises:
        UnusableVideo: The decoder finds another number of frames than the container holds.
    """
    if count != expected:
        raise UnusableVideo(path, "truncated", f"{decoder} sees {count} frames, the file's index {expected}")


def check_end(path: Path, last_s: float, interval_s: float, requested_s: NDArray[np.float64]) -> None:
    """Refuse times after the end: `last_s` is when the last frame begins, `interval_s` how long it is taken to stay.

    Raises:
        UnusableVideo: The last requested time is more than 1.5 intervals after the last frame.
    """
    if requested_s[-1] > last_s + END_TOLERANCE_FRAMES * interval_s + TIMESTAMP_TOLERANCE_S:
        detail = f"the last frame is at {last_s:.3f} s, before the requested {requested_s[-1]:.3f} s"
        raise UnusableVideo(path, "truncated", detail)
