"""What spawned processes of test_video_frame_cache.py run; apart from it, because they import what they run from."""

import logging
from pathlib import Path

from autodrive.video.decoder import PyAVDecoder
from autodrive.video.frame_cache import DiskFrameCache
from autodrive.video.frame_codec import RawCodec
from autodrive.video.sampler import requested_timestamps


def build(folder: Path, path: Path) -> bytes:
    """Read 2 s through a cache; the pixels."""
    requested_s = requested_timestamps(0.5, 2.5, 30, 30)
    cache = DiskFrameCache(folder, RawCodec(), max_gb=1)
    return cache.read(PyAVDecoder(), path, path.name, requested_s, (28, 56)).frames_TCHW.numpy().tobytes()


def read_at_once(folder: Path, path: Path, barrier, results) -> None:
    """Wait for the others, read, and report what this process built."""
    built: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: built.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("autodrive.video.frame_cache")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    barrier.wait(60)
    results.put((built, build(folder, path)))
