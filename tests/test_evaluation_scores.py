"""Classification scores, against hand counts, torchmetrics and the published tables."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torchmetrics.functional.classification import binary_average_precision, multiclass_f1_score

from autodrive.evaluation import classification

NAMES = ("normal", "near_collision", "collision")
SHARED = Path(__file__).resolve().parents[2] / "shared"
ANOMALOUS = frozenset({"near_collision", "collision"})


def scores_of(confusion) -> dict[str, Any]:
    return classification.scores(np.asarray(confusion, dtype=float), NAMES, ANOMALOUS)


def test_hand_counted_confusion():
    scores = scores_of([[8, 1, 0, 1], [2, 5, 3, 0], [0, 4, 6, 0]])
    assert scores["accuracy"] == pytest.approx(19 / 30)
    assert scores["binary_accuracy"] == pytest.approx((8 + 5 + 3 + 4 + 6) / 30)
    assert scores["parse_failures"] == pytest.approx(1 / 30)
    assert scores["normal_precision"] == pytest.approx(8 / 10)
    assert scores["normal_recall"] == pytest.approx(8 / 10)
    assert scores["near_collision_f1"] == pytest.approx(2 * 0.5 * 0.5 / (0.5 + 0.5))
    assert scores["collision_f1"] == pytest.approx(2 * (6 / 9) * (6 / 10) / (6 / 9 + 6 / 10))
    assert scores["predicted_near_collision"] == pytest.approx(10 / 30)


def test_what_has_nothing_to_find_or_to_judge_has_no_score():
    never_predicted = scores_of([[10, 0, 0, 0], [10, 0, 0, 0], [10, 0, 0, 0]])
    assert math.isnan(never_predicted["collision_precision"])
    assert never_predicted["collision_recall"] == never_predicted["collision_f1"] == 0
    without_items = scores_of([[8, 1, 1, 0], [1, 9, 0, 0], [0, 0, 0, 0]])
    assert math.isnan(without_items["collision_recall"])
    assert without_items["collision_precision"] == without_items["collision_f1"] == 0
    neither = scores_of([[9, 1, 0, 0], [1, 9, 0, 0], [0, 0, 0, 0]])
    assert math.isnan(neither["collision_f1"])
    assert neither["macro_f1"] == pytest.approx(0.9)  # of the two classes that there are


def test_every_resample_is_scored_by_itself():
    first, second = [[8, 1, 0, 1], [2, 5, 3, 0], [0, 4, 6, 0]], [[1, 0, 0, 0], [2, 2, 0, 1], [0, 0, 3, 0]]
    both = scores_of([first, second])
    for name, values in both.items():
        assert values.tolist() == [scores_of(first)[name], scores_of(second)[name]], name


def test_what_is_no_class_is_unread():
    assert classification.class_indices(["elsewhere", None, "normal", "collision"], NAMES).tolist() == [3, 3, 0, 2]


def test_an_unreadable_reply_is_wrong_and_stays_in_n():
    true = classification.class_indices(["normal", "collision"], NAMES)
    predicted = classification.class_indices(["normal", None], NAMES)
    scores = classification.scores(classification.confusion_matrix(true, predicted, 3), NAMES, ANOMALOUS)
    assert scores["accuracy"] == scores["binary_accuracy"] == scores["parse_failures"] == 0.5


def test_f1_agrees_with_torchmetrics():
    random = np.random.default_rng(1)
    true, predicted = random.integers(0, 3, 300), random.integers(0, 3, 300)
    scores = classification.scores(classification.confusion_matrix(true, predicted, 3), NAMES, ANOMALOUS)
    theirs = multiclass_f1_score(torch.from_numpy(predicted), torch.from_numpy(true), num_classes=3, average="none")
    assert [scores[f"{name}_f1"] for name in NAMES] == pytest.approx(theirs.tolist())


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_agrees_with_torchmetrics(ties):
    random = np.random.default_rng(2)
    relevant, score = random.random(200) < 0.3, random.random(200)
    if ties:
        score = np.round(score, 1)
    theirs = binary_average_precision(torch.from_numpy(score), torch.from_numpy(relevant).long()).item()
    assert classification.average_precision(relevant, score) == pytest.approx(theirs, abs=1e-6)


def test_weighted_average_precision_equals_repeating_items():
    random = np.random.default_rng(3)
    relevant, score = random.random(60) < 0.5, np.round(random.random(60), 1)
    weights = random.integers(0, 4, (5, 60))
    weighted = classification.average_precision(relevant, score, weights.astype(float))
    for row, value in zip(weights, weighted, strict=True):
        repeated = np.repeat(np.arange(60), row)
        assert value == pytest.approx(classification.average_precision(relevant[repeated], score[repeated]))


def test_items_that_a_resample_leaves_out_do_not_count_wherever_they_rank():
    relevant, score = np.array([True, False, True]), np.array([0.9, 0.5, 0.1])
    weights = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    found = classification.average_precision(relevant, score, weights)
    assert found[:2].tolist() == [0.5, 1.0]
    assert np.isnan(found[2])


def test_probabilities_of_very_unlikely_options_do_not_vanish():
    assert classification.option_probabilities(("a", "b"), [-1000.0, -1000.0], ("b", "a")) == pytest.approx([0.5, 0.5])


def test_there_is_no_average_precision_without_positives():
    assert np.isnan(classification.average_precision(np.zeros(4, dtype=bool), np.arange(4.0)))


def test_probabilities_of_options_that_count_as_one_class_are_added():
    log_probs = np.log([0.2, 0.5, 0.1]).tolist()
    shown = classification.option_probabilities(("event", "normal", "event"), log_probs, ("normal", "event"))
    assert shown == pytest.approx([0.5 / 0.8, 0.3 / 0.8])


def test_option_probabilities_follow_the_classes_not_the_order_shown():
    log_probs = np.log([0.2, 0.5, 0.1]).tolist()
    shown = classification.option_probabilities(("collision", "normal", "near_collision"), log_probs, NAMES)
    assert shown == pytest.approx([0.5 / 0.8, 0.1 / 0.8, 0.2 / 0.8])
    assert classification.option_probabilities(("collision", "normal"), [0.0, 0.0], NAMES) is None
    with pytest.raises(ValueError, match="shorter"):
        classification.option_probabilities(NAMES, [0.0, 0.0], NAMES)


@pytest.fixture(scope="module")
def transcription() -> dict[str, Any]:
    path = SHARED / "papers" / "published_results.yaml"
    if not path.is_file():
        pytest.skip("the transcription of the published tables is not beside this checkout")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


PUBLISHED_ROWS = {
    "cr1 zero_shot": {"model": "Cosmos-Reason1 7B", "setting": "zero_shot"},
    "cr1 fine_tuned": {"model": "Cosmos-Reason1 7B", "setting": "fine_tuned"},
    "nvila fine_tuned": {"model": "NVILA-8B Video", "setting": "fine_tuned"},
    "1 FPS": {"fps": 1},
    "15 FPS": {"fps": 15},
    "30 FPS (shared reference run)": {"fps": 30},
    "1e-6": {"learning_rate": 1e-6},
    "2e-5": {"learning_rate": 2e-5},
    "6 s 32x4": {"duration_s": 6, "resolution": "32x4"},
    "4 s 128x32": {"duration_s": 4, "resolution": "128x32"},
    "4 s 192x48": {"duration_s": 4, "resolution": "192x48"},
    "unbalanced": {"distribution": "unbalanced"},
}


@pytest.mark.parametrize("row_name", PUBLISHED_ROWS)
def test_published_scores_follow_from_their_counts(transcription, row_name):
    """Counts with 66 clips a class reproduce every printed score, truncated or rounded as the paper mixes both."""
    counts = next(row for row in transcription["derived_counts"]["autodrive"]["rows"] if row["row"] == row_name)
    table = next(table for table in transcription["tables"] if table["id"] == counts["table"])
    wanted = PUBLISHED_ROWS[row_name].items()
    printed = next(row for row in table["rows"] if wanted <= row.items())
    scores = scores_of(_confusion_with({name: counts[name] for name in NAMES}))
    checked = 0
    for column, value in printed.items():
        if column not in scores or (row_name, column) == ("cr1 zero_shot", "near_collision_recall"):
            continue
        scale, decimals = (100, 2) if column == "accuracy" else (1, 3)
        ours = np.nan_to_num(float(scores[column])) * scale  # the paper prints 0 for what does not exist
        # A printed value may be cut or rounded, or rounded twice: it is within one unit of the last place.
        assert abs(ours - value) < 10**-decimals, (column, ours, value)
        checked += 1
    assert checked >= 4


def _confusion_with(counts: dict[str, list[int]], num_per_class: int = 66) -> np.ndarray:
    """A confusion array with these true positives and predicted totals; the errors' places do not matter."""
    confusion = np.zeros((3, 4))
    surplus = {name: predicted - hits for name, (hits, predicted) in counts.items()}
    missing = {name: num_per_class - hits for name, (hits, _) in counts.items()}
    for i, name in enumerate(NAMES):
        confusion[i, i] = counts[name][0]
    _place_errors(confusion, surplus, missing)
    return confusion


def _place_errors(confusion: np.ndarray, surplus: dict[str, int], missing: dict[str, int]) -> None:
    """Spread errors over the cells off the diagonal: a 3 x 3 transport with one free number."""
    n, c, o = (missing[name] for name in NAMES)
    sn, sc, so = (surplus[name] for name in NAMES)
    for n_to_c in range(n + 1):
        n_to_o = n - n_to_c
        o_to_c = sc - n_to_c
        c_to_o = so - n_to_o
        o_to_n, c_to_n = o - o_to_c, c - c_to_o
        if min(o_to_c, c_to_o, o_to_n, c_to_n) >= 0 and o_to_n + c_to_n == sn:
            confusion[0, 1], confusion[0, 2] = n_to_c, n_to_o
            confusion[1, 0], confusion[1, 2] = c_to_n, c_to_o
            confusion[2, 0], confusion[2, 1] = o_to_n, o_to_c
            return
    raise AssertionError("these counts belong to no confusion matrix")
