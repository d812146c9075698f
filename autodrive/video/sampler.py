"""The one frame sampler: which times a clip is looked at, and which decoded frame is on screen at each of them.

Training, evaluation, prediction and teachers all use these two functions, whatever the decoder, so that a frame rate in
the configuration means the same thing everywhere. Times are seconds from the first frame of the file.
"""

import math

import numpy as np
from numpy.typing import NDArray

from autodrive.errors import InputError

MAX_FPS_RATIO = 1.05
NATIVE_FPS_RATIO = 0.95
# Containers round timestamps (Matroska to 1 ms): a frame this little after the requested time counts as on screen.
TIMESTAMP_TOLERANCE_S = 0.75e-3
# A native frame this little (in frames) before a window's start still belongs to the window: start times are rounded.
FRAME_TOLERANCE = 0.05


class FrameRateUnavailable(InputError):  # noqa: N818 - named for what it says about the source
    """More frames a second were asked for than the source has."""

    def __init__(self, fps: float, native_fps: float) -> None:
        self.fps = fps
        self.native_fps = native_fps
        self.highest_usable_fps = highest_usable_fps(native_fps)
        super().__init__(
            f"fps={fps:g} is above the source's {native_fps:.4g} frames a second and frames are never invented; "
            f"the highest usable fps is {self.highest_usable_fps:g}"
        )


def highest_usable_fps(native_fps: float) -> float:
    """The largest `fps` that a source of `native_fps` serves, rounded down to 0.01."""
    return math.floor(native_fps * MAX_FPS_RATIO * 100 + 1e-6) / 100


def requested_timestamps(
    start_s: float, end_s: float, fps: float, native_fps: float, phase: float = 0.0
) -> NDArray[np.float64]:
    """Times at which a window [start_s, end_s) is looked at.

    Below the native rate: `start_s + (k + phase) / fps` for `k < max(1, round((end_s - start_s) * fps))`. From 0.95 to
    1.05 times the native rate: every native frame of the window once, asked for in the middle of its time on screen, so
    that rounded timestamps cannot skip or repeat one; `phase` has no effect there.

    Args:
        start_s: start of the window, seconds from the first frame of the file.
        end_s: end of the window, not part of it.
        fps: requested frames a second.
        native_fps: frames a second the file was measured to have.
        phase: offset of the grid in requested frames, in [0, 1); random in training. It is scaled down where the window
            holds less than a whole number of frames, so that no time leaves the window.

    Returns:
        (n,) ascending seconds, all in [start_s, end_s).

    Raises:
        FrameRateUnavailable: `fps` is above 1.05 times the native rate.
        InputError: the window is empty, a rate is not positive, or `phase` is outside [0, 1).
    """
    if not (end_s > start_s >= 0):
        raise InputError(f"window [{start_s}, {end_s}) s is empty or negative; give end_s > start_s >= 0")
    if not (fps > 0 and native_fps > 0):
        raise InputError(f"fps={fps} with native_fps={native_fps}: both must be above 0")
    if not 0 <= phase < 1:
        raise InputError(f"phase={phase} must be at least 0 and below 1")
    if fps > MAX_FPS_RATIO * native_fps * (1 + 1e-9):
        raise FrameRateUnavailable(fps, native_fps)
    if fps >= NATIVE_FPS_RATIO * native_fps:
        return _native_timestamps(start_s, end_s, native_fps)
    span = (end_s - start_s) * fps
    count = max(1, round(span))
    room = min(1.0, span - (count - 1))
    requested_s = start_s + (np.arange(count) + phase * room) / fps
    return np.minimum(requested_s, np.nextafter(end_s, start_s))


def _native_timestamps(start_s: float, end_s: float, native_fps: float) -> NDArray[np.float64]:
    first = math.ceil(start_s * native_fps - FRAME_TOLERANCE)
    last = math.ceil(end_s * native_fps - FRAME_TOLERANCE) - 1
    if last < first:
        return np.array([start_s])
    middle_s = (np.arange(first, last + 1) + 0.5) / native_fps
    return np.minimum(middle_s, np.nextafter(end_s, start_s))


def choose_frames(pts_s: NDArray[np.float64], requested_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the frame on screen at each requested time: the last one that has begun; the first one if none has.

    Args:
        pts_s: (N,) ascending presentation times of the file's frames, seconds from its first frame.
        requested_s: (T,) seconds.

    Returns:
        (T,) indices into `pts_s`.
    """
    return np.maximum(np.searchsorted(pts_s, requested_s + TIMESTAMP_TOLERANCE_S, side="right") - 1, 0)
