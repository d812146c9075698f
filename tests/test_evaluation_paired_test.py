"""The paired test by hand: what it must give where the answer is known."""
# pyright: reportOptionalOperand=false, reportArgumentType=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportAttributeAccessIssue=false

import time

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp, ttest_ind

from autodrive.evaluation.paired_test import PairedTest, RowValues, corrected, paired_test, seed_noise


def compare(a, b, videos, trained=True) -> PairedTest:
    rows = [RowValues(np.asarray(values, dtype=np.float64), trained) for values in (a, b)]
    return paired_test(*rows, np.asarray(videos), seed_noise(rows, np.asarray(videos)))


def one_run_each() -> tuple[np.ndarray, np.ndarray]:
    a, b = np.zeros((1, 100)), np.zeros((1, 100))
    a[0, :50], b[0, :60] = 1, 1
    b[0, :2] = 0  # a alone is right on 2 clips, b alone on 10
    return a, b


def test_models_that_nobody_trained_are_compared_clip_by_clip():
    a, b = one_run_each()
    result = compare(a, b, np.arange(100), trained=False)
    assert (result.num_a_better, result.num_b_better) == (2, 10)
    assert result.difference == pytest.approx(0.08)
    expected = ttest_1samp(b[0] - a[0], 0)
    assert result.p_value == pytest.approx(expected.pvalue)
    assert (result.low, result.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_three_copies_of_a_clip_are_no_more_evidence_than_one():
    a, b = one_run_each()
    once = compare(a, b, np.arange(100), trained=False)
    copied = compare(np.repeat(a, 3, axis=1), np.repeat(b, 3, axis=1), np.repeat(np.arange(100), 3), trained=False)
    assert copied.p_value == pytest.approx(once.p_value)


def test_runs_that_differ_alike_on_every_video_are_compared_by_their_means():
    """Nothing is left for the source videos, so what remains is the t test of the runs' accuracies."""
    a, b = np.zeros((3, 100)), np.zeros((3, 100))
    for row, sizes in ((a, (40, 44, 47)), (b, (52, 57, 61))):
        for run, size in enumerate(sizes):
            row[run] = size / 100
    result = compare(a, b, np.arange(100))
    expected = ttest_ind(b.mean(axis=1), a.mean(axis=1))
    assert result.p_value == pytest.approx(expected.pvalue)
    assert (result.low, result.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_the_part_of_the_videos_is_added_where_rows_differ_from_video_to_video():
    random = np.random.default_rng(0)
    everywhere = np.tile(random.random(300), (3, 1)) + np.array([[0.0], [0.01], [0.02]])
    shifted, uneven = everywhere + 0.05, everywhere + random.choice([-0.45, 0.55], 300)
    even = compare(everywhere, shifted, np.arange(300))
    noisy = compare(everywhere, uneven, np.arange(300))
    assert noisy.high - noisy.low > 3 * (even.high - even.low)


def test_seeds_that_disagree_widen_the_difference():
    random = np.random.default_rng(1)
    steady = (random.random((2, 300)) < 0.8).astype(float)
    erratic = np.stack([random.random(300) < 0.95, random.random(300) < 0.75]).astype(float)
    alike = np.stack([random.random(300) < 0.85, random.random(300) < 0.85]).astype(float)
    few, many = compare(steady, alike, np.arange(300)), compare(steady, erratic, np.arange(300))
    assert many.high - many.low > 1.5 * (few.high - few.low)


def test_noise_between_seeds_is_pooled_over_all_rows_of_a_table():
    random = np.random.default_rng(2)
    rows = [RowValues((random.random((2, 300)) < 0.8).astype(float)) for _ in range(5)]
    noise = seed_noise([*rows, RowValues(np.ones((1, 300))), RowValues(np.ones((1, 300)), False)], np.arange(300))
    assert noise is not None
    assert noise.degrees_of_freedom == 5
    assert noise.variance == pytest.approx(np.mean([row.values_SN.mean(axis=1).var(ddof=1) for row in rows]))


@pytest.mark.parametrize(("num_a", "num_b"), [(1, 1), (1, 3), (3, 1)])
def test_one_seed_of_a_trained_row_is_not_tested(num_a, num_b):
    result = compare(np.zeros((num_a, 90)), np.ones((num_b, 90)), np.arange(90))
    assert (result.difference, result.p_value, result.low, result.why_untested) == (1, None, None, "one seed")


def test_one_source_video_is_not_tested():
    result = compare(np.zeros((2, 90)), np.ones((2, 90)), np.zeros(90, dtype=int))
    assert (result.p_value, result.why_untested) == (None, "one source video")


def test_identical_rows_do_not_claim_that_any_difference_would_have_been_seen():
    result = compare(np.ones((2, 50)), np.ones((2, 50)), np.arange(50))
    assert (result.difference, result.p_value) == (0, 1)
    assert result.smallest_detectable > 0.04


def test_the_smallest_detectable_difference_is_found_four_times_in_five():
    random = np.random.default_rng(4)
    a, b = one_run_each()
    result = compare(a, b, np.arange(100), trained=False)
    error = (result.high - result.low) / 2 / t.ppf(0.975, 99)
    estimates = random.normal(result.smallest_detectable, error, 20_000)
    assert np.mean(np.abs(estimates) > t.ppf(0.975, 99) * error) == pytest.approx(0.8, abs=0.01)


def test_p_values_are_corrected_for_their_number_and_gaps_stay():
    tests = [PairedTest(0.1, 9, 0, 1, p_value=p) for p in (0.01, None, 0.04, 0.03)]
    assert corrected(tests) == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06)]
    assert corrected([PairedTest(0.1, 9, 0, 1)]) == [None]


def test_nine_hundred_clips_take_no_time():
    random = np.random.default_rng(0)
    a, b = random.random((3, 900)) < 0.7, random.random((3, 900)) < 0.8
    began = time.perf_counter()
    compare(a, b, np.arange(900) // 3)
    assert time.perf_counter() - began < 0.1
