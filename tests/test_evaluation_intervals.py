"""Intervals and paired comparisons: coverage, clustering, cross-checks."""

import numpy as np
import pytest

from autodrive.evaluation import intervals


def accuracy_interval(right_N, clusters_N, seed=0, num_resamples=2000):
    random = np.random.default_rng(seed)
    hits, sizes = np.bincount(clusters_N, weights=right_N), np.bincount(clusters_N)
    counts = intervals.resample_counts(len(sizes), random, num_resamples)
    return intervals.score_interval(float(right_N.mean()), counts @ hits / (counts @ sizes), len(sizes))


def test_with_independent_clips_the_bootstrap_agrees_with_wilson():
    right = np.zeros(198)
    right[:153] = 1
    ours = accuracy_interval(right, np.arange(198))
    wilson = intervals.wilson_interval(153, 198)
    assert (ours.low, ours.high) == pytest.approx((wilson.low, wilson.high), abs=0.012)
    assert (ours.high - ours.low) / 2 == pytest.approx(0.059, abs=0.005)


def test_wilson_gives_textbook_values():
    interval = intervals.wilson_interval(0, 10)
    assert (interval.low, interval.high) == pytest.approx((0.0, 0.2775), abs=1e-3)


def test_clips_of_one_video_that_agree_widen_the_interval():
    right = np.repeat(np.random.default_rng(0).random(66) < 0.7, 3).astype(float)
    clustered = accuracy_interval(right, np.repeat(np.arange(66), 3))
    independent = accuracy_interval(right, np.arange(198))
    ratio = (clustered.high - clustered.low) / (independent.high - independent.low)
    assert ratio == pytest.approx(np.sqrt(3), rel=0.15)


def test_resamples_that_all_agree_leave_the_doubt_that_so_few_videos_leave():
    """A classifier that sees only what three siblings share is right on exactly one: 1/3 in every resample."""
    right = np.tile([1.0, 0.0, 0.0], 66)
    interval = accuracy_interval(right, np.repeat(np.arange(66), 3))
    assert (interval.low, interval.high) == pytest.approx((0.232, 0.453), abs=1e-3)  # of 22 in 66


def test_resamples_without_the_score_say_nothing_of_it():
    resampled = np.array([np.nan, 0.2, 0.4, 0.6, np.nan])
    assert intervals.score_interval(0.4, resampled, 9) == intervals.score_interval(0.4, resampled[1:4], 9)
    assert intervals.score_interval(0.4, np.full(5, np.nan), 9) == intervals.wilson_interval(0.4 * 9, 9)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        rates = random.beta(4, 2, size=60)  # mean 2/3, videos differ
        right = (random.random((60, 3)) < rates[:, None]).astype(float).ravel()
        interval = accuracy_interval(right, np.repeat(np.arange(60), 3), seed=7, num_resamples=500)
        covered += interval.low <= 2 / 3 <= interval.high
    assert 0.89 <= covered / 200 <= 0.99


def test_nothing_seen_is_not_nothing_possible():
    interval = intervals.score_interval(0.0, np.zeros(10), 66)
    assert interval.low == 0
    assert interval.high == pytest.approx(intervals.wilson_interval(0, 66).high)
    assert intervals.score_interval(0.5, np.full(10, 0.5), 1).high > 0.9


def test_the_order_of_items_does_not_matter():
    assert intervals.cluster_index(["b", "a", "b"]).tolist() == [1, 0, 1]


def test_one_seed_is_never_resampled_away():
    assert (intervals.resample_counts(1, np.random.default_rng(0), 10) == 1).all()
