"""Class probabilities of the windows of a whole video."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autodrive.evaluation.classification import option_probabilities
from autodrive.schema import Question


@dataclass(frozen=True)
class Timeline:
    """Class probabilities of every window of one video.

    Attributes:
        classes: Names in the label set's order.
        windows_s: (W, 2) start and end.
        probabilities_WC: (W, classes), rows sum to 1.
        best: Index of the window with the highest probability of an incident.
    """

    classes: tuple[str, ...]
    windows_s: NDArray[np.float64]
    probabilities_WC: NDArray[np.float64]
    best: int

    def record(self) -> dict[str, Any]:
        """The windows as `timeline.json` holds them: times in seconds, probabilities as fractions."""
        windows = [
            {
                "start_s": round(float(start_s), 3),
                "end_s": round(float(end_s), 3),
                "probabilities": {name: round(float(p), 6) for name, p in zip(self.classes, row, strict=True)},
            }
            for (start_s, end_s), row in zip(self.windows_s, self.probabilities_WC, strict=True)
        ]
        return {"best_window": windows[self.best], "windows": windows}


def mean_probabilities(
    questions: Sequence[Question], log_probs: Sequence[tuple[float, ...]], classes: tuple[str, ...]
) -> NDArray[np.float64]:
    """Probability of each class: option log-probabilities normalised over the options, averaged over the orders.

    Args:
        questions: The same question in different option orders.
        log_probs: For each of them, the log-probability of every option.
        classes: Order of the result.

    Returns:
        (classes,) summing to 1.
    """
    rows = [option_probabilities(q.options, values, classes) for q, values in zip(questions, log_probs, strict=True)]
    return np.array([row for row in rows if row is not None], dtype=np.float64).mean(axis=0)
