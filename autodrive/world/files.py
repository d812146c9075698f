"""The files of a rendered scene, each written beside its name and renamed when complete; all videos equally long."""

from collections.abc import Iterable
from pathlib import Path

import av
import cv2
import numpy as np

from autodrive.world.settings import WorldSettings

# The shortest box of an mp4 file: its size and its type.
FREE_BOX_BYTES = 8
# Constant quantiser, no look-ahead: the first picture's bytes do not depend on what follows.
ENCODER_OPTIONS = {"preset": "ultrafast", "tune": "zerolatency", "qp": "20", "g": "30", "bf": "0"}


def partial(path: Path) -> Path:
    """Where a file is written until it is complete."""
    return path.with_name(path.name + ".partial")


def write_video(path: Path, frames: Iterable[np.ndarray], settings: WorldSettings) -> None:
    """Write H.264 in mp4 beside the path; `finish_videos` renames it."""
    with av.open(str(partial(path)), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=settings.fps, options=ENCODER_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = settings.width, settings.height, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            planes = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_numpy_buffer(planes, format="yuv420p")))
        container.mux(stream.encode())


def finish_videos(paths: Iterable[Path]) -> None:
    """Bring the videos of a scene to one length, so that none is known by its size, and give them their names."""
    paths = list(paths)
    pad_to_equal_length([partial(path) for path in paths])
    for path in paths:
        partial(path).replace(path)


def pad_to_equal_length(paths: list[Path]) -> None:
    """Append a box of zeros to each mp4 file, so that all have the same number of bytes.

    Readers skip a `free` box (ISO/IEC 14496-12, 8.1.2: its size in four bytes, its type, then anything).
    """
    sizes = [path.stat().st_size for path in paths]
    for path, size in zip(paths, sizes, strict=True):
        length = max(sizes) + FREE_BOX_BYTES - size
        with path.open("ab") as file:
            file.write(length.to_bytes(4, "big") + b"free" + bytes(length - FREE_BOX_BYTES))


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an npz file, not compressed: a compressed file's size would tell how much is going on in it."""
    with partial(path).open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    partial(path).replace(path)
