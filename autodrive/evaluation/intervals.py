"""How sure a score is: intervals by source video, paired comparisons, and what could have been seen at this N.

Clips of one source video are not independent, so the bootstrap resamples source videos, not clips (the cluster
bootstrap, Field and Welsh 2007). Where several seeds were trained, a resample also draws seeds, because training noise
is part of what another run would change (a crossed bootstrap, Owen and Eckles 2012).

Letters in shapes: B resamples, K source videos, S seeds, N items, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

Floats = NDArray[np.float64]
NUM_RESAMPLES = 2000
CONFIDENCE = 0.95
POWER = 0.8


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, as fractions."""

    low: float
    high: float


@dataclass(frozen=True)
class PairedComparison:
    """Row b against row a on the clips both answered.

    Attributes:
        difference: Accuracy of b minus accuracy of a, averaged over clips and seeds.
        interval: Interval of the difference, resampling source videos and seeds.
        p_value: Exact sign test over clips; with one seed each this is McNemar's exact test.
        num_clips: Clips that both rows share.
        num_a_better: Clips on which a is right more often than b, over seeds.
        num_b_better: Clips on which b is right more often than a, over seeds.
        smallest_detectable: Difference that would have been found with 80 % power.
    """

    difference: float
    interval: Interval
    p_value: float
    num_clips: int
    num_a_better: int
    num_b_better: int
    smallest_detectable: float


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


def compare_paired(
    correct_a_SK: Floats, correct_b_SK: Floats, clusters_K: NDArray[np.int64], rng: np.random.Generator
) -> PairedComparison:
    """Compare two rows on the same clips.

    Args:
        correct_a_SK: (S_a, N) whether each seed of row a got each clip right (0 to 1 if a clip was asked repeatedly).
        correct_b_SK: (S_b, N) the same for row b; the number of seeds may differ.
        clusters_K: (N,) source video of each clip, numbered as `cluster_index` does.
        rng: Source of all randomness.
    """
    num_clips = len(clusters_K)
    clip_counts = resample_counts(int(clusters_K.max()) + 1, rng)[:, clusters_K]
    means = [_resampled_means(correct, clip_counts, rng) for correct in (correct_a_SK, correct_b_SK)]
    per_clip = correct_b_SK.mean(axis=0) - correct_a_SK.mean(axis=0)
    difference = float(per_clip.mean())
    a_better, b_better = int((per_clip < -1e-9).sum()), int((per_clip > 1e-9).sum())
    differing = a_better + b_better
    resampled = means[1] - means[0]
    # Rows that never differ have no spread of their own; one clip more that differs is the least that N allows.
    standard_error = max(float(resampled.std()), np.sqrt(differing + 1) / num_clips if differing == 0 else 0.0)
    return PairedComparison(
        difference=difference,
        interval=percentile_interval(difference, resampled),
        p_value=float(binomtest(b_better, differing).pvalue) if differing else 1.0,
        num_clips=num_clips,
        num_a_better=a_better,
        num_b_better=b_better,
        smallest_detectable=smallest_detectable_difference(standard_error),
    )


def smallest_detectable_difference(standard_error: float) -> float:
    """Difference found with 80 % power by a two-sided 5 % test: (z_0.975 + z_0.8) x standard error (Bloom 1995).

    About 2.8 standard errors. For n independent pairs of which a share d differs, the standard error is sqrt(d / n).
    """
    return float(norm.ppf((1 + CONFIDENCE) / 2) + norm.ppf(POWER)) * standard_error


def _resampled_means(correct_SN: Floats, clip_counts_BN: Floats, rng: np.random.Generator) -> Floats:
    seed_counts = resample_counts(len(correct_SN), rng, len(clip_counts_BN))
    totals = ((clip_counts_BN @ correct_SN.T) * seed_counts).sum(axis=1)
    return totals / (clip_counts_BN.sum(axis=1) * len(correct_SN))
