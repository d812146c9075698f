"""Metric keys of a run: names, values and intervals."""

import math
import time

import pytest
from run_samples import NAMES, label_set, prediction, reader, task_book

from autodrive.errors import InputError
from autodrive.tasks.scorecard import scorecard

BOOK = task_book()


def test_keys_are_the_contract():
    metrics = scorecard(reader(0.8, seed=0), BOOK, label_set())
    scores = ["accuracy", "binary_accuracy", "macro_f1", "parse_failures", "average_precision"]
    scores += [f"{name}_{score}" for name in NAMES for score in ("precision", "recall", "f1", "average_precision")]
    for score in scores:
        low, value, high = (metrics[f"test/{score}{end}"] for end in ("_ci_low", "", "_ci_high"))
        assert 0 <= low <= value <= high <= 1, score
    assert metrics["test/n"] == 198
    assert metrics["test/num_source_videos"] == 66
    assert sum(metrics[f"test/predicted_{name}"] for name in NAMES) == pytest.approx(1 - metrics["test/parse_failures"])


def test_unread_replies_are_counted_and_wrong():
    replies = [prediction(clip, None if clip < 10 else NAMES[clip % 3]) for clip in range(30)]
    metrics = scorecard(replies, BOOK, label_set())
    assert metrics["test/accuracy"] == metrics["test/binary_accuracy"] == pytest.approx(20 / 30)
    assert metrics["test/parse_failures"] == pytest.approx(10 / 30)
    assert metrics["test/parse_failure_count"] == 10
    assert metrics["test/n"] == 30


def test_binary_accuracy_forgives_one_incident_for_another():
    replies = [prediction(clip, "normal" if clip % 3 == 0 else "collision") for clip in range(30)]
    metrics = scorecard(replies, BOOK, label_set())
    assert metrics["test/accuracy"] == pytest.approx(2 / 3)
    assert metrics["test/binary_accuracy"] == 1


def test_a_constant_reply_is_right_on_one_sibling_in_three_whatever_is_drawn():
    metrics = scorecard([prediction(clip, "normal") for clip in range(198)], BOOK, label_set())
    assert metrics["test/accuracy_ci_low"] == pytest.approx(1 / 3)
    assert metrics["test/accuracy_ci_high"] == pytest.approx(1 / 3)
    assert metrics["test/collision_f1"] == 0


def test_reasoning_replies_have_a_trace_rate():
    well = prediction(0, "normal", mode="reasoning", reply="<think>calm</think><answer>A</answer>")
    bare = prediction(1, None, mode="reasoning", reply="B", failure="missing_tags")
    metrics = scorecard([well, bare], BOOK, label_set(), "test_reasoning")
    assert metrics["test_reasoning/trace_emission_rate"] == 0.5
    assert metrics["test_reasoning/accuracy"] == 0.5
    assert "test/trace_emission_rate" not in scorecard([prediction(0, "normal")], BOOK, label_set())


def test_modes_are_never_averaged():
    with pytest.raises(ValueError, match="mix"):
        scorecard([prediction(0, "normal"), prediction(1, None, mode="reasoning")], BOOK, label_set())


def test_closed_questions_are_scored_apart():
    mcq = [prediction(clip, NAMES[clip % 3]) for clip in range(6)]
    closed = [
        prediction(
            clip,
            "day" if clip % 2 else "night",
            answer="day",
            task="closed_qa",
            question="What is the light?",
            options=("day", "night"),
        )
        for clip in range(6)
    ]
    metrics = scorecard(mcq + closed, BOOK, label_set())
    assert metrics["test/accuracy"] == 1
    assert metrics["test/closed_qa_accuracy"] == metrics["test/closed_qa_what_is_the_light_accuracy"] == 0.5


def test_average_precision_ranks_by_the_probability_of_an_incident():
    def scored(clip, p_normal):
        rest = math.log((1 - p_normal) / 2)
        return prediction(clip, "normal", option_log_probs=(math.log(p_normal), rest, rest))

    perfect = scorecard([scored(c, 0.9 if c % 3 == 0 else 0.8) for c in range(30)], BOOK, label_set())
    assert perfect["test/average_precision"] == 1
    assert perfect["test/accuracy"] == pytest.approx(1 / 3)
    partly = [prediction(0, "normal"), scored(1, 0.3)]
    assert "test/average_precision" not in scorecard(partly, BOOK, label_set())


def test_an_unknown_reference_answer_is_refused_in_one_line():
    with pytest.raises(InputError, match="event3") as caught:
        scorecard([prediction(0, None, answer="event", options=("event", "normal"))], BOOK, label_set())
    assert "\n" not in str(caught.value)


def test_the_same_predictions_in_any_order_give_the_same_numbers():
    replies = reader(0.7, seed=3)
    assert scorecard(replies, BOOK, label_set()) == pytest.approx(scorecard(replies[::-1], BOOK, label_set()))


def test_900_clips_are_scored_in_well_under_a_second():
    replies = reader(0.8, seed=0, num_clips=900)
    began = time.perf_counter()
    scorecard(replies, BOOK, label_set())
    assert time.perf_counter() - began < 2.0
