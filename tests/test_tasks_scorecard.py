"""Metric keys of a run: names, values and intervals."""

import math
import time

import numpy as np
import pytest
from records import make_clip
from run_samples import NAMES, label_set, prediction, reader, task_book

from autodrive.errors import InputError
from autodrive.evaluation.by_video import confusion_by_video
from autodrive.evaluation.slices import check_slices
from autodrive.schema import Prediction
from autodrive.tasks.scorecard import scorecard, slice_scores

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


def test_no_interval_is_a_point_though_a_constant_reply_is_right_on_one_sibling_in_three_whatever_is_drawn():
    metrics = scorecard([prediction(clip, "normal") for clip in range(198)], BOOK, label_set())
    scores = [key.removesuffix("_ci_low") for key in metrics if key.endswith("_ci_low")]
    assert {f"test/{score}" for score in ("accuracy", "normal_recall", "normal_precision", "collision_f1")} < {*scores}
    for score in scores:
        assert metrics[f"{score}_ci_low"] <= metrics[score] <= metrics[f"{score}_ci_high"], score
        assert metrics[f"{score}_ci_high"] - metrics[f"{score}_ci_low"] > 0.05, score
    bounds = [metrics[f"test/accuracy_ci_{side}"] for side in ("low", "high")]
    assert bounds == pytest.approx([0.232, 0.453], abs=1e-3)  # Wilson's for 22 of 66 scenes


def test_scores_that_do_not_exist_are_left_out():
    replies = reader(0.8, seed=0)
    normal = [p.model_copy(update={"parsed": "normal"}) for p in replies if p.answer == "normal"]
    metrics = scorecard(normal, BOOK, label_set())
    assert {key for key in metrics if "collision" in key or "average_precision" in key} == {
        "test/predicted_collision",
        "test/predicted_near_collision",
        *(f"test/normal_average_precision{end}" for end in ("", "_ci_low", "_ci_high")),
    }
    assert all(math.isfinite(value) for value in metrics.values())


def test_the_interval_of_a_rare_class_rests_on_the_videos_that_have_it():
    """Recall 1 on the clips of three videos says less than recall 1 on those of sixty."""
    replies = [prediction(clip, "normal", answer="normal") for clip in range(198)]
    rare = [prediction(198 + 3 * i, "collision", answer="collision") for i in range(3)]
    metrics = scorecard(replies + rare, BOOK, label_set())
    assert metrics["test/collision_recall"] == 1
    assert metrics["test/collision_recall_ci_low"] == pytest.approx(0.438, abs=1e-3)  # Wilson's for 3 of 3
    assert metrics["test/normal_recall_ci_low"] > 0.9


@pytest.mark.parametrize("what", ["closed questions", "traces"])
def test_clips_of_one_video_that_agree_are_no_more_evidence_than_one_clip(what: str):
    """Of nine clips of each of 22 videos, all are right or all are wrong: intervals are three times as wide."""

    def reply(clip: int, video: int) -> Prediction:
        right, video_id = clip // 9 % 2 == 0, f"video{video}"
        if what == "traces":
            text = "<think>calm</think><answer>A</answer>" if right else "B"
            return prediction(clip, None, mode="reasoning", reply=text, source_video_id=video_id)
        closed = {"task": "closed_qa", "question": "Day?", "options": ("yes", "no"), "source_video_id": video_id}
        return prediction(clip, "yes" if right else "no", answer="yes", **closed)

    def width(replies: list[Prediction]) -> float:
        metrics = scorecard(replies, BOOK, label_set())
        key = "test/trace_emission_rate" if what == "traces" else "test/closed_qa_day_accuracy"
        return metrics[f"{key}_ci_high"] - metrics[f"{key}_ci_low"]

    together, apart = width([reply(c, c // 9) for c in range(198)]), width([reply(c, c) for c in range(198)])
    assert together == pytest.approx(3 * apart, rel=0.15)


def test_reasoning_replies_have_a_trace_rate():
    well = prediction(0, "normal", mode="reasoning", reply="<think>calm</think><answer>A</answer>")
    bare = prediction(1, None, mode="reasoning", reply="B", failure="missing_tags")
    metrics = scorecard([well, bare], BOOK, label_set(), "test_reasoning")
    assert metrics["test_reasoning/trace_emission_rate"] == 0.5
    assert metrics["test_reasoning/accuracy"] == 0.5
    assert "test/trace_emission_rate" not in scorecard([prediction(0, "normal")], BOOK, label_set())


def test_videos_that_are_much_alike_leave_little_doubt():
    """One of three closed questions is right in 60 scenes, two in 6: much is known of the next scene's share."""
    closed = {"task": "closed_qa", "question": "Day?", "options": ("yes", "no"), "answer": "yes"}
    right = [clip % 3 == 0 or (clip % 3 == 1 and clip < 18) for clip in range(198)]
    found = [prediction(clip, "yes" if ok else "no", **closed) for clip, ok in enumerate(right)]
    metrics = scorecard(found, BOOK, label_set())
    assert metrics["test/closed_qa_accuracy"] == pytest.approx(72 / 198)
    bounds = [metrics[f"test/closed_qa_accuracy_ci_{side}"] for side in ("low", "high")]
    assert bounds == pytest.approx([(66 + 2) / 198, (66 + 11) / 198], abs=0.006)  # 2 to 11 such scenes are drawn


def test_counts_follow_the_videos_that_are_given():
    replies = [prediction(0, "normal"), prediction(1, "collision"), prediction(3, None)]
    counts = confusion_by_video(replies, label_set(), ["scene7", "scene1", "scene0"])
    assert counts.shape == (3, 3, 4)
    assert [list(zip(*np.nonzero(of_video), strict=True)) for of_video in counts] == [[], [(0, 3)], [(0, 0), (1, 2)]]


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
    began = time.process_time()
    scorecard(replies, BOOK, label_set())
    assert time.process_time() - began < 2.0


def test_a_part_has_the_scores_of_its_own_clips():
    """Right by day and in the rain, wrong at night; of one clip nobody knows when it was."""
    light = {0: "day", 1: "night", 2: "day", 3: "Night, rain", 4: None}
    metadata = {f"video{clip}#0": {} if value is None else {"light": value} for clip, value in light.items()}
    replies = [prediction(clip, NAMES[(clip + (clip in (1, 4))) % 3]) for clip in light]
    replies += [prediction(clip, "x", answer="y", task="closed_qa") for clip in light]  # not the headline task
    found = slice_scores(replies, metadata, ["light"], BOOK, label_set(), "test")
    assert {
        key: value for key, value in found.items() if key.endswith(("_n", "_accuracy")) and "binary" not in key
    } == {
        "test/light_day_n": 2,
        "test/light_day_accuracy": 1,
        "test/light_night_n": 1,
        "test/light_night_accuracy": 0,
        "test/light_night_rain_n": 1,
        "test/light_night_rain_accuracy": 1,
        "test/light_unknown_n": 1,
        "test/light_unknown_accuracy": 0,
    }
    assert found["test/light_day_accuracy_ci_low"] < 1


@pytest.mark.parametrize("values", [("-1", "1"), ("Day", "day")])
def test_values_that_would_share_a_name_are_refused(values: tuple[str, str]):
    clips = [make_clip(id=f"video{n}#0", metadata={"light": value}) for n, value in enumerate(values)]
    with pytest.raises(
        InputError, match=r"evaluation.slices=\[light\]: '.*' and '.*' have the same letters and digits"
    ):
        check_slices(["light"], clips)


def test_values_in_any_script_are_parts_of_their_own():
    clips = [make_clip(id=f"video{n}#0", metadata={"weather": value}) for n, value in enumerate(("雨", "晴れ"))]
    check_slices(["weather"], clips)
    replies = [prediction(clip, NAMES[0]) for clip in range(2)]
    metadata = {clip.id: clip.metadata for clip in clips}
    found = slice_scores(replies, metadata, ["weather"], BOOK, label_set(), "test")
    assert (found["test/weather_雨_n"], found["test/weather_晴れ_n"]) == (1, 1)
