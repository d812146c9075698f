"""How sure a score is: intervals by source video.

Clips of one source video are not independent, so the bootstrap resamples source videos, not clips (the cluster
bootstrap, Field and Welsh 2007). Where several seeds were trained, a resample also draws seeds, because training noise
is part of what another run would change (a crossed bootstrap, Owen and Eckles 2012).

Letters in shapes: B resamples, K source videos, S seeds, N items, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Floats = NDArray[np.float64]
NUM_RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, as fractions."""

    low: float
    high: float


def cluster_index(source_video_ids: Sequence[str]) -> NDArray[np.int64]:
    """Number each source video 0 … K - 1 in the order of its id, so that the order of items never matters."""
    return np.unique(np.asarray(source_video_ids), return_inverse=True)[1].astype(np.int64)


def resample_counts(num_units: int, rng: np.random.Generator, num_resamples: int = NUM_RESAMPLES) -> Floats:
    """How often each unit is drawn in each bootstrap resample: (B, num_units), every row sums to `num_units`.

    A single unit is drawn once each time: one seed says nothing about seeds.
    """
    shares = np.full(num_units, 1 / num_units)
    return rng.multinomial(num_units, shares, size=num_resamples).astype(np.float64)


def percentile_interval(estimate: float, resampled_B: Floats) -> Interval:
    """Percentile bootstrap interval, widened if need be to hold the estimate itself (skewed scores can leave it)."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled_B, [tail, 1 - tail])
    return Interval(float(min(low, estimate)), float(max(high, estimate)))


def wilson_interval(successes: float, total: float) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927), for independent trials."""
    z = float(norm.ppf((1 + CONFIDENCE) / 2))
    share, spread = successes / total, z * z / total
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * np.sqrt(share * (1 - share) / total + spread / (4 * total))
    return Interval(max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def proportion_interval(estimate: float, resampled_B: Floats, num_clusters: int) -> Interval:
    """Interval of a share of all items.

    The bootstrap cannot move off 0 or 1 (no failure among 198 clips does not mean none ever), so there Wilson's
    interval with N = number of source videos takes its place.
    """
    if estimate in (0.0, 1.0) or num_clusters < 2:
        return wilson_interval(estimate * num_clusters, num_clusters)
    return percentile_interval(estimate, resampled_B)
