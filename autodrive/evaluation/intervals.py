"""How sure a score is: intervals by source video.

Clips of one source video are not independent, so the bootstrap resamples source videos, not clips (the cluster
bootstrap, Field and Welsh 2007). Where several seeds were trained, a resample also draws seeds, because training noise
is part of what another run would change (a crossed bootstrap, Owen and Eckles 2012).

Where all resamples agree, the bootstrap claims a certainty that nobody has: no failure among 66 videos does not mean
none ever, and a constant answer is right on one of three siblings in every resample, though the next scene may have
other siblings. There Wilson's interval takes its place, with N = the number of source videos that the score rests on:
the usual one for proportions near 0 and 1 (Brown, Cai and DasGupta 2001). A mean of any values between 0 and 1 varies
at most as much as a proportion does, so it is wide enough for such means too.

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
ROUNDING = 1e-9  # scores that are equal but for the order of their sums


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


def score_interval(estimate: float, resampled_B: Floats, num_videos: int) -> Interval:
    """Interval of a score between 0 and 1.

    The percentile bootstrap's, over the resamples in which the score exists; Wilson's where these do not differ. Both
    are widened if need be to hold the estimate itself (skewed scores can leave it).

    Args:
        estimate: The score over all items, which the interval must hold.
        resampled_B: The score of each resample; nan where it does not exist.
        num_videos: Number of source videos that the score rests on.
    """
    found = resampled_B[~np.isnan(resampled_B)]
    if len(found) == 0 or np.ptp(found) < ROUNDING:
        wilson = wilson_interval(estimate * num_videos, num_videos)
        low, high = wilson.low, wilson.high
    else:
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(found, [tail, 1 - tail])
    return Interval(float(min(low, estimate)), float(max(high, estimate)))


def wilson_interval(successes: float, total: float) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927), for independent trials."""
    z = float(norm.ppf((1 + CONFIDENCE) / 2))
    share, spread = successes / total, z * z / total
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * np.sqrt(share * (1 - share) / total + spread / (4 * total))
    return Interval(max(0.0, float(centre - half)), min(1.0, float(centre + half)))
