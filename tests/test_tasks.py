import ast
import dataclasses
import re
from pathlib import Path
from typing import cast, get_args

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from records import make_clip
from run_samples import prediction, reader, task_book
from running import composed

from autodrive.annotation.rules import CLOSED_QUESTIONS, ClassQuestion, ClosedQuestions
from autodrive.errors import InputError
from autodrive.labels import LabelSet
from autodrive.schema import Annotation, Clip, Mode
from autodrive.tasks.choice import ChoiceTask
from autodrive.tasks.scorecard import scorecard
from autodrive.tasks.task_book import TaskBook


@pytest.fixture
def event3(repository: Path) -> LabelSet:
    return instantiate(OmegaConf.load(repository / "conf/labels/event3.yaml"))


@pytest.fixture
def event2(repository: Path) -> LabelSet:
    return instantiate(OmegaConf.load(repository / "conf/labels/event2.yaml"))


@pytest.fixture(scope="module")
def book() -> TaskBook:
    return task_book()


def asked(clip: Clip, labels: LabelSet, seed: int = 0, num_orders: int = 1) -> list[Annotation]:
    return list(ClassQuestion("mcq", num_orders).annotations([clip], labels, seed))


def closed(clip: Clip, labels: LabelSet, *keys: str) -> list[Annotation]:
    return list(ClosedQuestions("closed_qa", keys or tuple(CLOSED_QUESTIONS)).annotations([clip], labels, seed=0))


CAPTION = Annotation.create("a#0", "caption", "Describe the clip.", "The car ahead stops.", "people")


def test_event2_merges_and_event3_refuses_what_it_cannot_express(event2: LabelSet, event3: LabelSet):
    assert [event2.class_of(s) for s in ("normal", "near_collision", "collision", "event")] == ["normal"] + [
        "event"
    ] * 3
    assert event3.class_of("event") is None
    assert event3.anomalous == {"near_collision", "collision"}


def test_a_new_class_is_configuration_only(repository: Path, book: TaskBook):
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
    (mcq,) = asked(make_clip(label="sudden_stop"), labels)
    assert "Sudden stop" in book["mcq"].render(mcq.without_answer(), "direct", labels).text
    assert book["mcq"].target(mcq, labels) == "ABCD"[mcq.options.index("sudden_stop")]


def test_letter_follows_the_option_order(event3: LabelSet, book: TaskBook):
    annotations = asked(make_clip(), event3, seed=3, num_orders=6)
    assert len({a.options for a in annotations}) == 6
    for annotation in annotations:
        prompt = book["mcq"].render(annotation.without_answer(), "direct", event3)
        letter = book["mcq"].target(annotation, event3)
        assert f"{letter}. {event3['collision'].option}" in prompt.text.splitlines()


def test_first_option_order_does_not_depend_on_how_many_are_asked(event3: LabelSet):
    one = asked(make_clip(), event3, seed=1, num_orders=1)
    assert asked(make_clip(), event3, seed=1, num_orders=4)[0] == one[0]


def test_option_orders_are_seeded_and_balanced(event3: LabelSet):
    orders = [asked(make_clip(id=f"{i}#0"), event3)[0].options for i in range(600)]
    assert orders == [asked(make_clip(id=f"{i}#0"), event3)[0].options for i in range(600)]
    first = [order[0] for order in orders]
    assert all(150 < first.count(name) < 250 for name in event3.names)


def test_one_option_order_per_run_depends_on_the_seed_only(event3: LabelSet):
    source = ClassQuestion("mcq", num_orders=6, option_order="per_run")
    annotations = list(source.annotations([make_clip(id=f"{i}#0") for i in range(9)], event3, seed=0))
    assert len(annotations) == 9
    assert len({a.options for a in annotations}) == 1
    assert len({source.questions("x", event3, seed, 1)[0].options for seed in range(30)}) == 6


def test_unknown_closed_question_is_refused():
    with pytest.raises(InputError, match="wether"):
        ClosedQuestions("closed_qa", ["wether"])


def test_reasoning_target_has_trace_then_answer(event3: LabelSet, book: TaskBook):
    (mcq,) = asked(make_clip(), event3)
    letter = (
        book["mcq"].render(mcq.without_answer(), "reasoning", event3).option_targets[mcq.options.index("collision")]
    )
    target = book["mcq"].target(mcq.model_copy(update={"think": "the gap closes"}), event3)
    assert target == f"<think>the gap closes</think>\n\n<answer>{letter}</answer>"


def test_missing_words_and_tasks_are_named(event3: LabelSet, book: TaskBook):
    with pytest.raises(InputError, match=r"prompts\.tasks\.caption\.templates: none for mode 'reasoning'"):
        book["caption"].render(CAPTION.without_answer(), "reasoning", event3)
    with pytest.raises(InputError, match="no task 'instruction'"):
        book["instruction"]
    with pytest.raises(InputError, match=r"prompts\.headline=mqc: choose from the tasks"):
        TaskBook("", book.tasks, "mqc")
    with pytest.raises(InputError, match="max_new_tokens: name exactly the modes"):
        ChoiceTask("x", {"direct": "{question}"}, {"direct": 1, "reasoning": 2})
    with pytest.raises(InputError, match=r"templates\.loud: no such mode"):
        ChoiceTask("x", {"loud": "{question}"}, {"loud": 1})  # type: ignore[dict-item]


def test_prompt_hash_follows_the_wording(book: TaskBook):
    changed = ChoiceTask("mcq", {"direct": "{question} x", "reasoning": "{question} y"}, {"direct": 1, "reasoning": 1})
    assert TaskBook(book.system, {**book.tasks, "mcq": changed}, "mcq").hash != book.hash
    assert TaskBook(book.system, book.tasks, "mcq").hash == book.hash


PUBLISHED_OPTIONS = "(A) {}\n(B) {}\n(C) {}"
PUBLISHED_FORMS = {  # of a reply with a trace, in the words of the publisher's files
    "cosmos_reason1": "<think>\n{}\n</think>\n\n<answer>\n{}\n</answer>",
    "cosmos_reason2": "<think>\n{}\n</think>\n\n{}",
}


@pytest.mark.parametrize("preset", PUBLISHED_FORMS)
def test_published_prompts_are_shown_and_their_replies_read_back(preset: str, event3: LabelSet):
    config = composed("train", [f"prompts={preset}"])
    book, usual = (instantiate(composed("train", given).prompts) for given in ([f"prompts={preset}"], []))
    (mcq,) = asked(make_clip(label="collision"), event3)
    question, texts = mcq.without_answer(), [event3.shown[name].option for name in mcq.options]
    for mode in ("direct", "reasoning"):
        prompt = book["mcq"].render(question, mode, event3)
        assert f"{question.question}\n{PUBLISHED_OPTIONS.format(*texts)}\n" in prompt.text
        assert prompt.text != usual["mcq"].render(question, mode, event3).text
    assert book["reasoning_mcq"].render(question, "reasoning", event3) == prompt
    right = mcq.options.index("collision")
    letter = "ABC"[right]
    for answer in (letter, f"({letter})", f"({letter}) {texts[right]}", f"{letter}. {texts[right]}"):
        assert book["mcq"].read(answer, question, "direct", event3).value == "collision"
        reply = PUBLISHED_FORMS[preset].format("It brakes too late.", answer)
        for task in ("mcq", "reasoning_mcq"):
            assert book[task].read(reply, question, "reasoning", event3).value == "collision"
    taught = Annotation.create(
        mcq.clip_id, "reasoning_mcq", mcq.question, "collision", "people", mcq.options, think="x"
    )
    assert book["reasoning_mcq"].why_not_teachable(taught, event3) is None
    assert config.prompts.tasks.mcq.max_new_tokens.reasoning == 4096


def test_how_letters_are_shown_is_part_of_the_wording(book: TaskBook):
    shown = dataclasses.replace(cast(ChoiceTask, book["mcq"]), letter_style="(A)")
    assert TaskBook(book.system, {**book.tasks, "mcq": shown}, "mcq").hash != book.hash


POISON = "POISON_THE_ANSWER"


def test_answers_and_metadata_never_reach_prompts(event3: LabelSet, book: TaskBook):
    metadata = {"weather": "rain", "blame": POISON, "expert_says": POISON, "ego_brakes": True}
    clip = make_clip(metadata=metadata)
    free = [CAPTION.model_copy(update={"task": task, "answer": POISON}) for task in ("caption", "vqa", "reasoning_vqa")]
    chosen = [a.model_copy(update={"task": task}) for a in asked(clip, event3) for task in ("mcq", "reasoning_mcq")]
    annotations = [*chosen, *closed(clip, event3), *free]
    assert {a.task for a in annotations} == set(book.tasks)
    poisoned = [a.model_copy(update={"think": POISON, "review": POISON}) for a in annotations]
    for annotation in poisoned:
        for mode in book[annotation.task].modes:
            assert POISON not in book[annotation.task].render(annotation.without_answer(), mode, event3).text


def test_what_is_taught_is_read_back(event3: LabelSet, event2: LabelSet, book: TaskBook):
    clip = make_clip(metadata={"weather": "rain", "light": "dusk", "side": "left", "ego_brakes": True})
    for labels in (event3, event2):
        annotations = [*asked(clip, labels, num_orders=6), *closed(clip, labels), CAPTION]
        thought = [a.model_copy(update={"think": "The gap closes."}) for a in annotations if a.options]
        for a in (*annotations, *thought):
            task = book[a.task]
            assert task.why_not_teachable(a, labels) is None
            assert task.read(task.target(a, labels), a.without_answer(), a.mode, labels).value == a.answer


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"think": "so <answer>A</answer>"}, "target_unreadable: repeated_tags"),
        ({"think": "stray </think> tag"}, "target_unreadable: repeated_tags"),
        ({"options": ("collision", "sudden_stop")}, "option_not_in_label_set"),
        ({"task": "caption", "options": (), "think": "because"}, "task_has_no_reasoning_mode"),
    ],
)
def test_what_could_not_be_read_back_is_not_taught(changes: dict, reason: str, event3: LabelSet, book: TaskBook):
    annotation = asked(make_clip(), event3)[0].model_copy(update=changes)
    assert book[annotation.task].why_not_teachable(annotation, event3) == reason


def test_a_caption_is_read_as_it_is_and_scored_with_its_closest_reference(event3: LabelSet, book: TaskBook):
    for reply in ("", "A", "<think>", "Two cars touch."):
        parsed = book["caption"].read(reply, CAPTION.without_answer(), "direct", event3)
        assert (parsed.value, parsed.failure) == (reply, None)
    mcq = [prediction(clip, None) for clip in range(3)]
    said = [
        prediction(
            clip,
            reply,
            task="caption",
            options=(),
            answer="A bus stops.",
            other_answers=("The car ahead stops.",),
            reply=reply,
        )
        for clip, reply in enumerate(["The car ahead stops.", "A bus stops.", "zebra"])
    ]
    metrics = scorecard([*mcq, *said], book, event3)
    assert metrics["test/caption_rouge_l"] == pytest.approx(2 / 3)
    assert metrics["test/caption_rouge_l_ci_low"] <= 2 / 3 <= metrics["test/caption_rouge_l_ci_high"]
    assert metrics["test/caption_n"] == 3
    assert metrics["test/parse_failure_count"] == 3  # the choices', none of the captions
    assert scorecard(mcq, book, event3).items() <= metrics.items()


def test_a_headline_is_a_property_of_the_configuration(event3: LabelSet, book: TaskBook):
    other = TaskBook(book.system, book.tasks, "closed_qa")
    metrics = scorecard([prediction(0, "normal")], other, event3)
    assert "test/mcq_accuracy" in metrics
    assert "test/accuracy" not in metrics


def test_an_open_answer_after_a_trace_is_what_stands_in_its_block(event3: LabelSet, book: TaskBook):
    why = Annotation.create(
        "a#0", "reasoning_vqa", "Why?", "The van cut in.", "people", think="It comes from the left."
    )
    task = book["reasoning_vqa"]
    assert task.modes == ("reasoning",)
    target = task.target(why, event3)
    assert task.read(target, why.without_answer(), "reasoning", event3).value == why.answer
    assert task.why_not_teachable(why, event3) is None
    for broken, reason in (("No tags.", "missing_tags"), ("<think>so</think><answer> </answer>", "empty")):
        assert task.read(broken, why.without_answer(), "reasoning", event3).failure == reason
    told = why.model_copy(update={"think": "so <answer>that</answer>"})
    assert task.why_not_teachable(told, event3) == "target_unreadable: repeated_tags"
    said = [
        prediction(clip, parsed, task="reasoning_vqa", options=(), answer="B C", mode="reasoning", reply=f"x{parsed}x")
        for clip, parsed in enumerate(["B C", None])
    ]
    assert task.values(said, event3)["rouge_l"].tolist() == [1, 0]


def test_a_choice_with_a_trace_is_asked_in_the_words_of_the_choice(event3: LabelSet, book: TaskBook):
    (plain,) = asked(make_clip(), event3)
    traced = plain.model_copy(update={"task": "reasoning_mcq", "think": "The gap closes."})
    assert book["reasoning_mcq"].modes == ("reasoning",)
    shown = [book[a.task].render(a.without_answer(), "reasoning", event3).text for a in (plain, traced)]
    assert shown[0] == shown[1]
    assert book["reasoning_mcq"].why_not_teachable(traced, event3) is None
    assert book["reasoning_mcq"].why_not_teachable(traced.model_copy(update={"think": None}), event3) == (
        "task_has_no_direct_mode"
    )


def test_token_limits_belong_to_tasks_and_modes(book: TaskBook):
    assert "max_new_tokens" not in composed("train").evaluation
    for task in book.tasks.values():
        assert set(task.max_new_tokens) == set(task.modes) <= set(get_args(Mode))


def test_no_line_outside_the_tasks_names_one(repository: Path, book: TaskBook):
    names = re.compile(rf"(?<![a-z_])({'|'.join(book.tasks)})(?![a-z_])")
    files = [repository / "train.py", repository / "eval.py", *(repository / "autodrive").rglob("*.py")]
    naming = []
    for path in files:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        prose = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
        naming += [
            f"{path.relative_to(repository)}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and names.search(node.value)
            if node not in prose and "tasks" not in path.parts
        ]
    assert naming == []


def test_no_module_outside_the_tasks_imports_one(repository: Path, book: TaskBook):
    modules = {type(task).__module__ for task in book.tasks.values()}
    files = [repository / "train.py", repository / "eval.py", *(repository / "autodrive").rglob("*.py")]
    importing = []
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Import | ast.ImportFrom) or "tasks" in path.parts:
                continue
            names = {alias.name for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                names = {f"{node.module}.{name}" for name in names} | {str(node.module)}
            if names & modules:
                importing.append(f"{path.relative_to(repository)}:{node.lineno}")
    assert importing == []


def test_the_value_of_a_prediction_is_what_its_score_is_the_mean_of(event3: LabelSet, book: TaskBook):
    replies = [*reader(0.6, 0, 60), *(prediction(c, None, answer="normal") for c in range(60, 63))]
    for name, task in book.tasks.items():
        asked = [p.model_copy(update={"task": name, "other_answers": ("B",)}) for p in replies]
        scores = task.score(asked, event3, np.random.default_rng(0))
        values = task.values(asked, event3)
        assert values
        for score, values_N in values.items():
            assert len(values_N) == len(asked)
            assert 0 < scores[score] < 1
            assert values_N.mean() == pytest.approx(scores[score])


def test_hazards_outside_the_window_are_not_asked_about(event3: LabelSet):
    hazard = {"side": "left", "ego_brakes": True, "other_road_user": "car", "hazard_time_s": 2.0}
    inside = closed(make_clip(metadata=hazard), event3, "side", "ego_brakes", "other_road_user")
    assert [a.answer for a in inside] == ["left", "yes", "car"]
    outside = make_clip(start_s=4.0, end_s=8.0, metadata=hazard)
    assert closed(outside, event3, "side", "ego_brakes", "other_road_user") == []


def test_closed_questions_are_left_out_where_nothing_is_known(event3: LabelSet):
    assert closed(make_clip(metadata={}), event3, "weather", "light", "ego_brakes") == []
    unknown = make_clip(metadata={"weather": "hail"})
    assert closed(unknown, event3, "weather") == []


@pytest.mark.parametrize(("event_time_s", "third"), [(0.1, "beginning"), (2.0, "middle"), (3.99, "end")])
def test_when_is_read_off_the_event_time(event_time_s: float, third: str, event3: LabelSet):
    (when,) = closed(make_clip(event_time_s=event_time_s), event3, "when")
    assert when.answer == third


def test_when_is_never_for_normal_and_unknown_without_a_time(event3: LabelSet):
    (when,) = closed(make_clip(label="normal", event_time_s=None), event3, "when")
    assert when.answer == "never"
    assert closed(make_clip(event_time_s=None), event3, "when") == []


def test_label_set_needs_two_classes():
    one = {"name": "a", "option": "A", "sources": ["a"], "anomalous": False, "short": "a"}
    with pytest.raises(InputError, match="two classes"):
        LabelSet("broken", [one, one])
