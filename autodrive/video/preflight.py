"""The pre-flight scan: is this file a video that the sampler can be exact on, and what are its true properties?

Reads packet timestamps without decoding, then decodes the first frames and the last group of pictures. Broken files are
refused with a reason code and never repaired or guessed.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream
from numpy.typing import NDArray

from autodrive.schema import View
from autodrive.video.container import UnusableVideo, open_video, seconds, seek_before

LOWEST_FPS = 0.9
HIGHEST_FPS = 250.0
# Real dashcams drop single frames (a public Nexar clip measures 28.9 fps on a 30 fps clock); that much is tolerated.
UNEVEN_RATIO = 1.5
MAX_UNEVEN_SHARE = 0.1
MAX_GAP_INTERVALS = 4.5
FIRST_FRAMES = 16
# A file may end this much before its header's duration (other streams, rounding) without counting as cut off.
DURATION_SLACK_S = 0.5
DURATION_SLACK_SHARE = 0.02
MP4_BOXES = (b"moov", b"moof", b"mdat")


@dataclass(frozen=True)
class VideoInfo:
    """What was measured in a usable file.

    Attributes:
        native_fps: (frames - 1) / (last - first presentation time).
        duration_s: From the first frame's start to the last frame's end.
        content_hash: First 32 hex digits of the file's SHA-256.
        num_bytes: Length of the file.
    """

    width: int
    height: int
    native_fps: float
    num_frames: int
    duration_s: float
    codec: str
    content_hash: str
    num_bytes: int

    def view(self, path: str, offset_s: float = 0.0) -> View:
        """The file as a camera of a clip.

        Args:
            path: How the clip names the file.
            offset_s: Time on the road camera's clock at which its first frame was taken.
        """
        return View(
            path=path,
            content_hash=self.content_hash,
            native_fps=self.native_fps,
            width=self.width,
            height=self.height,
            offset_s=offset_s,
            num_bytes=self.num_bytes,
        )


def scan(path: Path) -> VideoInfo:
    """Check a file and measure it.

    Raises:
        UnusableVideo: With reason missing, unreadable, zero_byte, not_a_video, no_video_stream, truncated,
            no_timestamps, single_frame, absurd_fps, variable_frame_rate, rotated or changing_size.
    """
    try:
        with open_video(path) as (container, stream):
            stream.codec_context.thread_count = 1
            times_s = _packet_times(path, container, stream)
            _check_rate(path, times_s)
            _check_decodes(path, container, stream, times_s)
            context = stream.codec_context
            width, height, codec = context.width, context.height, context.name
    except (FFmpegError, OSError) as error:
        raise UnusableVideo(path, "truncated", f"reading stopped: {error}") from error
    fps = round((len(times_s) - 1) / float(times_s[-1]), 6)
    duration_s = float(times_s[-1] + np.median(np.diff(times_s)))
    return VideoInfo(
        width=width,
        height=height,
        native_fps=fps,
        num_frames=len(times_s),
        duration_s=duration_s,
        codec=codec,
        content_hash=hash_content(path),
        num_bytes=path.stat().st_size,
    )


def hash_content(path: Path) -> str:
    """First 32 hex digits of the SHA-256 of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _packet_times(path: Path, container: InputContainer, stream: VideoStream) -> NDArray[np.float64]:
    """(N,) ascending presentation times of the frames, seconds from the first; checks that the file is whole."""
    _check_boxes(path, container.format.name)
    pts: list[int | None] = []
    end_s = 0.0
    start_s = (container.start_time or 0) / av.time_base
    for packet in container.demux():
        if packet.pts is not None and packet.time_base is not None:
            end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base) - start_s)
        if packet.stream is stream and packet.size and not packet.is_discard:
            if packet.is_corrupt:
                raise UnusableVideo(path, "truncated", f"frame {len(pts)} is damaged")
            pts.append(packet.pts)
    promised_s = (container.duration or 0) / av.time_base
    if not pts or promised_s - end_s > max(DURATION_SLACK_S, DURATION_SLACK_SHARE * promised_s):
        raise UnusableVideo(path, "truncated", f"data end at {end_s:.2f} s of the {promised_s:.2f} s in the header")
    known = sorted(value for value in pts if value is not None)
    if len(known) != len(pts) or stream.time_base is None:
        raise UnusableVideo(path, "no_timestamps", f"{len(pts) - len(known)} of {len(pts)} frames have no time")
    return np.array([seconds(value, known[0], stream.time_base) for value in known])


def _check_boxes(path: Path, format_name: str) -> None:
    """An mp4's pictures and index are in boxes that state their length: none may be longer than the file."""
    if "mp4" not in format_name:
        return
    file_size = path.stat().st_size
    position = 0
    with path.open("rb") as file:
        while position + 8 <= file_size:
            file.seek(position)
            header = file.read(16)
            size, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if size == 1:
                size = int.from_bytes(header[8:16], "big")
            if size < 8:  # 0: reaches to the end of the file; else no box
                return
            position += size
            if position > file_size and kind in MP4_BOXES:
                detail = f"its {kind.decode()} box needs {position} bytes, the file has {file_size}"
                raise UnusableVideo(path, "truncated", detail)


def _check_rate(path: Path, times_s: NDArray[np.float64]) -> None:
    if len(times_s) < 2:
        raise UnusableVideo(path, "single_frame", "one frame; a frame rate needs at least two")
    intervals_s = np.diff(times_s)
    fps = len(intervals_s) / times_s[-1] if times_s[-1] > 0 else float("inf")
    if not LOWEST_FPS <= fps <= HIGHEST_FPS:
        detail = f"{fps:.4g} frames per second; {LOWEST_FPS:g} to {HIGHEST_FPS:g} are plausible"
        raise UnusableVideo(path, "absurd_fps", detail)
    # An interval that occurs, not the mean of two: half at 20 and half at 10 frames per second must not look even.
    median_s = float(np.sort(intervals_s)[len(intervals_s) // 2])
    uneven = float(np.mean((intervals_s > UNEVEN_RATIO * median_s) | (intervals_s * UNEVEN_RATIO < median_s)))
    longest = float(intervals_s.max() / median_s) if median_s > 0 else float("inf")
    if uneven > MAX_UNEVEN_SHARE or longest > MAX_GAP_INTERVALS:
        detail = f"{uneven:.0%} of the frame intervals are uneven, the longest is {longest:.1f} times the usual one"
        raise UnusableVideo(path, "variable_frame_rate", detail)


def _check_decodes(path: Path, container: InputContainer, stream: VideoStream, times_s: NDArray[np.float64]) -> None:
    """Decode both ends; decoded times must be those of the packets, so that every decoder sees the same frames."""
    container.seek(0, stream=stream)
    base: int | None = None
    size: tuple[int, int] | None = None
    for number, frame in enumerate(container.decode(stream)):
        if frame.pts is None or stream.time_base is None:
            raise UnusableVideo(path, "no_timestamps", f"decoded frame {number} has no time")
        if base is None:
            base, size = frame.pts, (frame.width, frame.height)
            if frame.rotation:
                raise UnusableVideo(path, "rotated", f"its metadata turn the picture by {frame.rotation} degrees")
        if seconds(frame.pts, base, stream.time_base) != times_s[number]:
            raise UnusableVideo(path, "no_timestamps", f"decoded frame {number} does not come at its packet's time")
        if number + 1 == FIRST_FRAMES:
            break
    if base is None or stream.time_base is None:
        raise UnusableVideo(path, "truncated", "no frame can be decoded")
    last_s = _decode_end(path, container, stream, base, size, float(times_s[-1]))
    if last_s != times_s[-1]:
        raise UnusableVideo(path, "truncated", f"the last frame decodes at {last_s:.3f} s, not {times_s[-1]:.3f} s")


def _decode_end(
    path: Path, container: InputContainer, stream: VideoStream, base: int, size: tuple[int, int] | None, end_s: float
) -> float:
    """Decode the last group of pictures (everything, where a demuxer cannot seek to it); time of the last frame."""
    last_s = -1.0
    for target_s in (end_s, 0.0):
        seek_before(container, stream, base, target_s)
        for frame in container.decode(stream):
            if frame.pts is not None and stream.time_base is not None:
                last_s = seconds(frame.pts, base, stream.time_base)
            if (frame.width, frame.height) != size:
                detail = f"{size} at the start, {frame.width}x{frame.height} later"
                raise UnusableVideo(path, "changing_size", detail)
        if last_s >= 0:
            break
    return last_s
