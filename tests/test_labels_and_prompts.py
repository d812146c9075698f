from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from records import make_clip

from autodrive.annotation.rules import closed_annotations, mcq_annotations, mcq_questions
from autodrive.errors import InputError
from autodrive.labels import LabelSet
from autodrive.prompts import PromptBook, render_target
from autodrive.schema import Annotation, Clip, Question


@pytest.fixture
def event3(repository: Path) -> LabelSet:
    return instantiate(OmegaConf.load(repository / "conf/labels/event3.yaml"))


@pytest.fixture
def event2(repository: Path) -> LabelSet:
    return instantiate(OmegaConf.load(repository / "conf/labels/event2.yaml"))


@pytest.fixture
def prompts(repository: Path) -> PromptBook:
    return instantiate(OmegaConf.load(repository / "conf/prompts/autodrive.yaml"))


def asked(clip: Clip, label: str, labels: LabelSet, seed: int = 0, num_orders: int = 1) -> list[Annotation]:
    return mcq_annotations(clip, label, mcq_questions(clip.id, labels, seed, num_orders))


def test_event2_merges_and_event3_refuses_what_it_cannot_express(event2: LabelSet, event3: LabelSet):
    assert [event2.class_of(s) for s in ("normal", "near_collision", "collision", "event")] == ["normal"] + [
        "event"
    ] * 3
    assert event3.class_of("event") is None
    assert event3.anomalous == {"near_collision", "collision"}


def test_a_new_class_is_configuration_only(repository: Path, prompts: PromptBook):
    config = OmegaConf.load(repository / "conf/labels/event3.yaml")
    extra = {
        "name": "sudden_stop",
        "option": "Sudden stop",
        "sources": ["sudden_stop"],
        "anomalous": True,
        "short": "stop",
    }
    config.classes.append(extra)
    labels = instantiate(config)
    (mcq,) = asked(make_clip(label="sudden_stop"), "sudden_stop", labels)
    prompt = prompts.render(mcq.without_answer(), "direct", labels)
    assert "Sudden stop" in prompt.text
    assert render_target(mcq, prompt, "direct") == "ABCD"[mcq.options.index("sudden_stop")]


def test_letter_follows_the_option_order(event3: LabelSet, prompts: PromptBook):
    annotations = asked(make_clip(), "collision", event3, seed=3, num_orders=6)
    assert len({a.options for a in annotations}) == 6
    for annotation in annotations:
        prompt = prompts.render(annotation.without_answer(), "direct", event3)
        letter = render_target(annotation, prompt, "direct")
        assert f"{letter}. {event3['collision'].option}" in prompt.text.splitlines()


def test_first_option_order_does_not_depend_on_how_many_are_asked(event3: LabelSet):
    one = asked(make_clip(), "normal", event3, seed=1, num_orders=1)
    assert asked(make_clip(), "normal", event3, seed=1, num_orders=4)[0] == one[0]


def test_option_orders_are_seeded_and_balanced(event3: LabelSet):
    orders = [asked(make_clip(id=f"{i}#0"), "normal", event3)[0].options for i in range(600)]
    assert orders == [asked(make_clip(id=f"{i}#0"), "normal", event3)[0].options for i in range(600)]
    first = [order[0] for order in orders]
    assert all(150 < first.count(name) < 250 for name in event3.names)


def test_reasoning_target_has_trace_then_answer(event3: LabelSet, prompts: PromptBook):
    (mcq,) = asked(make_clip(), "collision", event3)
    prompt = prompts.render(mcq.without_answer(), "reasoning", event3)
    with pytest.raises(ValueError, match="no think trace"):
        render_target(mcq, prompt, "reasoning")
    target = render_target(mcq.model_copy(update={"think": "the gap closes"}), prompt, "reasoning")
    letter = prompt.option_targets[mcq.options.index("collision")]
    assert target == f"<think>the gap closes</think>\n\n<answer>{letter}</answer>"


def test_missing_template_is_named(event3: LabelSet, prompts: PromptBook):
    with pytest.raises(InputError, match="'caption'"):
        prompts.render(Question(task="caption", question="?"), "direct", event3)


def test_prompt_hash_follows_the_wording(prompts: PromptBook):
    changed = PromptBook(prompts.system, prompts.templates | {"mcq": {"direct": "x", "reasoning": "y"}})
    assert changed.hash != prompts.hash
    assert PromptBook(prompts.system, prompts.templates).hash == prompts.hash


ALL_KEYS = ("weather", "light", "other_road_user", "side", "ego_brakes", "when")
POISON = "POISON_THE_ANSWER"


def test_answers_and_metadata_never_reach_prompts(event3: LabelSet, prompts: PromptBook):
    metadata = {"weather": "rain", "blame": POISON, "expert_says": POISON, "ego_brakes": True}
    clip = make_clip(metadata=metadata)
    annotations = asked(clip, "collision", event3) + closed_annotations(clip, "collision", ALL_KEYS)
    poisoned = [a.model_copy(update={"think": POISON, "review": POISON}) for a in annotations]
    for annotation in poisoned:
        for mode in ("direct", "reasoning"):
            assert POISON not in prompts.render(annotation.without_answer(), mode, event3).text  # type: ignore[arg-type]


def test_hazards_outside_the_window_are_not_asked_about():
    hazard = {"side": "left", "ego_brakes": True, "other_road_user": "car", "hazard_time_s": 2.0}
    inside = closed_annotations(make_clip(metadata=hazard), "normal", ("side", "ego_brakes", "other_road_user"))
    assert [a.answer for a in inside] == ["left", "yes", "car"]
    outside = make_clip(start_s=4.0, end_s=8.0, metadata=hazard)
    assert closed_annotations(outside, "normal", ("side", "ego_brakes", "other_road_user")) == []


def test_closed_questions_are_left_out_where_nothing_is_known(event3: LabelSet):
    assert closed_annotations(make_clip(metadata={}), "normal", ("weather", "light", "ego_brakes")) == []
    unknown = make_clip(metadata={"weather": "hail"})
    assert closed_annotations(unknown, "normal", ("weather",)) == []


@pytest.mark.parametrize(("event_time_s", "third"), [(0.1, "beginning"), (2.0, "middle"), (3.99, "end")])
def test_when_is_read_off_the_event_time(event_time_s: float, third: str):
    (when,) = closed_annotations(make_clip(event_time_s=event_time_s), "collision", ("when",))
    assert when.answer == third


def test_when_is_never_for_normal_and_unknown_without_a_time():
    (when,) = closed_annotations(make_clip(label="normal", event_time_s=None), "normal", ("when",))
    assert when.answer == "never"
    assert closed_annotations(make_clip(event_time_s=None), "collision", ("when",)) == []


def test_label_set_needs_two_classes():
    one = {"name": "a", "option": "A", "sources": ["a"], "anomalous": False, "short": "a"}
    with pytest.raises(InputError, match="two classes"):
        LabelSet("broken", [one, one])
