"""Which candidates are kept: each filter objects to what it is for, and lets everything pass that rules say."""

import pytest
from annotation_samples import annotations_of, scenes, shipped_setting
from records import make_clip

from autodrive.annotation.filters import Candidate, why_dropped
from autodrive.annotation.rules import ClassQuestion
from autodrive.annotation.stages import Item, Setting
from autodrive.schema import Annotation, Clip, DrivingEvent

CUT_IN = make_clip(
    label="near_collision",
    event_time_s=2.5,
    alert_time_s=1.2,
    metadata={
        "weather": "rain",
        "light": "night",
        "scenario": "cut_in",
        "other_road_user": "van",
        "side": "right",
        "hazard_onset_s": 0.5,
        "min_gap_m": 0.6,
        "blame": "none",
    },
    driving_events=(DrivingEvent(kind="harsh_braking", start_s=1.2, end_s=2.4, severity=5.0),),
)


@pytest.fixture(scope="module")
def setting() -> Setting:
    return shipped_setting()


def reason(setting: Setting, annotation: Annotation, *kept: Annotation, clip: Clip = CUT_IN) -> str | None:
    return why_dropped(Candidate(annotation, Item.of(clip, setting.labels), kept, setting))


def written(answer: str, question: str = "What happens?", task: str = "vqa", **more) -> Annotation:
    return Annotation.create("a#0", task, question, answer, "openai:someone@prompt", **more)


def chosen(answer: str, think: str | None = None, question: str | None = None) -> Annotation:
    asks = ClassQuestion("mcq" if think is None else "reasoning_mcq", question=question or "What happens in this clip?")
    (asked,) = asks.questions("a#0", shipped_setting().labels, 0, 1)
    return written(answer, asked.question, asked.task, options=asked.options, think=think)


def test_all_that_rules_say_is_kept_and_read_back(setting: Setting):
    clips = scenes(60)
    items = {clip.id: Item.of(clip, setting.labels) for clip in clips}
    kept: dict[str, list[Annotation]] = {clip.id: [] for clip in clips}
    for annotations in annotations_of(clips).values():
        for annotation in annotations:
            candidate = Candidate(annotation, items[annotation.clip_id], kept[annotation.clip_id], setting)
            assert why_dropped(candidate) is None, annotation
            kept[annotation.clip_id].append(annotation)
            task = setting.book[annotation.task]
            read = task.read(
                task.target(annotation, setting.labels), annotation.without_answer(), annotation.mode, setting.labels
            )
            assert read.value == annotation.answer
    assert {a.task for found in kept.values() for a in found} == set(setting.book.tasks)


@pytest.mark.parametrize(
    ("answer", "more", "expected"),
    [
        ("A van cuts in.", {}, None),
        ("A van cuts in.", {"task": "poem"}, "unknown_task"),
        (" ", {}, "empty_answer"),
        ("It.", {"question": ""}, "empty_question"),
        ("It.", {"task": "reasoning_vqa", "think": "\n"}, "empty_trace"),
        ("It.", {"task": "reasoning_vqa", "think": "so <answer>it</answer>"}, "tags_in_trace"),
        ("<think>it</think>", {}, "tags_in_answer"),
        ("It.", {"think": "Because."}, "task_has_no_reasoning_mode"),
        ("It.", {"task": "reasoning_vqa"}, "task_has_no_direct_mode"),
        ("A van cuts in. " * 20, {}, "too_long"),
        ("A van cuts in.", {"task": "reasoning_vqa", "think": "It is near. " * 90}, "too_long"),
    ],
)
def test_form(setting: Setting, answer: str, more: dict, expected: str | None):
    assert reason(setting, written(answer, **more)) == expected


def test_a_stage_speaks_of_the_clip_that_it_was_given(setting: Setting):
    assert reason(setting, written("A van.").model_copy(update={"clip_id": "b#0"})) == "about_another_clip"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("At night, in the rain, a van cuts in.", None),
        ("It is a sunny street with some trees.", None),  # nobody knows of trees, and of the sun only a person would
        ("It is not by day.", None),
        ("By day, a van cuts in.", "contradicts_truth: light"),
        ("A foggy road.", "contradicts_truth: weather"),
        ("The van hits the ego vehicle.", "contradicts_truth: contact"),
        ("The van nearly hits the ego vehicle.", None),
        ("It would have crashed. Nobody crashed.", None),
        ("At 2.5 s the van hits the ego vehicle.", "contradicts_truth: contact"),
        ("At 2.5 s the van is closest.", None),
        ("At 1.0 s the van is closest.", "contradicts_truth: closest"),
        ("At 3.0 s a bird flies by.", None),
        ("From 1.2 s to 2.4 s it brakes hard.", None),
        ("From 2.2 s to 3.4 s it brakes hard.", "contradicts_truth: braking"),
        ("At 3.1 s it accelerates.", None),  # a source that names no acceleration may not have looked for one
    ],
)
def test_words_may_say_what_nobody_knows_but_nothing_false(setting: Setting, answer: str, expected: str | None):
    assert reason(setting, written(answer)) == expected


@pytest.mark.parametrize(
    ("trace", "answer", "expected"),
    [
        ("At 2.5 s the van is closest, 0.6 m away.", "near_collision", None),
        ("The van comes near.", "near_collision", None),
        ("The van comes near.", "normal", "contradicts_truth: class"),
        ("At 1.5 s the van is closest.", "near_collision", "contradicts_truth: closest in the trace"),
        ("At 3.3 s a bird flies by.", "near_collision", "contradicts_truth: unknown in the trace"),
        ("A fog bank hides it.", "near_collision", "contradicts_truth: weather"),
        ("It is foggy.", "near_collision", "contradicts_truth: weather"),
    ],
)
def test_a_trace_speaks_of_times_only_as_they_are_known(
    setting: Setting, trace: str, answer: str, expected: str | None
):
    assert reason(setting, chosen(answer, trace)) == expected


def test_choices_are_compared_with_the_truth(setting: Setting):
    assert reason(setting, chosen("near_collision")) is None
    assert reason(setting, chosen("collision")) == "contradicts_truth: class"
    unknown = make_clip(label=None, event_time_s=None, metadata={})
    assert reason(setting, chosen("collision"), clip=unknown) == "truth_not_known"
    weather = {"question": "What is the weather?", "task": "closed_qa", "options": ("clear", "rain", "fog")}
    assert reason(setting, written("rain", **weather)) is None
    assert reason(setting, written("fog", **weather)) == "contradicts_truth: closed answer"
    assert reason(setting, written("fog", **weather), clip=unknown) == "truth_not_known"


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("Who comes from the right?", "A van.", None),
        ("Is it true that a van cuts in?", "A van cuts in.", "question_states_answer"),
        ("Does a van or a truck cut in?", "A van.", None),
        ("Is there no doubt?", "No.", None),
        ("What happens at 2.5 s?", "They come close.", "question_states_event_time"),
        ("What happens 2.4 seconds into the clip?", "They come close.", "question_states_event_time"),
        ("What happens at 1.0 s?", "It drives on.", None),
        ("Who is to blame for the near-collision?", "The driver of the van.", None),  # it does not ask for the class
    ],
)
def test_questions_do_not_state_their_answers(setting: Setting, question: str, answer: str, expected: str | None):
    assert reason(setting, written(answer, question)) == expected


def test_a_question_that_asks_for_the_class_does_not_name_it(setting: Setting):
    assert (
        reason(setting, chosen("near_collision", question="What of this near-collision?")) == "question_states_answer"
    )
    assert reason(setting, chosen("near_collision", question="What of this clip?")) is None
    every = "Normal, near-collision or collision: which is it?"
    assert reason(setting, chosen("near_collision", question=every)) is None


def test_blame_is_asked_of_every_class(setting: Setting):
    """A filter by words such as collision would drop these of events, and keep them of all others."""
    for label in ("normal", "near_collision", "collision"):
        clip = CUT_IN.model_copy(update={"label": label})
        assert reason(setting, written("The other driver.", "Who causes the collision, if any?"), clip=clip) is None


def test_the_same_is_kept_once_whoever_wrote_it(setting: Setting):
    first = written("A van cuts in.")
    again = Annotation.create("a#0", "vqa", "what happens", "A  van cuts in", "rule/2")
    assert reason(setting, again) is None
    assert reason(setting, again, first) == "duplicate"
    assert reason(setting, written("A van cuts in.", "What else happens?"), first) is None
    assert reason(setting, written("A van cuts in.", task="caption"), first) is None
