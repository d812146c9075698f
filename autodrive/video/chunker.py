"""Sliding windows over a source video, and the label each window takes.

VLM-AutoDrive chunks 40 s videos into overlapping windows so that short events keep a high effective frame rate; the
window that holds the event takes its label and the others become normal. Its clip counts work out only at 7 windows of
6 s in 40 s, hence the default stride of (40 - 6) / 6 s.
"""

import math

from autodrive.errors import InputError

NORMAL = "normal"
PAPER_VIDEO_S = 40.0
PAPER_WINDOWS = 7
# A remainder this small (in strides) moves the last window instead of adding a near copy of it.
FOLDED_REMAINDER = 0.1
_ROUNDING_S = 1e-6


def default_stride_s(window_s: float) -> float:
    """The stride that puts 7 windows into 40 s, but never more than the window, so that nothing is left out."""
    return min((PAPER_VIDEO_S - window_s) / (PAPER_WINDOWS - 1), window_s) if window_s < PAPER_VIDEO_S else window_s


def sliding_windows(video_duration_s: float, window_s: float, stride_s: float) -> list[tuple[float, float]]:
    """Windows that cover a video from its start, the last one flush with its end.

    A video no longer than `window_s` is one window of its own length. A remainder under a tenth of a stride moves the
    last window to the end (if that leaves no gap before it); a larger one adds a window.

    Args:
        video_duration_s: Length of the video in seconds.
        window_s: Length of a window in seconds.
        stride_s: Distance between window starts in seconds, at most `window_s`.

    Returns:
        (start, end) pairs in seconds, ascending, half-open.

    Raises:
        InputError: A length is not positive, or the stride leaves parts of the video unseen.
    """
    if not (video_duration_s > 0 and window_s > 0):
        raise InputError(f"duration_s={window_s} for a video of {video_duration_s} s: both must be above 0")
    if not 0 < stride_s <= window_s:
        raise InputError(f"stride_s={stride_s} must be above 0 and at most duration_s={window_s}, or parts go unseen")
    room_s = video_duration_s - window_s
    if room_s <= _ROUNDING_S:
        return [(0.0, video_duration_s)]
    full = math.floor(room_s / stride_s + _ROUNDING_S)
    remainder_s = room_s - full * stride_s
    starts_s = [round(index * stride_s, 6) for index in range(full + 1)]
    folds = full > 0 and remainder_s <= FOLDED_REMAINDER * stride_s and remainder_s <= window_s - stride_s
    if folds:
        starts_s[-1] = room_s
    elif remainder_s > _ROUNDING_S:
        starts_s.append(room_s)
    windows = [(start_s, start_s + window_s) for start_s in starts_s]
    windows[-1] = (windows[-1][0], min(windows[-1][1], video_duration_s))
    return windows


def window_label(source_label: str | None, event_time_s: float | None, start_s: float, end_s: float) -> str | None:
    """The label of a window: the event's if and only if the window [start_s, end_s) holds its time, else normal.

    Returns:
        None where the source has no labels.

    Raises:
        InputError: The source says that something happens but not when, so that the window cannot be judged.
    """
    if source_label is None or source_label == NORMAL:
        return source_label
    if event_time_s is None:
        raise InputError(f"label {source_label!r} without event_time_s: give the time of the event")
    return source_label if start_s <= event_time_s < end_s else NORMAL
