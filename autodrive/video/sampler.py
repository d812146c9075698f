"""Which decoded frame is on screen at each requested time, whatever the decoder; `frame_grid` chooses the times."""

import numpy as np
from numpy.typing import NDArray

# Containers round timestamps (Matroska to 1 ms): a frame this little after the requested time counts as on screen.
TIMESTAMP_TOLERANCE_S = 0.75e-3


def choose_frames(pts_s: NDArray[np.float64], requested_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the frame on screen at each requested time: the last one that has begun; the first one if none has.

    Args:
        pts_s: (N,) ascending presentation times of the file's frames, seconds from its first frame.
        requested_s: (T,) ascending times that are asked for, seconds from the first frame.

    Returns:
        (T,) indices into `pts_s`.
    """
    return np.maximum(np.searchsorted(pts_s, requested_s + TIMESTAMP_TOLERANCE_S, side="right") - 1, 0)
