"""Whether two rows differ by more than chance: a paired test over clips that knows about clips and training seeds.

Two rows are scored on the same clips, each by several training runs. Their difference would come out otherwise with
other seeds, and with other source videos. Its variance is the sum of two parts:

- runs: s² (1/S_a + 1/S_b), where s² is the variance of a run's mean over seeds, pooled over all rows of a table since
  two or three seeds alone say too little about it;
- videos: what is left of the variance of the paired differences over source videos after the part that seeds explain is
  taken off, because s² holds that part already. Two equal rows have none left.

The difference is then compared with Student's t at the degrees of freedom of s². A row that nobody trained (a released
model as it is) has no seeds, and takes part with the variance over videos alone. `tests/test_ablation_calibration.py`
measures how often equal rows are called different.

Letters in shapes: S seeds, N clips, K source videos.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

Floats = NDArray[np.float64]
LEVEL = 0.05
POWER = 0.8
MIN_SEEDS = 2


@dataclass(frozen=True)
class RowValues:
    """One row's values of one metric, a run a line.

    Attributes:
        values_SN: (S, N) value of each clip.
        trained: Whether another seed would have given another run.
    """

    values_SN: Floats
    trained: bool = True

    @property
    def lacks_seeds(self) -> bool:
        """Whether nothing is known of what another training run would change."""
        return self.trained and len(self.values_SN) < MIN_SEEDS


@dataclass(frozen=True)
class SeedNoise:
    """What another seed changes, pooled over the rows of a table.

    Attributes:
        variance: Variance of a run's mean over seeds.
        variance_from_videos: The part of it that comes from seeds doing well on different videos.
        degrees_of_freedom: Number of runs minus number of rows.
    """

    variance: float
    variance_from_videos: float
    degrees_of_freedom: int


@dataclass(frozen=True)
class PairedTest:
    """Row b against row a on the clips both answered.

    Attributes:
        difference: Mean of b minus mean of a, over clips and seeds.
        num_clips: Clips that both rows share.
        num_a_better: Clips on which a has the higher value, averaged over seeds.
        num_b_better: Clips on which b has the higher value, averaged over seeds.
        low: Lower end of the 95 % interval of the difference; None if the rows cannot be tested.
        high: Upper end of that interval.
        p_value: Two-sided p value of the hypothesis that the rows are equal, for this pair alone; None if the rows
            cannot be tested.
        smallest_detectable: Difference that would be found with 80 % power; None if the rows cannot be tested.
        why_untested: Why there is no test; None if there is one.
    """

    difference: float
    num_clips: int
    num_a_better: int
    num_b_better: int
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    smallest_detectable: float | None = None
    why_untested: str | None = None


def seed_noise(rows: Sequence[RowValues], video_of_clip_N: NDArray[np.int64]) -> SeedNoise | None:
    """Pool the noise between seeds over the trained rows; None if none of them has two seeds."""
    replicated = [row.values_SN for row in rows if row.trained and not row.lacks_seeds]
    if not replicated:
        return None
    num_videos, num_clips = int(video_of_clip_N.max()) + 1, len(video_of_clip_N)
    degrees_of_freedom = sum(len(values_SN) - 1 for values_SN in replicated)
    between_runs = between_videos = 0.0
    for values_SN in replicated:
        means_S = values_SN.mean(axis=1)
        between_runs += float(((means_S - means_S.mean()) ** 2).sum())
        # A run's surplus on a video over the row's mean there and over the run's own mean: noise of this run alone.
        surplus_SN = values_SN - values_SN.mean(axis=0)
        surplus_SN -= surplus_SN.mean(axis=1, keepdims=True)
        between_videos += sum(float((_sums_by_video(line, video_of_clip_N) ** 2).sum()) for line in surplus_SN)
    scale = num_videos / (num_videos - 1) / num_clips**2 if num_videos > 1 else 0.0
    return SeedNoise(between_runs / degrees_of_freedom, scale * between_videos / degrees_of_freedom, degrees_of_freedom)


def paired_test(a: RowValues, b: RowValues, video_of_clip_N: NDArray[np.int64], noise: SeedNoise | None) -> PairedTest:
    """Compare two rows on the same clips.

    Args:
        a: Values of the first row.
        b: Values of the second row, with the same clips in the same order.
        video_of_clip_N: (N,) source video of each clip, numbered from 0.
        noise: Noise between seeds of the table the rows belong to.
    """
    difference_N = b.values_SN.mean(axis=0) - a.values_SN.mean(axis=0)
    num_clips, num_videos = len(difference_N), int(video_of_clip_N.max()) + 1
    difference = float(difference_N.mean())
    counts: dict[str, Any] = {
        "difference": difference,
        "num_clips": num_clips,
        "num_a_better": int((difference_N < -1e-9).sum()),
        "num_b_better": int((difference_N > 1e-9).sum()),
    }
    if a.lacks_seeds or b.lacks_seeds:
        return PairedTest(**counts, why_untested="one seed")
    if num_videos < 2:
        return PairedTest(**counts, why_untested="one source video")

    sums_K = _sums_by_video(difference_N - difference, video_of_clip_N)
    variance = num_videos / (num_videos - 1) * float(sums_K @ sums_K) / num_clips**2
    degrees_of_freedom = num_videos - 1
    if noise is not None and (a.trained or b.trained):
        runs = sum(1 / len(row.values_SN) for row in (a, b) if row.trained)
        variance = max(0.0, variance - runs * noise.variance_from_videos) + runs * noise.variance
        degrees_of_freedom = noise.degrees_of_freedom
    # Rows without any spread: one clip more that differs is the least that this many clips allow.
    error = max(np.sqrt(variance), 1 / num_clips)
    quantile = float(student_t.ppf(1 - LEVEL / 2, degrees_of_freedom))
    return PairedTest(
        **counts,
        low=difference - quantile * error,
        high=difference + quantile * error,
        p_value=float(2 * student_t.sf(abs(difference) / error, degrees_of_freedom)),
        smallest_detectable=(quantile + float(student_t.ppf(POWER, degrees_of_freedom))) * error,
    )


def corrected(tests: Sequence[PairedTest]) -> list[float | None]:
    """P values corrected for the number of tests (Holm 1979); None where there is no test."""
    # Imported here: it brings pandas along, for which every process of a run would wait half a second.
    from statsmodels.stats.multitest import multipletests

    values = [test.p_value for test in tests if test.p_value is not None]
    adjusted = np.asarray(multipletests(values, alpha=LEVEL, method="holm")[1]).tolist() if values else []
    return [None if test.p_value is None else adjusted.pop(0) for test in tests]


def _sums_by_video(values_N: Floats, video_of_clip_N: NDArray[np.int64]) -> Floats:
    return np.bincount(video_of_clip_N, weights=values_N).astype(np.float64)
