"""Pictures and films of clips, small enough to be logged: a row of frames as JPEG, or H.264 at the student's rate."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from autodrive.reporting.run_page import FramesOf

Media = Literal["none", "strips", "video"]
MOST_BYTES = 10_000_000  # of one run's pictures; the default's 198 strips take a fifth of it
MOST_CLIPS = 200  # decoding thousands of large videos once more would cost more than it shows
STRIP_FRAMES = 6
FRAME_WIDTH_PIXELS = 160
JPEG_QUALITY = 80
VIDEO_WIDTH_PIXELS = 320


def drawn(clips: Sequence[str], frames_of: FramesOf, media: Media, folder: Path) -> Iterator[tuple[str, Path]]:
    """Write one picture or film per clip into a folder, in this order, up to `MOST_CLIPS` of at most `MOST_BYTES`.

    Args:
        clips: Ids of clips, the most interesting first.
        frames_of: Gives a clip's frames and times; a clip whose video is gone is left out.
        media: What is drawn.
        folder: Where the files go.

    Yields:
        A clip's id and its file.
    """
    used = 0
    for number, clip_id in enumerate(clips[:MOST_CLIPS] if media != "none" else ()):
        frames = frames_of(clip_id)
        if frames is None:
            continue
        file = folder / f"{number:05d}.{'jpg' if media == 'strips' else 'mp4'}"
        (_write_strip if media == "strips" else _write_video)(*frames, file)
        used += file.stat().st_size
        if used > MOST_BYTES:
            return
        yield clip_id, file


def _write_strip(frames_THWC: NDArray[np.uint8], times_s: NDArray[np.float64], file: Path) -> None:
    total = len(frames_THWC)
    chosen = np.unique(np.linspace(0, total - 1, STRIP_FRAMES).round().astype(int))
    shown = [_resized(frames_THWC[index], FRAME_WIDTH_PIXELS) for index in chosen]
    strip_HWC = np.concatenate(shown, axis=1)
    cv2.imwrite(str(file), strip_HWC[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


def _write_video(frames_THWC: NDArray[np.uint8], times_s: NDArray[np.float64], file: Path) -> None:
    seconds = float(times_s[-1] - times_s[0])
    fps = Fraction((len(times_s) - 1) / seconds).limit_denominator(1001) if seconds > 0 else Fraction(1)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        shown = [_resized(frame, VIDEO_WIDTH_PIXELS) for frame in frames_THWC]
        stream.height, stream.width = shown[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in shown:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _resized(frame_HWC: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """A frame of this width and an even height, which codecs want."""
    height = 2 * max(1, round(frame_HWC.shape[0] * width / frame_HWC.shape[1] / 2))
    return np.asarray(cv2.resize(frame_HWC, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
