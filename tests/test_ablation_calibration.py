"""The verdicts' error rates, on simulated tables: how often equal rows are called different, unequal ones found."""

import gc
from itertools import combinations, pairwise

import numpy as np
import pytest
from scipy.stats import norm

from autodrive.ablation.paired_test import LEVEL, RowValues, corrected, paired_test, seed_noise

CLIPS_PER_VIDEO = 3
# The default's three seeds on 198 clips reach 0.874, 0.894 and 0.914; two rows of two seeds on 900 clips lie closer.
ACCURACY, SEED_SPREAD = 0.894, float(np.std([0.874, 0.894, 0.914], ddof=1))
SPREAD_ON_900 = float(np.sqrt(np.mean([np.var(pair, ddof=1) for pair in ([0.887, 0.901], [0.899, 0.921])])))
# Spread of how hard clips are, in units of a run's noise: two runs then disagree on a tenth of the clips, as ours do.
SPREAD_OF_DIFFICULTY = 1.8
SHARED_IN_VIDEO, SHARED_NOISE_IN_VIDEO = 0.5, 0.3


@pytest.fixture(autouse=True)
def no_collection_per_table(monkeypatch):
    """statsmodels collects garbage in every correction: a tenth of a second that thousands of tables cannot afford."""
    monkeypatch.setattr(gc, "collect", lambda *_: 0)


def simulated_row(difficulty_N, accuracy, spread, num_seeds, random):
    """Runs of one row: each has an accuracy of its own, and noise of its own on each video and each clip."""
    num_videos = len(difficulty_N) // CLIPS_PER_VIDEO
    goals_S = np.clip(accuracy + spread * random.standard_normal(num_seeds), 0.01, 0.99)
    noise_SN = np.sqrt(SHARED_NOISE_IN_VIDEO) * np.repeat(
        random.standard_normal((num_seeds, num_videos)), CLIPS_PER_VIDEO, axis=1
    ) + np.sqrt(1 - SHARED_NOISE_IN_VIDEO) * random.standard_normal((num_seeds, len(difficulty_N)))
    threshold_S = norm.ppf(goals_S) * np.sqrt(SPREAD_OF_DIFFICULTY**2 + 1)
    return RowValues((difficulty_N + noise_SN + threshold_S[:, None] > 0).astype(np.float64))


def share_called_different(num_tables, num_clips, num_seeds, accuracies, spread, seed):
    """Share of simulated tables in which a step from one row to the next is called different."""
    random = np.random.default_rng(seed)
    num_videos = num_clips // CLIPS_PER_VIDEO
    videos_N = np.repeat(np.arange(num_videos), CLIPS_PER_VIDEO)
    different = 0
    for _ in range(num_tables):
        difficulty_N = SPREAD_OF_DIFFICULTY * (
            np.sqrt(SHARED_IN_VIDEO) * np.repeat(random.standard_normal(num_videos), CLIPS_PER_VIDEO)
            + np.sqrt(1 - SHARED_IN_VIDEO) * random.standard_normal(num_clips)
        )
        rows = [simulated_row(difficulty_N, accuracy, spread, num_seeds, random) for accuracy in accuracies]
        noise = seed_noise(rows, videos_N)
        p_values = corrected([paired_test(a, b, videos_N, noise) for a, b in pairwise(rows)])
        different += any(p_value is not None and p_value < LEVEL for p_value in p_values)
    return different / num_tables


@pytest.mark.parametrize("num_seeds", [2, 3])
@pytest.mark.parametrize(("num_clips", "spread"), [(198, SEED_SPREAD), (900, SEED_SPREAD), (900, SPREAD_ON_900)])
def test_equal_rows_are_rarely_called_different(num_clips, spread, num_seeds):
    share = share_called_different(2000, num_clips, num_seeds, (ACCURACY, ACCURACY), spread, seed=0)
    assert share <= 0.06


def test_more_rows_do_not_make_more_mistakes():
    assert share_called_different(500, 198, 3, (ACCURACY,) * 5, SEED_SPREAD, seed=0) <= 0.06


@pytest.mark.parametrize("accuracies", [(ACCURACY - 0.1, ACCURACY), (ACCURACY, ACCURACY - 0.1), (0.84, 0.94)])
def test_ten_points_are_found_with_three_seeds(accuracies):
    assert share_called_different(500, 198, 3, accuracies, SEED_SPREAD, seed=1) >= 0.8


def test_simulated_runs_agree_as_often_as_real_ones():
    """Two trained runs of one table disagree on an eighth of 198 clips (`results/2026-11-21_learning_rate.md`)."""
    random = np.random.default_rng(0)
    runs = simulated_row(SPREAD_OF_DIFFICULTY * random.standard_normal(30_000), ACCURACY, SEED_SPREAD, 6, random)
    disagreement = np.mean([np.mean(a != b) for a, b in combinations(runs.values_SN, 2)])
    assert 0.08 < disagreement < 0.13
    assert runs.values_SN.mean() == pytest.approx(ACCURACY, abs=0.03)
