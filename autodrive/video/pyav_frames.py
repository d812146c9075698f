"""Reading frames with PyAV: one window from the keyframe before it, or a whole file from first to last frame."""

from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch import Tensor

from autodrive.video.container import UnusableVideo, check_count, check_end, seconds, seek_before
from autodrive.video.pixels import frame_buffer, resize_frames, to_rgb
from autodrive.video.sampler import TIMESTAMP_TOLERANCE_S

# A window that begins this soon is reached faster by decoding from the start than by seeking.
SEEK_MARGIN_S = 1.0
# Pixels held at source size before they are resized: 16 frames of 1280x720, 44 MB as RGB.
CHUNK_PIXELS = 16 * 1280 * 720


def set_threads(stream: VideoStream, num_threads: int) -> None:
    """Let FFmpeg decode with this many threads."""
    stream.codec_context.thread_count = num_threads
    if num_threads > 1:
        stream.thread_type = "AUTO"


def read_window(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    requested_s: NDArray[np.float64],
    size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Decode one window from the keyframe before it, converting only the frames that are wanted.

    Returns:
        Frames (T, 3, height, width) and times (T,) as `DecodedFrames` holds them.

    Raises:
        UnusableVideo: The window is damaged or ends after the file.
    """
    # Times count from the file's first frame, whose timestamp need not be 0: it is read even where we seek past it.
    timed = _timed_frames(container, stream)
    if requested_s[0] > SEEK_MARGIN_S:
        timed = _after_seek(container, stream, timed, float(requested_s[0]))
    output_TCHW = frame_buffer(len(requested_s), size)
    timestamps_s = torch.empty(len(requested_s), dtype=torch.float64)
    waiting: list[tuple[VideoFrame, int]] = []
    done = filled = 0
    for time_s, frame, count in _frames_on_screen(path, stream, timed, requested_s):
        if waiting and (frame.width, frame.height) != (waiting[0][0].width, waiting[0][0].height):
            raise UnusableVideo(path, "changing_size", f"the picture changes its size at {time_s:.3f} s")
        timestamps_s[filled : filled + count] = time_s
        filled += count
        waiting.append((frame, count))
        if len(waiting) * frame.width * frame.height >= CHUNK_PIXELS:
            done = _flush(waiting, output_TCHW, done)
    _flush(waiting, output_TCHW, done)
    return output_TCHW, timestamps_s


def whole_file(
    path: Path, container: InputContainer, stream: VideoStream, times_s: NDArray[np.float64], size: tuple[int, int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Decode all frames from the first to the last, a chunk at a time.

    Args:
        path: The file's path, for errors.
        container: The file, just opened.
        stream: The file's video stream.
        times_s: (N,) presentation times from the file's index, at which the frames must come.
        size: Height and width in pixels of the returned frames.

    Yields:
        Frames (T, 3, height, width) and times (T,) as `DecodedFrames` holds them.

    Raises:
        UnusableVideo: Frames are missing, surplus or not of one size.
    """
    decoded = 0
    for chunk in _chunks(path, _timed_frames(container, stream)):
        chunk_s = np.array([time_s for time_s, _ in chunk])
        if not np.array_equal(chunk_s, times_s[decoded : decoded + len(chunk)]):
            detail = f"frames from the {decoded + 1}th on do not come at the times of their packets"
            raise UnusableVideo(path, "no_timestamps", detail)
        decoded += len(chunk)
        yield resize_frames(to_rgb([frame for _, frame in chunk]), size).contiguous(), torch.from_numpy(chunk_s)
    check_count(path, "PyAV", decoded, len(times_s))


def _chunks(path: Path, timed: Iterator[tuple[float, VideoFrame]]) -> Iterator[list[tuple[float, VideoFrame]]]:
    chunk: list[tuple[float, VideoFrame]] = []
    size: tuple[int, int] | None = None
    for time_s, frame in timed:
        size = size or (frame.width, frame.height)
        if (frame.width, frame.height) != size:
            raise UnusableVideo(path, "changing_size", f"the picture changes its size at {time_s:.3f} s")
        chunk.append((time_s, frame))
        if len(chunk) * frame.width * frame.height >= CHUNK_PIXELS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _flush(waiting: list[tuple[VideoFrame, int]], output_TCHW: Tensor, done: int) -> int:
    """Convert, resize and store the waiting frames, each as often as it was asked for; returns the next free place."""
    if not waiting:
        return done
    resized_TCHW = resize_frames(to_rgb([frame for frame, _ in waiting]), (output_TCHW.shape[2], output_TCHW.shape[3]))
    counts = torch.tensor([count for _, count in waiting])
    end = done + int(counts.sum())
    output_TCHW[done:end] = resized_TCHW.repeat_interleave(counts, dim=0) if end - done > len(waiting) else resized_TCHW
    waiting.clear()
    return end


def _timed_frames(
    container: InputContainer, stream: VideoStream, base: int | None = None
) -> Iterator[tuple[float, VideoFrame]]:
    """Decode on from where the container stands; `base` is the first frame's timestamp (None: the next frame is it)."""
    time_base = stream.time_base
    for frame in container.decode(stream):
        if frame.pts is None or time_base is None:
            continue
        base = frame.pts if base is None else base
        yield seconds(frame.pts, base, time_base), frame


def _after_seek(
    container: InputContainer, stream: VideoStream, timed: Iterator[tuple[float, VideoFrame]], start_s: float
) -> Iterator[tuple[float, VideoFrame]]:
    """Frames from a keyframe at or before `start_s`; from the first frame where a demuxer lands too late."""
    first = next(timed, None)
    if first is None or first[1].pts is None or stream.time_base is None:
        return iter(())
    base = first[1].pts
    landed = None
    # Some containers seek to the keyframe after the target. Frames before it would be missing without a sign, so where
    # the first frame comes too late, everything is decoded from the start.
    for target_s in (start_s, 0.0):
        seek_before(container, stream, base, target_s)
        timed = _timed_frames(container, stream, base)
        landed = next(timed, None)
        if landed is not None and landed[0] <= target_s:
            break
    return _chain(landed, timed)


def _chain(
    head: tuple[float, VideoFrame] | None, tail: Iterator[tuple[float, VideoFrame]]
) -> Iterator[tuple[float, VideoFrame]]:
    if head is not None:
        yield head
    yield from tail


def _frames_on_screen(
    path: Path, stream: VideoStream, timed: Iterator[tuple[float, VideoFrame]], requested_s: NDArray[np.float64]
) -> Iterator[tuple[float, VideoFrame, int]]:
    """`choose_frames` while decoding: each wanted frame with its time and the number of requests it answers.

    Stops as soon as all are answered, so that nothing after the window is decoded.
    """
    limits_s = (requested_s + TIMESTAMP_TOLERANCE_S).tolist()
    served = 0
    on_screen: tuple[float, VideoFrame] | None = None
    interval_s = 1 / float(stream.average_rate) if stream.average_rate else float("inf")
    for time_s, frame in timed:
        if on_screen is not None:
            interval_s = time_s - on_screen[0]
            # A frame is on screen until the next one comes: this one's time settles every request before it.
            reached = bisect_left(limits_s, time_s, served)
            if reached > served:
                yield *on_screen, reached - served
                served = reached
                if served == len(limits_s):
                    return
        on_screen = (time_s, frame)
    if on_screen is None:
        raise UnusableVideo(path, "truncated", "no frame can be decoded")
    check_end(path, on_screen[0], interval_s, requested_s)
    yield *on_screen, len(limits_s) - served
