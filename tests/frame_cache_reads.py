"""Reads of the frame cache that several tests make, some in processes of their own; imports little, for their sake."""

import logging
from pathlib import Path

import torch

from autodrive.video.decoder import DecodedFrames, PyAVDecoder
from autodrive.video.frame_cache import DiskFrameCache, NoFrameCache
from autodrive.video.frame_codec import FrameCodec, RawCodec
from autodrive.video.frame_grid import FrameGrid

SIZE = (28, 56)
FPS, NUM_FRAMES = 30, 90
FRAME_BYTES = 3 * SIZE[0] * SIZE[1]
CACHE_LOG = "autodrive.video.frame_cache"


def make_cache(folder: Path, codec: FrameCodec | None = None, max_bytes: float = 1e9) -> DiskFrameCache:
    return DiskFrameCache(folder, codec or RawCodec(), max_bytes / 1e9)


def read(
    cache: DiskFrameCache | None, path: Path, requested_s=None, decoder=None, size=SIZE, content_hash=""
) -> DecodedFrames:
    """One read with (or without) a cache; by default of 2 s in the middle of the file at its own rate."""
    requested_s = FrameGrid(FPS).timestamps(0.5, 2.5, FPS) if requested_s is None else requested_s
    source = cache or NoFrameCache()
    return source.read(decoder or PyAVDecoder(), path, content_hash or path.name, requested_s, size)


def assert_same(left: DecodedFrames, right: DecodedFrames) -> None:
    assert torch.equal(left.frames_TCHW, right.frames_TCHW)
    assert torch.equal(left.timestamps_s, right.timestamps_s)
    assert left.frames_TCHW.dtype == right.frames_TCHW.dtype == torch.uint8
    assert left.timestamps_s.dtype == right.timestamps_s.dtype == torch.float64
    assert left.frames_TCHW.is_contiguous()


def entries(cache: DiskFrameCache) -> list[Path]:
    return sorted(cache.store.folder.glob("entries/*/*"))


def stored_bytes(cache: DiskFrameCache) -> int:
    return sum(path.stat().st_size for path in cache.store.folder.glob("entries/*/*/*"))


def build(folder: Path, path: Path) -> bytes:
    """Read 2 s through a cache; the pixels."""
    return read(make_cache(folder), path).frames_TCHW.numpy().tobytes()


def read_at_once(folder: Path, path: Path, barrier, results) -> None:
    """Wait for the others, read, and report what this process built."""
    built: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: built.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(CACHE_LOG)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    barrier.wait(60)
    results.put((built, build(folder, path)))
