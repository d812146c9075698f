"""Which difference in accuracy a comparison can find: tables are simulated and judged by the rule that judges ours.

A simulated clip has a difficulty, which all runs share, and a run has noise of its own on each source video and each
clip; the run is right where the sum is below a threshold that follows from its accuracy (a probit model). Its two
shares below were chosen so that two runs disagree on a tenth of the clips, as trained ones do;
`tests/test_ablation_calibration.py` compares them, and measures the rule's error rates on the same tables.

Letters in shapes: S seeds, N clips, K source videos.
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from autodrive.evaluation.paired_test import LEVEL, POWER, RowValues, corrected, paired_test, seed_noise

Floats = NDArray[np.float64]
# Spread of how hard clips are, in units of a run's noise.
SPREAD_OF_DIFFICULTY = 1.8
# How much of both is shared by the clips of a source video.
SHARED_IN_VIDEO, SHARED_NOISE_IN_VIDEO = 0.5, 0.3
LOWEST_ACCURACY, HIGHEST_ACCURACY = 0.01, 0.99
PRECISION = 0.001  # of the difference that is looked for


@dataclass(frozen=True)
class Study:
    """A comparison that is planned.

    Attributes:
        num_clips: Clips that all rows are scored on.
        num_seeds: Training runs of each row.
        clips_per_video: Clips of one source video, which are alike.
        seed_spread: Standard deviation of a row's accuracy over training seeds, as a fraction.
        trained: Whether rows are trained; a released model as it is has no seeds.
    """

    num_clips: int
    num_seeds: int
    clips_per_video: int
    seed_spread: float
    trained: bool = True

    def videos(self) -> NDArray[np.int64]:
        """The source video of each clip, (N,)."""
        return np.arange(self.num_clips) // self.clips_per_video


def simulated_row(difficulty_N: Floats, accuracy: float, study: Study, random: np.random.Generator) -> RowValues:
    """The runs of one row on clips of given difficulty."""
    num_seeds = study.num_seeds if study.trained else 1
    spread_S = study.seed_spread * random.standard_normal(num_seeds) if study.trained else np.zeros(1)
    goals_S = np.clip(accuracy + spread_S, LOWEST_ACCURACY, HIGHEST_ACCURACY)
    noise_SN = _alike_in_video(num_seeds, SHARED_NOISE_IN_VIDEO, study, random)
    threshold_S = norm.ppf(goals_S) * np.sqrt(SPREAD_OF_DIFFICULTY**2 + 1)
    return RowValues((difficulty_N + noise_SN + threshold_S[:, None] > 0).astype(np.float64), study.trained)


def simulated_p_values(
    study: Study, accuracies: Sequence[float], num_tables: int, seed: int
) -> Iterator[list[float | None]]:
    """The corrected p values of the steps from row to row, table after table.

    Args:
        study: What is compared.
        accuracies: True accuracy of each row of a table.
        num_tables: Tables to simulate.
        seed: Their seed; for other accuracies the same clips and runs are drawn.
    """
    random, videos_N = np.random.default_rng(seed), study.videos()
    with _nothing_to_collect():
        for _ in range(num_tables):
            difficulty_N = SPREAD_OF_DIFFICULTY * _alike_in_video(1, SHARED_IN_VIDEO, study, random)[0]
            rows = [simulated_row(difficulty_N, accuracy, study, random) for accuracy in accuracies]
            noise = seed_noise(rows, videos_N)
            yield corrected([paired_test(a, b, videos_N, noise) for a, b in pairwise(rows)])


def share_found(study: Study, accuracy: float, difference: float, num_steps: int, num_tables: int, seed: int) -> float:
    """The share of tables in which a step is found, beside others in which nothing changes.

    Args:
        study: What is compared.
        accuracy: Halfway between the step's two rows.
        difference: From the one to the other.
        num_steps: Steps that are tested in the table, for whose number p values are corrected.
        num_tables: Tables to simulate.
        seed: Their seed.
    """
    accuracies = [accuracy - difference / 2] * num_steps + [accuracy + difference / 2]
    tables = simulated_p_values(study, accuracies, num_tables, seed)
    return float(np.mean([p_values[-1] is not None and p_values[-1] < LEVEL for p_values in tables]))


def smallest_difference(study: Study, accuracy: float, num_steps: int, num_tables: int, seed: int) -> float | None:
    """The difference that is found in 80 % of tables, by halving; arguments as `share_found`.

    Returns:
        It as a fraction; None where even the largest that accuracies leave room for is not found as often.
    """
    low, high = 0.0, 2 * min(accuracy - LOWEST_ACCURACY, HIGHEST_ACCURACY - accuracy)
    if high <= 0 or share_found(study, accuracy, high, num_steps, num_tables, seed) < POWER:
        return None
    while high - low > PRECISION:
        middle = (low + high) / 2
        if share_found(study, accuracy, middle, num_steps, num_tables, seed) < POWER:
            low = middle
        else:
            high = middle
    return high


def _alike_in_video(num_rows: int, shared: float, study: Study, random: np.random.Generator) -> Floats:
    """(rows, N) standard normal numbers of which a share of the variance is the video's."""
    videos_N = study.videos()
    of_video = random.standard_normal((num_rows, int(videos_N[-1]) + 1))[:, videos_N]
    of_clip = random.standard_normal((num_rows, study.num_clips))
    return np.sqrt(shared) * of_video + np.sqrt(1 - shared) * of_clip


@contextmanager
def _nothing_to_collect() -> Iterator[None]:
    """Leave what is there out of the garbage collection that statsmodels does in every correction, for 0.1 s each."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
