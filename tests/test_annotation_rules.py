"""What rules say of clips: true, varied, and nothing that could be guessed from the question."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import cache

import pytest
from annotation_samples import annotations_of, scenes, shipped_rules
from records import make_clip
from run_samples import label_set, task_book

from autodrive.annotation.balance import MOST_ABOVE_CHANCE, fair_choice
from autodrive.annotation.captions import Captions
from autodrive.annotation.claims import Claim, claims_of, is_true, trace_contradicts
from autodrive.annotation.facts import facts_of
from autodrive.annotation.rules import CLOSED_QUESTIONS, ClassQuestion
from autodrive.annotation.topics import TOPICS, Topic
from autodrive.annotation.traces import CONCLUSIONS, ClassTraces, QuestionTraces
from autodrive.annotation.vqa import OpenQuestions
from autodrive.errors import InputError
from autodrive.schema import Annotation, Clip, DrivingEvent
from autodrive.seeding import generator_for

EVENT_WORDS = re.compile(
    r"collision|collide|crash|contact|hit|struck|strike|blame|fault|swerve|closest|\b(?:van|truck|pedestrian)\b|touch",
    re.I,
)


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return scenes(240)


@pytest.fixture(scope="module")
def said(clips: list[Clip]) -> dict[str, list[Annotation]]:
    return annotations_of(clips)


@pytest.fixture(scope="module")
def by_id(clips: list[Clip]) -> dict[str, Clip]:
    return {clip.id: clip for clip in clips}


def pattern_of(wording: str) -> str:
    """A pattern for all that a wording becomes."""
    return "(?i:" + re.sub(r"\\\{\w+\\\}", ".{7,30}", re.escape(wording)) + ")"


PATTERNS = {topic.key: re.compile("|".join(map(pattern_of, topic.questions))) for topic in TOPICS}


@cache
def topic_of(question: str) -> Topic:
    """The topic that a question is a wording of."""
    (topic,) = [topic for topic in TOPICS if PATTERNS[topic.key].fullmatch(question)]
    return topic


def test_there_is_much_to_say_and_it_is_said_in_many_ways(clips: list[Clip], said: dict[str, list[Annotation]]):
    per_clip = Counter(a.clip_id for annotations in said.values() for a in annotations)
    assert min(per_clip[clip.id] for clip in clips) >= 7
    assert {a.task for annotations in said.values() for a in annotations} == set(task_book().tasks)
    assert len({a.question for a in said["vqa"]}) >= 200
    assert len({a.answer for a in said["caption"]}) > 0.95 * len(said["caption"])
    assert {topic_of(a.question).aspect for a in said["vqa"]} == {topic.aspect for topic in TOPICS}
    assert {a.generator for name in ("caption", "vqa", "reasoning_mcq", "reasoning_vqa") for a in said[name]} == {
        "rule/2"
    }


def test_the_same_seed_says_the_same_and_another_seed_says_it_otherwise(
    clips: list[Clip], said: dict[str, list[Annotation]]
):
    few = clips[:30]
    assert annotations_of(few) == annotations_of(few)
    captions = [[a.answer for a in Captions("caption").annotations(few, label_set(), seed)] for seed in (0, 1)]
    assert captions[0] != captions[1]
    # What is said of a clip in free words does not depend on the other clips.
    assert annotations_of(few)["caption"] == [a for a in said["caption"] if a.clip_id in {clip.id for clip in few}]


def guessed(asked: Iterable[tuple[Annotation, str, str]], by_id: dict[str, Clip]) -> dict[str, tuple[float, float]]:
    """For each type of question: accuracy on test clips of whoever knows the most frequent answer of each wording on
    train clips and nothing else, and what chance would give.

    Args:
        asked: Annotations with the type of their question and the value of their answer.
    """
    train, test = defaultdict(Counter), defaultdict(list)
    values: dict[str, set[str]] = defaultdict(set)
    for annotation, kind, value in asked:
        values[kind].add(value)
        if by_id[annotation.clip_id].split == "train":
            train[kind, annotation.question][value] += 1
        else:
            test[kind].append((annotation.question, value))
    return {
        kind: (
            sum(
                train[kind, question].most_common(1)[0][0] == value
                for question, value in pairs
                if train[kind, question]
            )
            / len(pairs),
            1 / len(values[kind]),
        )
        for kind, pairs in test.items()
    }


def value_of(by_id: dict[str, Clip]) -> Callable[[Annotation], tuple[Annotation, str, str]]:
    def read(annotation: Annotation) -> tuple[Annotation, str, str]:
        topic = topic_of(annotation.question)
        return annotation, topic.key, str(topic.value(facts_of(by_id[annotation.clip_id])))

    return read


def test_nobody_guesses_answers_from_questions(said: dict[str, list[Annotation]]):
    big = scenes(600, seed=1)  # enough that a type of question has many test clips
    by_id = {clip.id: clip for clip in big}
    found = annotations_of(big)
    letters = [(a, a.task, "ABC"[a.options.index(a.answer)]) for name in ("mcq", "reasoning_mcq") for a in found[name]]
    classes = [(a, f"{a.task} class", a.answer) for name in ("mcq", "reasoning_mcq") for a in found[name]]
    closed = [(a, f"closed {a.question}", a.answer) for a in found["closed_qa"]]
    scores = guessed([*letters, *classes, *closed, *map(value_of(by_id), found["vqa"])], by_id)
    scores |= {f"reasoning {k}": v for k, v in guessed(map(value_of(by_id), found["reasoning_vqa"]), by_id).items()}
    assert len(scores) > len(TOPICS) + len(CLOSED_QUESTIONS) + len(CONCLUSIONS)
    too_easy = {kind: score for kind, (score, chance) in scores.items() if score > chance + 0.1}
    assert too_easy == {}


def test_without_balance_some_answers_could_be_guessed(clips: list[Clip], by_id: dict[str, Clip]):
    """What the test above would find if nobody balanced."""
    rules = shipped_rules()["closed_qa"]
    uneven = type(rules)("closed_qa", list(CLOSED_QUESTIONS)).annotations(clips, label_set(), 0)  # pyright: ignore
    scores = guessed(((a, a.question, a.answer) for a in uneven), by_id)
    assert any(score > chance + 0.1 for score, chance in scores.values())


@pytest.mark.parametrize(
    "counts", [{"a": 900, "b": 100}, {"a": 5, "b": 700, "c": 80}, {"a": 1, "b": 1}, {"a": 10, "b": 10, "c": 9}]
)
def test_a_fair_choice_keeps_as_many_as_it_can(counts: dict[str, int]):
    answers = [name for name, count in counts.items() for _ in range(count)]
    chosen = fair_choice(answers, generator_for(0, "test"))
    left = Counter(answers[index] for index in chosen)
    ranks = {name: sorted(asked.rank for asked in chosen.values() if asked.answer == name) for name in counts}
    assert all(found == list(range(left[name])) for name, found in ranks.items())
    share = 1 / len(counts) + MOST_ABOVE_CHANCE
    most = max(left.values())
    assert most <= max(1, share * sum(left.values()))
    more = {name: min(count, most + 1) for name, count in counts.items()}
    assert most == max(counts.values()) or most + 1 > share * sum(more.values())
    assert all(left[name] == min(count, most) for name, count in counts.items())
    assert fair_choice(["a"] * 9, generator_for(0, "test")) == {}


def test_nothing_of_an_event_is_said_of_windows_that_do_not_hold_it(clips: list[Clip]):
    """As if an adapter had copied the facts of a recording to all its windows."""
    later = [
        clip.model_copy(update={"start_s": 4.0, "end_s": 8.0, "label": "normal", "id": f"{clip.id}b"}) for clip in clips
    ]
    found = annotations_of(later)
    assert found["reasoning_mcq"] == found["reasoning_vqa"] == []
    assert len(found["caption"]) >= len(later)
    for annotation in found["caption"]:
        assert not EVENT_WORDS.search(annotation.answer), annotation.answer
    about_event = {t.key for t in TOPICS} - {
        "weather",
        "light",
        "conditions",
        "reduced_view",
        "manoeuvre",
        "num_manoeuvres",
    }
    assert not {topic_of(a.question).key for a in found["vqa"]} & about_event
    assert {a.answer for a in found["closed_qa"]} <= {"clear", "rain", "fog", "day", "dusk", "night"}
    assert {a.answer for a in found["mcq"]} == {"normal"}


def test_what_is_not_known_is_left_out_and_never_invented():
    nothing = make_clip(label=None, event_time_s=None, metadata={})
    assert all(annotations == [] for annotations in annotations_of([nothing]).values())
    odd = make_clip(
        metadata={"weather": "ZEBRA-42", "light": 3, "side": "below", "other_road_user": "tram", "blame": None}
    )
    texts = [a.question + a.answer for found in annotations_of([odd] * 1).values() for a in found]
    assert texts
    assert not re.search(r"ZEBRA|tram|below|rain|clear|day|left|right|fault|blame", " ".join(texts))
    known = make_clip(metadata={"weather": "rain"}, label="normal", event_time_s=None)
    (text,) = [a.answer for a in Captions("caption").annotations([known], label_set(), 0)]
    assert "rain" in text


def test_a_clip_is_described_as_often_as_may_be_asked(clips: list[Clip]):
    """Each description draws its words: twenty of a clip take several hundred draws."""
    said = Counter(a.clip_id for a in Captions("caption", per_clip=20).annotations(clips, label_set(), 0))
    assert set(said) == {clip.id for clip in clips}
    assert max(said.values()) == 20


@pytest.mark.parametrize(("gap_m", "value"), [(0.94, "close"), (0.97, "near"), (2.94, "near"), (2.97, "far")])
def test_a_distance_is_called_as_it_is_written(gap_m: float, value: str):
    """0.97 m is written as 1.0 m, which is not less than a metre."""
    facts = facts_of(CUT_IN.model_copy(update={"metadata": {**CUT_IN.metadata, "min_gap_m": gap_m}}))
    (topic,) = [topic for topic in TOPICS if topic.key == "gap"]
    assert topic.value(facts) == value


def test_a_blow_from_behind_is_not_from_the_road_user_ahead():
    struck = {"ego_role": "struck", "other_role": "striking", "impact_side": "rear", "blame": "other", "min_gap_m": 0.0}
    facts = {"scenario": "pedestrian", "other_road_user": "pedestrian", "side": "left", "hazard_onset_s": 1.0}
    clip = make_clip(metadata={**facts, **struck}, alert_time_s=1.4)
    texts = [a.answer for seed in range(30) for a in Captions("caption").annotations([clip], label_set(), seed)]
    (trace,) = {
        a.think
        for a in ClassTraces("x", ClassQuestion("x")).annotations([clip, scenes(1)[0]], label_set(), 0)
        if a.clip_id == clip.id
    }
    for text in (*texts, str(trace)):
        assert not re.search(r"(?:pedestrian|it) (?:hits|strikes|runs)|(?:hits|strikes) the pedestrian", text), text
        assert re.search(r"behind|rear", text), text


def test_who_strikes_is_not_said_where_nobody_knows():
    """A source may know which side is touched and not by whom."""
    facts = {"scenario": "cut_in", "other_road_user": "van", "side": "left", "hazard_onset_s": 1.0}
    clip = make_clip(metadata={**facts, "impact_side": "front"}, alert_time_s=1.4)
    texts = [a.answer for seed in range(30) for a in Captions("caption").annotations([clip], label_set(), seed)]
    traces = ClassTraces("x", ClassQuestion("x")).annotations([clip, scenes(1)[0]], label_set(), 0)
    (trace,) = [str(a.think) for a in traces if a.clip_id == clip.id]
    for text in (*texts, trace):
        assert not re.search(r"\b(?:hits?|strikes?|runs into)\b", text), text
        assert "front" in text
    assert trace_contradicts(claims_of(trace), facts_of(clip)) is None
    assert trace_contradicts(claims_of(trace.replace("front", "rear")), facts_of(clip)) is not None


def test_answers_follow_from_facts(said: dict[str, list[Annotation]], by_id: dict[str, Clip]):
    """The value of an answer is read off the clip again, and its wording is one of that value."""
    for annotation in (*said["vqa"], *said["reasoning_vqa"]):
        topic, facts = topic_of(annotation.question), facts_of(by_id[annotation.clip_id])
        value = topic.value(facts)
        assert value is not None
        patterns = (re.sub(r"\\\{\w+\\\}", ".+", re.escape(wording)) for wording in topic.wordings(value))
        assert any(re.fullmatch(f"(?i:{pattern})", annotation.answer) for pattern in patterns), annotation
        if topic.key in ("moment", "onset", "warning", "braking_start", "braking_length", "speed", "road_user"):
            assert value.lower() in annotation.answer.lower()


def test_traces_name_facts_with_their_times_and_are_true(said: dict[str, list[Annotation]], by_id: dict[str, Clip]):
    for annotation in (*said["reasoning_mcq"], *said["reasoning_vqa"]):
        claims = claims_of(str(annotation.think))
        assert sum(claim.start_s is not None for claim in claims) >= 2, annotation.think
        assert trace_contradicts(claims, facts_of(by_id[annotation.clip_id])) is None, annotation.think
        assert all(claim.kind != "unknown" for claim in claims), annotation.think
    concluded = {
        (a.answer, claim.outcome) for a in said["reasoning_mcq"] for claim in claims_of(str(a.think)) if claim.outcome
    }
    assert concluded == {(name, name) for name in label_set().names}


def test_traces_do_not_fit_other_clips_not_even_of_their_class(
    said: dict[str, list[Annotation]], by_id: dict[str, Clip]
):
    facts = {id_: facts_of(clip) for id_, clip in by_id.items()}
    of_class = defaultdict(list)
    for clip in by_id.values():
        of_class[clip.label].append(clip)
    rng = generator_for(0, "others")
    fits, tried = 0, 0
    for annotation in (*said["reasoning_mcq"], *said["reasoning_vqa"]):
        clip = by_id[annotation.clip_id]
        alike = [other for other in of_class[clip.label] if other.source_video_id != clip.source_video_id]
        claims = claims_of(str(annotation.think))
        for index in rng.integers(len(alike), size=3):
            fits += trace_contradicts(claims, facts[alike[index].id]) is None
            tried += 1
    assert tried > 2000
    assert fits / tried < 0.005  # by chance, within the tolerance of all times that are named
    for annotation in said["reasoning_mcq"]:  # of other classes none, though siblings share much
        siblings = [c for c in by_id.values() if c.source_video_id == by_id[annotation.clip_id].source_video_id]
        for other in siblings:
            if other.id != annotation.clip_id:
                assert trace_contradicts(claims_of(str(annotation.think)), facts[other.id]) is not None


BRAKES = DrivingEvent(kind="harsh_braking", start_s=1.2, end_s=2.4, severity=5.0)
CUT_IN = make_clip(
    label="near_collision",
    alert_time_s=1.2,
    metadata={"other_road_user": "van", "side": "right", "hazard_onset_s": 0.5, "min_gap_m": 0.6},
    driving_events=(BRAKES,),
)


@pytest.mark.parametrize(
    ("sentence", "true"),
    [
        ("At 0.5 s a van from the right begins to move over.", True),
        ("At 0.5 s a van from the left begins to move over.", False),
        ("At 0.5 s a truck begins to move over.", False),
        ("At 0.9 s a van from the right begins to move over.", False),
        ("From 1.2 s to 2.4 s the ego vehicle brakes hard.", True),
        ("From 1.2 s to 2.9 s the ego vehicle brakes hard.", False),
        ("At 1.9 seconds the ego vehicle brakes hard.", True),
        ("At 2.8 s it brakes.", False),
        ("From 1.2 s to 2.4 s it accelerates hard.", False),
        ("At 2.5 s the van is closest, 0.6 m away.", True),
        ("At 2.5 s the van is closest, 1.6 m away.", False),
        ("At 2.5 s the van hits the ego vehicle.", False),
        ("The driver could see it coming at 1.2 s.", True),
        ("Around 2.5 s there is a bird.", True),
        ("Around 3.4 s there is a bird.", False),
        ("So this is a near-collision.", True),
        ("So this is a collision.", False),
        ("There are 1.3 s to react, with 12 m to spare.", True),
    ],
)
def test_claims_are_read_from_prose(sentence: str, true: bool):
    facts = facts_of(CUT_IN)
    assert (trace_contradicts(claims_of(sentence), facts) is None) == true


def test_a_claim_within_the_tolerance_is_true():
    assert is_true(Claim("onset", 0.6), facts_of(CUT_IN))
    assert not is_true(Claim("onset", 0.7), facts_of(CUT_IN))
    assert is_true(Claim("onset", 0.7), facts_of(CUT_IN), tolerance_s=0.3)


def test_traces_are_asked_in_the_words_and_options_of_the_plain_question(clips: list[Clip]):
    asks = ClassQuestion("mcq", option_order="per_run")
    plain = {a.clip_id: (a.question, a.options) for a in asks.annotations(clips, label_set(), 3)}
    traced = list(ClassTraces("reasoning_mcq", asks).annotations(clips, label_set(), 3))
    assert traced
    assert all((a.question, a.options) == plain[a.clip_id] for a in traced)


def test_unknown_topics_of_reasoning_are_refused():
    with pytest.raises(InputError, match="no reasoning about weather; choose from outcome"):
        QuestionTraces("x", topics=["weather"])


def test_topics_are_drawn_before_answers_are_balanced(clips: list[Clip], by_id: dict[str, Clip]):
    few = list(OpenQuestions("vqa", topics_per_clip=3).annotations(clips, label_set(), 0))
    assert max(Counter(a.clip_id for a in few).values()) <= 3
    values = Counter(value for _, kind, value in map(value_of(by_id), few) if kind == "contact")
    assert max(values.values()) <= (1 / 2 + MOST_ABOVE_CHANCE) * sum(values.values()) + 1
