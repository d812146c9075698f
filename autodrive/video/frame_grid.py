"""The one place that says at which times a window is looked at, and which frame rates a file serves.

Training, evaluation, prediction and teachers all ask these classes, whatever the decoder, so that `fps` and
`num_frames` of a configuration mean the same everywhere. Times are seconds from the first frame of the file.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autodrive.errors import InputError

MAX_FPS_RATIO = 1.05
NATIVE_FPS_RATIO = 0.95
# A native frame this little (in frames) before a window's start still belongs to the window: start times are rounded.
FRAME_TOLERANCE = 0.05


class FrameRateUnavailable(InputError):  # noqa: N818 - named for what it says about the source
    """More frames per second were asked for than the source has."""

    def __init__(self, fps: float, native_fps: float) -> None:
        self.fps = fps
        self.native_fps = native_fps
        super().__init__(
            f"fps={fps:g} is above the source's {native_fps:.4g} frames per second and frames are never invented; "
            f"the highest usable value is fps={highest_usable_fps(native_fps):g}"
        )


def highest_usable_fps(native_fps: float) -> float:
    """The largest `fps` that a file of `native_fps` serves, rounded down to 0.01."""
    return math.floor(native_fps * MAX_FPS_RATIO * 100 + 1e-6) / 100


@dataclass(frozen=True)
class FrameGrid:
    """A requested frame rate.

    Attributes:
        fps: Requested frames per second.
    """

    fps: float

    def __post_init__(self) -> None:
        if not self.fps > 0:
            raise InputError(f"fps={self.fps:g}: must be above 0")

    def rate(self, duration_s: float) -> float:
        """Frames per second that are asked for of a window of this length."""
        return self.fps

    def num_frames(self, duration_s: float) -> int:
        """Frames of a window of this length."""
        return max(1, round(self.fps * duration_s))

    def lines(self) -> list[str]:
        """What users should know of it: nothing that `fps` does not say."""
        return []

    def usable(self, native_fps: float) -> bool:
        """Whether a file of `native_fps` serves this rate: up to 1.05 times its own."""
        return self.fps <= MAX_FPS_RATIO * native_fps * (1 + 1e-9)

    def timestamps(self, start_s: float, end_s: float, native_fps: float, phase: float = 0.0) -> NDArray[np.float64]:
        """Times at which a window [start_s, end_s) is looked at.

        Below the native rate: `start_s + (k + phase) / fps` for `k < max(1, round((end_s - start_s) * fps))`. From 0.95
        to 1.05 times the native rate: every native frame of the window once, asked for in the middle of its time on
        screen, so that rounded timestamps cannot skip or repeat one; `phase` has no effect there.

        Args:
            start_s: Start of the window, seconds from the first frame of the file.
            end_s: End of the window, not part of it.
            native_fps: Frames per second the file was measured to have.
            phase: Offset of the grid in requested frames, in [0, 1); random in training. It is scaled down where the
                window holds less than a whole number of frames, so that no time leaves the window.

        Returns:
            (n,) ascending seconds, all in [start_s, end_s).

        Raises:
            FrameRateUnavailable: The rate is above 1.05 times the native one.
            InputError: The window is empty, the native rate is not positive, or `phase` is outside [0, 1).
        """
        _check_window(start_s, end_s, native_fps)
        if not 0 <= phase < 1:
            raise InputError(f"phase={phase} must be at least 0 and below 1")
        if not self.usable(native_fps):
            raise FrameRateUnavailable(self.fps, native_fps)
        if self.fps >= NATIVE_FPS_RATIO * native_fps:
            return _native_timestamps(start_s, end_s, native_fps)
        span, count = (end_s - start_s) * self.fps, self.num_frames(end_s - start_s)
        room = min(1.0, span - (count - 1))
        requested_s = start_s + (np.arange(count) + phase * room) / self.fps
        return np.minimum(requested_s, np.nextafter(end_s, start_s))


@dataclass(frozen=True)
class EvenFrames:
    """A number of frames, spread evenly over a window however long it is, its first and its last one among them.

    Frame k of N is native frame round(k (n - 1) / (N - 1)) of the window's n; where n is smaller than N, some are seen
    twice. This is how students that are taught a fixed number of frames are published (`llava/utils/media.py`).

    Attributes:
        count: Number of frames.
    """

    count: int

    def rate(self, duration_s: float) -> float:
        """Frames per second that are asked for of a window of this length."""
        return self.count / duration_s

    def num_frames(self, duration_s: float) -> int:
        """Frames of a window of this length: as many of every other."""
        return self.count

    def lines(self) -> list[str]:
        """What users should know of it."""
        return [f"num_frames={self.count}: spread evenly over every clip, the first and the last frame among them"]

    def timestamps(self, start_s: float, end_s: float, native_fps: float, phase: float = 0.0) -> NDArray[np.float64]:
        """Times at which a window [start_s, end_s) is looked at: see `FrameGrid.timestamps`; `phase` has no effect.

        Returns:
            (count,) ascending seconds in [start_s, end_s), each in the middle of a native frame's time on screen.

        Raises:
            InputError: The window is empty, or the native rate is not positive.
        """
        _check_window(start_s, end_s, native_fps)
        native_s = _native_timestamps(start_s, end_s, native_fps)
        return native_s[np.linspace(0, len(native_s) - 1, self.count).round().astype(np.int64)]


FrameChoice = FrameGrid | EvenFrames


def chosen_frames(fps: float | None, num_frames: int | None) -> FrameChoice:
    """The frames of a window that a configuration asks for, by their rate or by their number.

    Raises:
        InputError: By both, or by neither.
    """
    if num_frames is None:
        if fps is None:
            raise InputError("fps=null: give fps, or num_frames for as many frames of every clip")
        return FrameGrid(fps)
    if fps is not None:
        fix = "give num_frames=null for a frame rate, or fps=null"
        raise InputError(f"fps={fps:g}: num_frames={num_frames} frames are seen of every clip, at no fixed rate; {fix}")
    return EvenFrames(num_frames)


def _check_window(start_s: float, end_s: float, native_fps: float) -> None:
    if not (end_s > start_s >= 0):
        raise InputError(f"window [{start_s}, {end_s}) s is empty or negative; give end_s > start_s >= 0")
    if not native_fps > 0:
        raise InputError(f"native_fps={native_fps}: must be above 0")


def _native_timestamps(start_s: float, end_s: float, native_fps: float) -> NDArray[np.float64]:
    first = math.ceil(start_s * native_fps - FRAME_TOLERANCE)
    last = math.ceil(end_s * native_fps - FRAME_TOLERANCE) - 1
    if last < first:
        return np.array([start_s])
    middle_s = (np.arange(first, last + 1) + 0.5) / native_fps
    return np.minimum(middle_s, np.nextafter(end_s, start_s))
