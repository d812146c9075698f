"""How fast clips are read: decoding by window, decoding once, reading kept frames, and cutting frames into patches.

All times are CPU seconds of this process on one thread (wall time says little on a shared machine), medians of the
repeats. A key that ends in `_speedup` is how many times less CPU our way takes.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import av
import cv2
import numpy as np
import torch
from av.video.stream import VideoStream
from numpy.typing import NDArray

from autodrive.errors import InputError
from autodrive.students.preprocessing import patchify
from autodrive.video.chunker import sliding_windows
from autodrive.video.container import open_video
from autodrive.video.decoder import Decoder, DecordDecoder, PyAVDecoder, TorchcodecDecoder
from autodrive.video.frame_cache import DiskFrameCache
from autodrive.video.frame_codec import FrameCodec, JpegCodec, RawCodec
from autodrive.video.frame_grid import FrameGrid, highest_usable_fps
from autodrive.video.preflight import VideoInfo, scan
from autodrive.video.pyav_frames import set_threads

WINDOW_S, STRIDE_S = 6.0, 4.0
FINAL_SIZE = (252, 420)
FRAME_RATES = (1.0, 3.0, 15.0, 30.0)
DECODERS: dict[str, Decoder] = {
    "pyav": PyAVDecoder(),
    "decord": DecordDecoder(),
    "torchcodec": TorchcodecDecoder(),
}
CODECS: dict[str, FrameCodec] = {"raw": RawCodec(), "jpeg": JpegCodec()}
# Far above any entry, so that the benchmarks measure reading and not the bound.
MAX_GB = 1000.0


@dataclass(frozen=True)
class _Source:
    """A video and the windows it is read by."""

    path: Path
    info: VideoInfo
    windows_s: tuple[tuple[float, float], ...]

    def requests(self, fps: float) -> list[NDArray[np.float64]]:
        """The times at which each window is looked at."""
        return [FrameGrid(fps).timestamps(start, end, self.info.native_fps) for start, end in self.windows_s]

    def read_windows(self, decoder: Decoder, fps: float, cache: DiskFrameCache | None = None) -> int:
        """Read all windows, as a loader's worker does, and drop them; the number of frames."""
        num_frames = 0
        for requested_s in self.requests(fps):
            if cache is None:
                decoded = decoder.read(self.path, requested_s, FINAL_SIZE)
            else:
                decoded = cache.read(decoder, self.path, self.info.content_hash, requested_s, FINAL_SIZE)
            num_frames += len(decoded.frames_TCHW)
        return num_frames


def decode_benchmark(video: Path | None = None, repeats: int = 3) -> dict[str, Any]:
    """Overlapping windows at the video's own rate: each decoded by itself, against the file decoded once and kept.

    Decoding once includes writing the frames, checking them and reading all windows from the cache. Its speed-up cannot
    exceed the overlap: the windows' frames over the distinct ones.

    Args:
        video: Any usable file of more than 6 s; None makes one of 30 s, 1280x720 pixels, 30 fps, H.264.
        repeats: How often each figure is measured.
    """
    with _source(video) as source, _one_thread(), TemporaryDirectory() as scratch:
        native_fps = source.info.native_fps
        num_read = sum(len(requested_s) for requested_s in source.requests(native_fps))
        overlap = num_read / source.info.num_frames
        result = _facts(source) | {"frames_read": num_read, "overlap": overlap, "decoders": {}}
        for name, decoder in _usable(source):

            def once(number: int, name: str = name, decoder: Decoder = decoder) -> None:
                cache = DiskFrameCache(Path(scratch) / f"{name}-{number}", RawCodec(), MAX_GB)
                source.read_windows(decoder, native_fps, cache)

            per_window_s = _cpu_s(lambda _, d=decoder: source.read_windows(d, native_fps), repeats)
            once_s = _cpu_s(once, repeats)
            for folder in Path(scratch).iterdir():  # half a gigabyte each
                shutil.rmtree(folder)
            result["decoders"][name] = {
                "per_window_cpu_s": per_window_s,
                "decode_once_cpu_s": once_s,
                "decode_once_vs_per_window_speedup": per_window_s / once_s,
                "decode_once_share_of_overlap": per_window_s / once_s / overlap,
            }
        result["decode_only_cpu_s"] = _cpu_s(lambda _: _decode_only(source.path), repeats)
        return result


def loader_benchmark(video: Path | None = None, repeats: int = 3) -> dict[str, Any]:
    """Windows from a warm frame cache against decoding each of them, over decoders, frame rates and codecs.

    Args:
        video: Any usable file, or None, as in `decode_benchmark`.
        repeats: How often each figure is measured.
    """
    with _source(video) as source, _one_thread(), TemporaryDirectory() as scratch:
        result = _facts(source) | {"decoders": {}}
        rates = [fps for fps in FRAME_RATES if fps <= highest_usable_fps(source.info.native_fps)]
        for name, decoder in _usable(source):
            caches = {codec: DiskFrameCache(Path(scratch) / name / codec, CODECS[codec], MAX_GB) for codec in CODECS}
            result["decoders"][name] = {
                f"{fps:g}_fps": _warm_against_decoding(source, decoder, fps, caches, repeats) for fps in rates
            }
            stored = {codec: _bytes_below(Path(scratch) / name / codec) for codec in CODECS}
            result["decoders"][name]["cache_bytes"] = stored
        result["decode_only_cpu_s"] = _cpu_s(lambda _: _decode_only(source.path), repeats)
        return result


def patchify_benchmark(repeats: int = 9) -> dict[str, Any]:
    """Cutting 6 s at 30 fps into patches, against copies of the same bytes.

    `copy` is torch's, into memory it has just asked for, as patches are; `copy_huge_pages` is NumPy's, which asks for
    huge pages as `patchify` does and so has few page faults.
    """
    frames_TCHW = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (180, 3, *FINAL_SIZE), np.uint8))
    works = (lambda _: patchify(frames_TCHW), lambda _: frames_TCHW.clone(), lambda _: frames_TCHW.numpy().copy())
    with _one_thread():
        # In turn, so that other work on the machine's memory meets all three alike.
        rounds = [[_cpu_s(work, 1) for work in works] for _ in range(repeats)]
    patchify_s, copy_s, huge_s = np.median(rounds, axis=0).tolist()
    return {
        "frames": len(frames_TCHW),
        "bytes": frames_TCHW.numel(),
        "patchify_cpu_s": patchify_s,
        "copy_cpu_s": copy_s,
        "copy_huge_pages_cpu_s": huge_s,
        "patchify_in_copies": patchify_s / copy_s,
        "patchify_in_huge_page_copies": patchify_s / huge_s,
    }


def write_moving_video(
    path: Path, duration_s: float = 30, fps: int = 30, size: tuple[int, int] = (720, 1280), seed: int = 0
) -> Path:
    """Encode a texture that moves past, boxes that move across, and sensor noise: about as hard to decode as a dashcam.

    Args:
        path: Path of the H.264 file, which has a keyframe every second.
        duration_s: Length in seconds.
        fps: Frames per second.
        size: Height and width in pixels.
        seed: Seed of texture and noise.
    """
    random = np.random.default_rng(seed)
    height, width = size
    texture = _texture(random, height, 2 * width)
    noise = random.normal(0, 6, (height + 64, width + 64)).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", fps
        stream.options = {"preset": "veryfast", "crf": "23"}
        for number in range(round(duration_s * fps)):
            shift = (3 * number) % width
            picture = texture[:, shift : shift + width].copy()
            for box in range(4):
                left = (width // 5 * box + (5 + 2 * box) * number) % (width - width // 6)
                top = height * (4 + box) // 9
                picture[top : top + height // 9, left : left + width // 8] = 40 + 50 * box
            row, column = random.integers(0, 64, 2)
            grainy = picture.astype(np.int16) + noise[row : row + height, column : column + width, None]
            frame = av.VideoFrame.from_ndarray(np.clip(grainy, 0, 255).astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _texture(random: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Colours with detail at several scales."""
    layers = np.zeros((height, width, 3), np.float32)
    for scale in (64, 16, 4):
        cells = random.normal(0, 20, (height // scale + 2, width // scale + 2, 3)).astype(np.float32)
        layers += cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(layers + 120, 0, 255).astype(np.uint8)


def _warm_against_decoding(
    source: _Source, decoder: Decoder, fps: float, caches: dict[str, DiskFrameCache], repeats: int
) -> dict[str, Any]:
    decoding_s = _cpu_s(lambda _: source.read_windows(decoder, fps), repeats)
    result: dict[str, Any] = {"decoding_cpu_s": decoding_s, "frames_read": sum(map(len, source.requests(fps)))}
    for name, cache in caches.items():
        source.read_windows(decoder, fps, cache)
        warm_s = _cpu_s(lambda _, c=cache: source.read_windows(decoder, fps, c), repeats)
        result[name] = {"warm_cache_cpu_s": warm_s, "warm_cache_vs_decoding_speedup": decoding_s / warm_s}
    return result


@contextmanager
def _source(video: Path | None) -> Iterator[_Source]:
    with TemporaryDirectory() as scratch:
        path = video or write_moving_video(Path(scratch) / "moving.mp4")
        info = scan(path)
        yield _Source(path, info, tuple(sliding_windows(info.duration_s, WINDOW_S, STRIDE_S)))


def _facts(source: _Source) -> dict[str, Any]:
    info = source.info
    return {
        "video": {
            "width": info.width,
            "height": info.height,
            "fps": info.native_fps,
            "frames": info.num_frames,
            "mbit_per_s": source.path.stat().st_size * 8e-6 / info.duration_s,
        },
        "windows": len(source.windows_s),
        "final_size": list(FINAL_SIZE),
    }


def _usable(source: _Source) -> list[tuple[str, Decoder]]:
    """The decoders whose packages are installed."""
    usable = []
    for name, decoder in DECODERS.items():
        try:
            decoder.read(source.path, np.array([0.0]), FINAL_SIZE)
        except InputError:
            continue
        usable.append((name, decoder))
    return usable


def _decode_only(path: Path) -> int:
    """Decode all frames and convert none: the floor under everything that decodes."""
    with open_video(path) as (container, stream):
        set_threads(stream, 1)
        return sum(1 for _ in container.decode(stream))


def _cpu_s(measured: Callable[[int], object], repeats: int) -> float:
    seconds = []
    for number in range(repeats):
        began = time.process_time()
        measured(number)
        seconds.append(time.process_time() - began)
    return median(seconds)


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
