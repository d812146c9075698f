"""Writes small real video files for tests; every frame shows its own number, so that tests can tell them apart."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

BITS = 10


def numbered_picture(number: int, height: int = 48, width: int = 80) -> np.ndarray:
    """A grey picture with `number` as ten black or white stripes, the lowest bit at the left."""
    stripes = np.array([(number >> bit) & 1 for bit in range(BITS)], np.uint8) * 255
    row = np.repeat(stripes, width // BITS)
    return np.repeat(np.tile(row, (height, 1))[:, :, None], 3, axis=2)


def read_number(picture_CHW: np.ndarray) -> int:
    """The number that `numbered_picture` wrote, also after resizing and compression."""
    grey = np.asarray(picture_CHW, float).mean(axis=(0, 1))
    stripes = [
        part[len(part) // 4 : max(len(part) // 4 + 1, 3 * len(part) // 4)] for part in np.array_split(grey, BITS)
    ]
    return sum(int(stripe.mean() > 128) << bit for bit, stripe in enumerate(stripes))


def write_video(
    path: Path,
    num_frames: int = 30,
    fps: float | Fraction = 10,
    size: tuple[int, int] = (48, 80),
    codec: str = "libx264",
    gop: int = 12,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    rotation: int = 0,
    audio: bool = False,
    faststart: bool = False,
) -> Path:
    """Write a video whose frames show their numbers; `pts` (in `time_base`) overrides the even spacing.

    No two files hold the same bytes: each has its path as title.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = size
    rate = Fraction(fps).limit_denominator(100000)
    options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", options=options) as container:
        container.metadata["title"] = str(path)
        stream = container.add_stream(codec, rate=rate)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.gop_size = gop
        if codec == "libx264":
            stream.options = {"preset": "veryfast", "crf": "20"}
        if time_base is not None:
            stream.codec_context.time_base = time_base
        if rotation:
            stream.set_display_rotation(rotation)
        sound = container.add_stream("aac", rate=16000, layout="mono") if audio else None
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number, height, width), format="rgb24")
            frame.time_base = time_base or 1 / rate
            frame.pts = number if pts is None else pts[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            _write_sound(container, sound, num_frames / float(rate))
    return path


def write_copies(first: Path, numbers: range) -> None:
    """Videos like `first` beside it, by number, with other bytes: each has a box of its own at the end."""
    data = first.read_bytes()
    for number in numbers:
        first.with_name(f"{number:03}.mp4").write_bytes(data + struct.pack(">I4sI", 12, b"free", number))


def write_sound_only(path: Path, duration_s: float = 1.0) -> Path:
    """An mp4 that holds only an audio track."""
    with av.open(str(path), "w") as container:
        _write_sound(container, container.add_stream("aac", rate=16000, layout="mono"), duration_s)
    return path


def _write_sound(container, stream, duration_s: float) -> None:
    for start in range(0, int(duration_s * 16000), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())
