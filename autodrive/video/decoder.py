"""Decoders: requested times in, resized frames with their measured times out.

Three interchangeable back ends, chosen by `conf/decoder/*.yaml`. All give the frame that is on screen at each requested
time (the rule of `sampler.choose_frames`) and its presentation time in seconds from the first frame of the file.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np
import torch
from av.error import FFmpegError
from numpy.typing import NDArray
from torch import Tensor

from autodrive.bounds import Processes
from autodrive.errors import InputError
from autodrive.video.container import UnusableVideo, check_count, check_end, open_video, presentation_times
from autodrive.video.pixels import resize_frames
from autodrive.video.pyav_frames import read_window, set_threads, whole_file
from autodrive.video.sampler import choose_frames

# Frames that decord and torchcodec hold at the source's size before they are resized.
CHUNK_FRAMES = 16

BatchReader = Callable[[list[int]], NDArray[np.uint8]]
"""Gives the frames of these indices as (N, H, W, 3) at the source's size."""


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
            path: The video file to decode.
            requested_s: (T,) ascending seconds from the first frame of the file.
            size: Height and width in pixels of the returned frames.

        Raises:
            UnusableVideo: The file is missing, damaged, or ends before the last requested time.
            InputError: No times are requested, they are not ascending, or the decoder's package is not installed.
        """
        ...

    def stream(self, path: Path, size: tuple[int, int]) -> Iterator[DecodedFrames]:
        """Decode every frame of the file once, from the first to the last, a chunk at a time.

        The pixels and times are those that `read` gives for the same frames. (Where bytes inside a frame are damaged,
        FFmpeg fills in from frames before it, and those depend on where decoding began: there `read` itself gives one
        frame different pixels in different windows.)

        Raises:
            UnusableVideo: The file is missing or lacks frames anywhere, which `read` notices only inside its window.
            InputError: The decoder's package is not installed.
        """
        ...

    def identity(self) -> str:
        """What this decoder's pixels depend on: its class and the versions of the packages that make them."""
        ...


@dataclass(frozen=True)
class PyAVDecoder:
    """The default: PyAV with its bundled FFmpeg, maintained and on every platform.

    Attributes:
        num_threads: Decoder threads; 1 does the most work per CPU-second, loader workers bring the parallelism.
    """

    num_threads: Processes = 1

    def read(self, path: Path, requested_s: NDArray[np.float64], size: tuple[int, int]) -> DecodedFrames:
        """See `Decoder.read`."""
        check_request(requested_s)
        try:
            with open_video(path) as (container, stream):
                set_threads(stream, self.num_threads)
                return DecodedFrames(*read_window(path, container, stream, requested_s, size))
        except (FFmpegError, OSError) as error:
            raise UnusableVideo(path, "truncated", f"decoding failed: {error}") from error

    def stream(self, path: Path, size: tuple[int, int]) -> Iterator[DecodedFrames]:
        """See `Decoder.stream`."""
        try:
            times_s = presentation_times(path)
            with open_video(path) as (container, stream):
                set_threads(stream, self.num_threads)
                for frames_TCHW, timestamps_s in whole_file(path, container, stream, times_s, size):
                    yield DecodedFrames(frames_TCHW, timestamps_s)
        except (FFmpegError, OSError) as error:
            raise UnusableVideo(path, "truncated", f"decoding failed: {error}") from error

    def identity(self) -> str:
        """See `Decoder.identity`."""
        return _identity(self, "av")


@dataclass(frozen=True)
class DecordDecoder:
    """decord: quick at dense rates, no longer maintained; only for files that passed the pre-flight scan."""

    num_threads: Processes = 1

    def read(self, path: Path, requested_s: NDArray[np.float64], size: tuple[int, int]) -> DecodedFrames:
        """See `Decoder.read`."""
        check_request(requested_s)
        _import_decord()
        times_s = _times_that_reach(path, requested_s)
        with self._open(path, len(times_s)) as get_batch:
            return _read_indices(times_s, requested_s, size, get_batch)

    def stream(self, path: Path, size: tuple[int, int]) -> Iterator[DecodedFrames]:
        """See `Decoder.stream`."""
        _import_decord()
        times_s = presentation_times(path)
        with self._open(path, len(times_s)) as get_batch:
            yield from _stream_indices(times_s, size, get_batch)

    def identity(self) -> str:
        """See `Decoder.identity`."""
        return _identity(self, "decord")

    @contextmanager
    def _open(self, path: Path, num_frames: int) -> Iterator[BatchReader]:
        decord = _import_decord()
        try:
            reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=self.num_threads)
            check_count(path, "decord", len(reader), num_frames)
            yield lambda chosen: reader.get_batch(chosen).asnumpy()
        except decord.DECORDError as error:
            raise UnusableVideo(path, "truncated", f"decord failed: {str(error).splitlines()[0]}") from error


@dataclass(frozen=True)
class TorchcodecDecoder:
    """torchcodec: maintained, needs FFmpeg's shared libraries on the system."""

    num_threads: Processes = 1

    def read(self, path: Path, requested_s: NDArray[np.float64], size: tuple[int, int]) -> DecodedFrames:
        """See `Decoder.read`."""
        check_request(requested_s)
        _import_torchcodec()
        times_s = _times_that_reach(path, requested_s)
        with self._open(path, len(times_s)) as get_batch:
            return _read_indices(times_s, requested_s, size, get_batch)

    def stream(self, path: Path, size: tuple[int, int]) -> Iterator[DecodedFrames]:
        """See `Decoder.stream`."""
        _import_torchcodec()
        times_s = presentation_times(path)
        with self._open(path, len(times_s)) as get_batch:
            yield from _stream_indices(times_s, size, get_batch)

    def identity(self) -> str:
        """See `Decoder.identity`."""
        return _identity(self, "torchcodec")

    @contextmanager
    def _open(self, path: Path, num_frames: int) -> Iterator[BatchReader]:
        video_decoder = _import_torchcodec().VideoDecoder
        try:
            reader = video_decoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=self.num_threads)
            check_count(path, "torchcodec", len(reader), num_frames)
            yield lambda chosen: reader.get_frames_at(chosen).data.numpy()
        except (RuntimeError, ValueError) as error:
            raise UnusableVideo(path, "truncated", f"torchcodec failed: {str(error).splitlines()[0]}") from error


def _import_decord() -> ModuleType:
    try:
        import decord
    except ImportError:
        raise InputError("decoder=decord: not installed; pip install decord, or use decoder=pyav") from None
    return decord


def _import_torchcodec() -> ModuleType:
    try:
        import torchcodec.decoders  # pyright: ignore[reportMissingImports]
    except ImportError:
        fix = "pip install 'vlm-autodrive[torchcodec]', or use decoder=pyav"
        raise InputError(f"decoder=torchcodec: not installed; {fix}") from None
    except (RuntimeError, OSError):
        fix = "install FFmpeg 4 to 8 (for instance apt install ffmpeg), or use decoder=pyav"
        raise InputError(f"decoder=torchcodec: it finds no FFmpeg libraries it can load; {fix}") from None
    return torchcodec.decoders


def _identity(decoder: Decoder, package: str) -> str:
    """Class and versions (torch resizes the pictures of every decoder); the number of threads changes no pixel."""
    return f"{type(decoder).__name__} {package}-{_installed(package)} torch-{torch.__version__}"


@cache
def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"  # decoding says so, with the fix


def check_request(requested_s: NDArray[np.float64]) -> None:
    """Refuse times that no decoder takes.

    Raises:
        InputError: There are none, or they are not ascending.
    """
    if len(requested_s) == 0 or np.any(np.diff(requested_s) < 0):
        raise InputError(
            "requested times must be ascending and at least one; take them from autodrive.video.frame_grid"
        )


def _times_that_reach(path: Path, requested_s: NDArray[np.float64]) -> NDArray[np.float64]:
    times_s = presentation_times(path)
    interval_s = float(times_s[-1] - times_s[-2]) if len(times_s) > 1 else float("inf")
    check_end(path, float(times_s[-1]), interval_s, requested_s)
    return times_s


def _read_indices(
    times_s: NDArray[np.float64],
    requested_s: NDArray[np.float64],
    size: tuple[int, int],
    get_batch: BatchReader,
) -> DecodedFrames:
    """Read frames by index."""
    indices = choose_frames(times_s, requested_s)
    unique, back = np.unique(indices, return_inverse=True)
    frames_TCHW = torch.cat(list(_resized_chunks(unique, size, get_batch)))[torch.from_numpy(back)]
    return DecodedFrames(frames_TCHW, torch.from_numpy(times_s[indices]))


def _resized_chunks(indices: NDArray[np.int64], size: tuple[int, int], get_batch: BatchReader) -> Iterator[Tensor]:
    """A chunk at a time, so that few frames are held at the source's size."""
    for start in range(0, len(indices), CHUNK_FRAMES):
        yield resize_frames(get_batch(indices[start : start + CHUNK_FRAMES].tolist()), size).contiguous()


def _stream_indices(
    times_s: NDArray[np.float64], size: tuple[int, int], get_batch: BatchReader
) -> Iterator[DecodedFrames]:
    done = 0
    for frames_TCHW in _resized_chunks(np.arange(len(times_s)), size, get_batch):
        yield DecodedFrames(frames_TCHW, torch.from_numpy(times_s[done : done + len(frames_TCHW)]))
        done += len(frames_TCHW)
