"""The verdicts' error rates, on simulated tables: how often equal rows are called different, unequal ones found."""

from itertools import combinations

import numpy as np
import pytest

from autodrive.evaluation.paired_test import LEVEL
from autodrive.evaluation.power import (
    SPREAD_OF_DIFFICULTY,
    Study,
    share_found,
    simulated_p_values,
    simulated_row,
    smallest_difference,
)

# The first world's three seeds on 198 clips reach 0.874, 0.894 and 0.914; two rows of two seeds on 900 lie closer.
ACCURACY, SEED_SPREAD = 0.894, float(np.std([0.874, 0.894, 0.914], ddof=1))
SPREAD_ON_900 = float(np.sqrt(np.mean([np.var(pair, ddof=1) for pair in ([0.887, 0.901], [0.899, 0.921])])))


def share_called_different(num_tables, num_clips, num_seeds, accuracies, spread, seed):
    """Share of simulated tables in which a step from one row to the next is called different."""
    tables = simulated_p_values(Study(num_clips, num_seeds, 3, spread), accuracies, num_tables, seed)
    return np.mean([any(p is not None and p < LEVEL for p in p_values) for p_values in tables])


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
    study = Study(30_000, 6, 3, SEED_SPREAD)
    runs = simulated_row(SPREAD_OF_DIFFICULTY * random.standard_normal(30_000), ACCURACY, study, random)
    disagreement = np.mean([np.mean(a != b) for a, b in combinations(runs.values_SN, 2)])
    assert 0.08 < disagreement < 0.13
    assert runs.values_SN.mean() == pytest.approx(ACCURACY, abs=0.03)


def test_what_is_said_to_be_found_is_found_four_times_in_five():
    """On other tables than those by which it was looked for; with more clips, seeds or fewer steps less is enough."""
    study = Study(198, 3, 3, SEED_SPREAD)
    smallest = smallest_difference(study, 0.65, 1, num_tables=200, seed=0)
    assert smallest is not None
    assert 0.7 < share_found(study, 0.65, smallest, 1, num_tables=400, seed=1) < 0.9
    easier = (Study(900, 3, 3, SEED_SPREAD), Study(198, 6, 3, SEED_SPREAD), Study(198, 3, 3, 0.0))
    assert min(share_found(other, 0.65, smallest, 1, 100, seed=0) for other in easier) > 0.85
    assert share_found(study, 0.65, smallest, 5, 100, seed=0) < 0.7
    assert smallest_difference(Study(6, 2, 3, 0.2), 0.65, 1, 50, seed=0) is None
