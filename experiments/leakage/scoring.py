"""Accuracy of a probe on held-out clips, with a 95 % interval over scenes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autodrive.evaluation.intervals import cluster_index, resample_counts, score_interval


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        probe: What the guess was made from.
        limit: The bound that its accuracy should respect, in words; empty: reported, not bounded.
        num: Clips.
        accuracy: Share of them named rightly.
        low: Lower end of the 95 % interval.
        high: Upper end of it.
        met: Whether the accuracy respects the bound; None where there is none.
    """

    probe: str
    limit: str
    num: int
    accuracy: float
    low: float
    high: float
    met: bool | None


@dataclass(frozen=True)
class Limit:
    """The least and the greatest accuracy that a probe may have; the interval's lower end if `within_interval`."""

    least: float = 0.0
    most: float = 1.0
    within_interval: bool = False

    def __str__(self) -> str:
        if self.within_interval:
            return f"{self.most:.0%} in interval"
        if self.most == 1.0:
            return f">= {self.least:.0%}"
        return f"<= {self.most:.0%}" if self.least == 0.0 else f"{self.least:.0%} to {self.most:.0%}"


def score(probe: str, predicted: NDArray, truth: NDArray, scenes: Sequence[str], limit: Limit | None = None) -> Result:
    """Compare guesses with the truth, over clips of the given scenes."""
    correct = (predicted == truth).astype(float)
    clusters = cluster_index(scenes)
    counts_BC = resample_counts(int(clusters.max()) + 1, np.random.default_rng(0))
    weights_BN = counts_BC[:, clusters]
    resampled_B = (weights_BN * correct).sum(1) / weights_BN.sum(1)
    accuracy = float(correct.mean())
    interval = score_interval(accuracy, resampled_B, counts_BC.shape[1])
    met = None
    if limit is not None:
        met = limit.least <= accuracy and (interval.low if limit.within_interval else accuracy) <= limit.most
    return Result(probe, str(limit or ""), len(correct), accuracy, interval.low, interval.high, met)
