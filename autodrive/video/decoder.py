"""Decoders: requested times in, resized frames with their measured times out.

Three interchangeable back ends, chosen by `conf/decoder/*.yaml`. All give the frame that is on screen at each requested
time (the rule of `sampler.choose_frames`) and its presentation time in seconds from the first frame of the file.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch import Tensor

from autodrive.errors import InputError
from autodrive.video.container import UnusableVideo, open_video, presentation_times, seconds, seek_before
from autodrive.video.pixels import resize_frames, to_rgb
from autodrive.video.sampler import TIMESTAMP_TOLERANCE_S, choose_frames

# A window that begins this soon is reached faster by decoding from the start than by seeking.
SEEK_MARGIN_S = 1.0
# Pixels held at source size before they are resized: 16 frames of 1280x720, 44 MB as RGB.
CHUNK_PIXELS = 16 * 1280 * 720
# How far, in frame intervals, the last requested time may lie after the last frame's start.
END_TOLERANCE_FRAMES = 1.5


@dataclass(frozen=True)
class DecodedFrames:
    """Frames of one window.

    Attributes:
        frames_TCHW: uint8 RGB, (T, 3, height, width).
        timestamps_s: float64, (T,) measured presentation times of these frames, seconds from the file's first frame.
    """

    frames_TCHW: Tensor
    timestamps_s: Tensor


class Decoder(Protocol):
    """What training, evaluation and prediction need from a decoder."""

    def read(self, path: Path, requested_s: NDArray[np.float64], size: tuple[int, int]) -> DecodedFrames:
        """Decode the frames on screen at the requested times.

        Args:
            path: the video file.
            requested_s: (T,) ascending seconds from the first frame of the file.
            size: height and width in pixels of the returned frames.

        Raises:
            UnusableVideo: the file is missing, damaged, or ends before the last requested time.
            InputError: no times are requested, they are not ascending, or the decoder's package is not installed.
        """
        ...


@dataclass(frozen=True)
class PyAVDecoder:
    """The default: PyAV with its bundled FFmpeg, maintained and on every platform.

    Attributes:
        num_threads: decoder threads; 1 does the most work per CPU-second, loader workers bring the parallelism.
    """

    num_threads: int = 1

    def read(self, path: Path, requested_s: NDArray[np.float64], size: tuple[int, int]) -> DecodedFrames:
        """See `Decoder.read`."""
        _check_request(requested_s)
        try:
            with open_video(path) as (container, stream):
                _set_threads(stream, self.num_threads)
                return _read_window(path, container, stream, requested_s, size)
        except (FFmpegError, OSError) as error:
            raise UnusableVideo(path, "truncated", f"decoding failed: {error}") from error


@dataclass(frozen=True)
class DecordDecoder:
    """decord: quick at dense rates, no longer maintained; only for files that passed the pre-flight scan."""

    num_threads: int = 1

    def read(self, path: Path, requested_s: NDArray[np.float64], size: tuple[int, int]) -> DecodedFrames:
        """See `Decoder.read`."""
        _check_request(requested_s)
        try:
            import decord
        except ImportError:
            raise InputError("decoder=decord: not installed; pip install decord, or use decoder=pyav") from None
        times_s = _times_that_reach(path, requested_s)
        try:
            reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=self.num_threads)
            _check_count(path, "decord", len(reader), len(times_s))
            return _read_indices(times_s, requested_s, size, lambda chosen: reader.get_batch(chosen).asnumpy())
        except decord.DECORDError as error:
            raise UnusableVideo(path, "truncated", f"decord failed: {str(error).splitlines()[0]}") from error


@dataclass(frozen=True)
class TorchcodecDecoder:
    """torchcodec: maintained, needs FFmpeg's shared libraries on the system."""

    num_threads: int = 1

    def read(self, path: Path, requested_s: NDArray[np.float64], size: tuple[int, int]) -> DecodedFrames:
        """See `Decoder.read`."""
        _check_request(requested_s)
        try:
            from torchcodec.decoders import VideoDecoder  # pyright: ignore[reportMissingImports, reportPrivateImportUsage]
        except ImportError:
            mend = "pip install 'vlm-autodrive[torchcodec]', or use decoder=pyav"
            raise InputError(f"decoder=torchcodec: not installed; {mend}") from None
        except (RuntimeError, OSError):
            mend = "install FFmpeg 4 to 8 (for instance apt install ffmpeg), or use decoder=pyav"
            raise InputError(f"decoder=torchcodec: it finds no FFmpeg libraries it can load; {mend}") from None
        times_s = _times_that_reach(path, requested_s)
        try:
            reader = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=self.num_threads)
            _check_count(path, "torchcodec", len(reader), len(times_s))
            return _read_indices(times_s, requested_s, size, lambda chosen: reader.get_frames_at(chosen).data.numpy())
        except (RuntimeError, ValueError) as error:
            raise UnusableVideo(path, "truncated", f"torchcodec failed: {str(error).splitlines()[0]}") from error


def _set_threads(stream: VideoStream, num_threads: int) -> None:
    stream.codec_context.thread_count = num_threads
    if num_threads > 1:
        stream.thread_type = "AUTO"


def _check_request(requested_s: NDArray[np.float64]) -> None:
    if len(requested_s) == 0 or np.any(np.diff(requested_s) < 0):
        raise InputError("requested times must be ascending and at least one; take them from requested_timestamps")


def _check_count(path: Path, decoder: str, count: int, expected: int) -> None:
    if count != expected:
        raise UnusableVideo(path, "truncated", f"{decoder} sees {count} frames, the file's index {expected}")


def _check_end(path: Path, last_s: float, interval_s: float, requested_s: NDArray[np.float64]) -> None:
    if requested_s[-1] > last_s + END_TOLERANCE_FRAMES * interval_s + TIMESTAMP_TOLERANCE_S:
        detail = f"the last frame is at {last_s:.3f} s, before the requested {requested_s[-1]:.3f} s"
        raise UnusableVideo(path, "truncated", detail)


def _read_window(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    requested_s: NDArray[np.float64],
    size: tuple[int, int],
) -> DecodedFrames:
    """Decode one window with PyAV, from the keyframe before it, converting only the frames that are wanted."""
    timed = _timed_frames(container, stream)
    if requested_s[0] > SEEK_MARGIN_S:
        timed = _after_seek(container, stream, timed, float(requested_s[0]))
    output_TCHW = torch.empty((len(requested_s), 3, *size), dtype=torch.uint8)
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
    return DecodedFrames(output_TCHW, timestamps_s)


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
            reached = bisect_left(limits_s, time_s, served)
            if reached > served:
                yield *on_screen, reached - served
                served = reached
                if served == len(limits_s):
                    return
        on_screen = (time_s, frame)
    if on_screen is None:
        raise UnusableVideo(path, "truncated", "no frame can be decoded")
    _check_end(path, on_screen[0], interval_s, requested_s)
    yield *on_screen, len(limits_s) - served


def _times_that_reach(path: Path, requested_s: NDArray[np.float64]) -> NDArray[np.float64]:
    times_s = presentation_times(path)
    interval_s = float(times_s[-1] - times_s[-2]) if len(times_s) > 1 else float("inf")
    _check_end(path, float(times_s[-1]), interval_s, requested_s)
    return times_s


def _read_indices(
    times_s: NDArray[np.float64],
    requested_s: NDArray[np.float64],
    size: tuple[int, int],
    get_batch: Callable[[list[int]], NDArray[np.uint8]],
) -> DecodedFrames:
    """Read frames by index, a chunk at a time so that few are held at source size. `get_batch` gives (N, H, W, 3)."""
    indices = choose_frames(times_s, requested_s)
    unique, back = np.unique(indices, return_inverse=True)
    chunks: list[Tensor] = []
    step = 16
    for start in range(0, len(unique), step):
        chunks.append(resize_frames(get_batch(unique[start : start + step].tolist()), size).contiguous())
    frames_TCHW = torch.cat(chunks)[torch.from_numpy(back)]
    return DecodedFrames(frames_TCHW, torch.from_numpy(times_s[indices]))
