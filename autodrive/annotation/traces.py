"""Traces: what is known of a clip with its times, in order, and what follows from it.

A trace names at least two facts with their times. Its last sentence says what follows from them, and nothing else does:
where too little is known for that there is no trace. `claims.py` reads the sentences back.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Le

from autodrive.annotation.balance import ask_fairly
from autodrive.annotation.captions import GENERATOR
from autodrive.annotation.claims import Kind
from autodrive.annotation.facts import WindowFacts, facts_of
from autodrive.annotation.phrases import (
    BEGINS_TO,
    DRIVING,
    EGO,
    IMPACT_SIDES,
    ROAD_USERS,
    Draws,
    approach,
    capitalised,
    evasion,
    metres,
    seconds,
    touches,
)
from autodrive.annotation.rules import ClassQuestion
from autodrive.annotation.topics import TOPICS, Topic
from autodrive.annotation.vqa import fairly_drawn, worded, wordings_of
from autodrive.bounds import Count
from autodrive.errors import InputError
from autodrive.labels import LabelSet
from autodrive.schema import Annotation, Clip
from autodrive.seeding import generator_for

LEAST_FACTS, MOST_FACTS = 2, 3
DRIVING_KINDS: Mapping[str, Kind] = {
    "harsh_braking": "braking",
    "harsh_acceleration": "acceleration",
    "harsh_cornering": "cornering",
    "excess_speed_in_turn": "bend",
}


@dataclass(frozen=True)
class TimedFact:
    """A fact with its time, as a sentence.

    Attributes:
        kind: What it is about.
        time_s: When it is or begins, seconds from the clip's start.
        text: The sentence.
    """

    kind: Kind
    time_s: float
    text: str


@dataclass(frozen=True)
class Conclusion:
    """What follows, with `{ego}` for the ego, and from which kinds of facts; a trace holds those."""

    text: str
    needs: tuple[Kind, ...] = ()


@dataclass(frozen=True)
class ClassTraces:
    """Asks for the class of clips and reasons from facts to it.

    Clips are left out so that no class is much more frequent than others.

    Attributes:
        task: The task of the traces.
        asks: The question as it is asked without a trace; options come in the same order as there.
    """

    task: str
    asks: ClassQuestion

    def annotations(self, clips: Sequence[Clip], labels: LabelSet, seed: int) -> Iterator[Annotation]:
        """A trace about each clip of which enough is known."""
        traces = [_class_trace(facts_of(clip), Draws(seed, clip.id, self.task)) for clip in clips]
        classes = [labels.class_of(clip.label) if trace else None for clip, trace in zip(clips, traces, strict=True)]
        fair = ask_fairly(clips, classes, generator_for(seed, self.task))
        for clip, trace, asked in zip(clips, traces, fair, strict=True):
            if asked is not None:
                (question,) = self.asks.questions(clip.id, labels, seed, 1)
                folded = labels.classes_of(question.options)
                yield Annotation.create(
                    clip.id,
                    self.task,
                    question.question,
                    asked.answer,
                    GENERATOR,
                    question.options,
                    think=trace,
                    option_classes=folded,
                )


@dataclass(frozen=True)
class QuestionTraces:
    """Asks questions in free words whose answers follow from several facts, and reasons from these to the answer.

    Attributes:
        task: The task of the questions.
        topics_per_clip: Topics drawn for each clip; balancing then leaves some out, as in `OpenQuestions`.
        topics: Keys of the topics to ask about, which are those of `CONCLUSIONS`.
    """

    task: str
    topics_per_clip: Annotated[Count, Le(100)] = 3
    topics: Sequence[str] = field(default_factory=lambda: tuple(CONCLUSIONS))

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.topics) - set(CONCLUSIONS)):
            raise InputError(f"topics: no reasoning about {unknown[0]}; choose from {', '.join(CONCLUSIONS)}")

    def annotations(self, clips: Sequence[Clip], labels: LabelSet, seed: int) -> Iterator[Annotation]:
        """The questions that are asked, clip by clip."""
        topics = [topic for topic in TOPICS if topic.key in self.topics]
        known = [facts_of(clip) for clip in clips]
        draws = [Draws(seed, clip.id, self.task) for clip in clips]
        values = [self._values(facts, topics) for facts in known]
        wordings = wordings_of(topics, seed, self.task)
        asked = fairly_drawn(values, topics, clips, draws, self.topics_per_clip, (seed, self.task))
        for clip, facts, draw, found in zip(clips, known, draws, asked, strict=True):
            for topic in topics:
                conclusion = CONCLUSIONS[topic.key](facts, found[topic.key].answer) if topic.key in found else None
                if conclusion is not None:
                    wording = wordings[topic.key][found[topic.key].rank % len(wordings[topic.key])]
                    question, answer = worded(topic, found[topic.key].answer, facts, wording, draw)
                    think = trace_text(facts, conclusion, wording.ego, draw)
                    yield Annotation.create(clip.id, self.task, question, answer, GENERATOR, think=think)

    @staticmethod
    def _values(facts: WindowFacts, topics: Sequence[Topic]) -> dict[str, str]:
        """Answers by topic, of those that a trace can lead to."""
        kinds = {fact.kind for fact in timed_facts(facts, EGO[0])}
        values = {}
        for topic in topics:
            value = topic.value(facts)
            conclusion = None if value is None else CONCLUSIONS[topic.key](facts, value)
            if value is not None and conclusion and len(kinds) >= LEAST_FACTS and kinds.issuperset(conclusion.needs):
                values[topic.key] = value
        return values


def trace_text(facts: WindowFacts, conclusion: Conclusion, ego: str, draws: Draws) -> str | None:
    """Facts in the order of their times, then what follows; None if it does not follow from at least two of them."""
    found = timed_facts(facts, ego)
    needed = [fact for fact in found if fact.kind in conclusion.needs]
    if len(found) < LEAST_FACTS or len({fact.kind for fact in needed}) < len(conclusion.needs):
        return None
    others = [fact for fact in found if fact not in needed]
    room = MOST_FACTS - len(needed)
    chosen = [*needed, *draws.order(others, room)]
    in_order = sorted(chosen, key=lambda fact: fact.time_s)
    return " ".join([*(fact.text for fact in in_order), capitalised(conclusion.text.format(ego=ego))])


def timed_facts(facts: WindowFacts, ego: str) -> list[TimedFact]:
    """Everything that is known of a clip with its time."""
    found = []
    for event in facts.driving_events:
        if event.kind in DRIVING_KINDS:
            span = f"From {seconds(event.start_s)} to {seconds(event.end_s)}"
            text = f"{span} {ego} {DRIVING[event.kind][0]}."
            found.append(TimedFact(DRIVING_KINDS[event.kind], event.start_s, text))
    hazard = facts.hazard
    if hazard is None:
        return found
    who, whom = approach(hazard), ROAD_USERS.get(hazard.other_road_user or "", "other")
    if hazard.onset_s is not None and who is not None:
        verb = BEGINS_TO.get(hazard.motion or "")
        slows = hazard.motion != "slows_ahead" or hazard.other_brakes is not False
        does = f"{who} begins to {verb}" if verb and slows else f"the situation with {who} begins"
        found.append(TimedFact("onset", hazard.onset_s, f"At {seconds(hazard.onset_s)} {does}."))
    if facts.alert_time_s is not None:
        found.append(
            TimedFact("alert", facts.alert_time_s, f"The driver could see it coming at {seconds(facts.alert_time_s)}.")
        )
    at = f"At {seconds(hazard.time_s)}"
    side = IMPACT_SIDES.get(hazard.impact_side or "")
    if touches(facts) and side:
        hits = f"there is contact on the {side} of {ego}"  # nobody knows by whom
        if side == "rear":  # by somebody whom the camera does not show
            hits = f"{ego} is struck from behind"
        elif hazard.ego_role == "striking":
            hits = f"{ego} hits the {whom} with its {side}"
        elif hazard.ego_role == "struck":
            hits = f"the {whom} hits the {side} of {ego}"
        found.append(TimedFact("contact", hazard.time_s, f"{at} {hits}."))
    elif touches(facts) is False and hazard.min_gap_m:
        apart = f"{at} the {whom} is closest, {metres(hazard.min_gap_m)} away."
        found.append(TimedFact("closest", hazard.time_s, apart))
    return found


def _class_trace(facts: WindowFacts, draws: Draws) -> str | None:
    conclusion = _outcome(facts, facts.label or "")
    return None if conclusion is None else trace_text(facts, conclusion, draws.pick(EGO), draws)


def _outcome(facts: WindowFacts, value: str) -> Conclusion | None:
    hazard = facts.hazard
    if hazard is None:
        return None
    if value == "collision":
        return Conclusion("There is contact, so this is a collision.", ("contact",))
    if value == "near_collision":
        how = {"brakes": "hard braking", "steers": "a swerve", "both": "braking and a swerve"}.get(evasion(facts) or "")
        reasons = [f"They were {seconds(hazard.min_ttc_s)} from a collision"] if hazard.min_ttc_s else []
        reasons += [f"only {how} prevented it"] if how else []
        said = capitalised(", and ".join(reasons))
        return Conclusion(f"{said}: this is a near-collision.", ("closest",)) if reasons else None
    if value == "normal" and hazard.on_collision_course is not None:
        calm = "They were never on a course to collide"
        if hazard.min_ttc_s:
            calm = f"A collision was never less than {seconds(hazard.min_ttc_s)} away"
        return Conclusion(f"{calm}, so this is normal driving.", ("closest",))
    return None


def _blame(facts: WindowFacts, value: str) -> Conclusion | None:
    hazard = facts.hazard
    if value == "nobody" and hazard is not None:
        return Conclusion("There is no contact, so nobody is to blame for one.", ("closest",))
    if hazard is None or value not in ("ego", "other"):
        return None
    if hazard.impact_side == "rear" and value == "other":
        why = "Whoever strikes from behind has not kept enough distance, so the other party is to blame."
    elif hazard.motion == "slows_ahead" and value == "ego":
        why = "Whoever follows must keep enough distance to stop, so the driver of {ego} is to blame."
    elif hazard.motion in ("cuts_in", "crosses", "walks_in", "drifts_over") and value == "other":
        why = "The other party came into the way of {ego}, so it is to blame."
    else:
        return None
    return Conclusion(why, ("contact",))


def _role(facts: WindowFacts, value: str) -> Conclusion | None:
    texts = {
        "striking": "{ego} runs into the other, so it is the one that strikes.",
        "struck": "The blow comes from the other party, so {ego} is struck.",
    }
    if value == "neither":
        return Conclusion("There is no contact, so neither strikes.", ("closest",))
    return Conclusion(texts[value], ("contact",)) if value in texts else None


def _contact(facts: WindowFacts, value: str) -> Conclusion | None:
    if value == "yes":
        return Conclusion("They touch, so there is contact.", ("contact",))
    return Conclusion("Some room is left, so there is no contact.", ("closest",))


def _evasion(facts: WindowFacts, value: str) -> Conclusion | None:
    texts = {
        "brakes": ("The brakes are on hard as it comes near, and there is no swerve.", ("braking",)),
        "steers": ("There is no hard braking as it comes near, but a swerve.", ()),
        "both": ("The brakes are on hard as it comes near, and there is a swerve.", ("braking",)),
        "neither": ("There is neither hard braking nor a swerve as it comes near.", ()),
    }
    moment: Kind = "contact" if touches(facts) else "closest"
    text, needs = texts[value]
    return Conclusion(text, (*needs, moment))


def _third(facts: WindowFacts, value: str) -> Conclusion | None:
    third = {"beginning": "first", "middle": "second", "end": "last"}[value]
    moment: Kind = "contact" if touches(facts) else "closest"
    return Conclusion(f"The clip lasts {seconds(facts.duration_s)}, so this lies in its {third} third.", (moment,))


def _warning(facts: WindowFacts, value: str) -> Conclusion | None:
    moment: Kind = "contact" if touches(facts) else "closest"
    return Conclusion(f"Until it happens there are {value} to react.", ("alert", moment))


def _braking_first(facts: WindowFacts, value: str) -> Conclusion | None:
    order = {
        "before": "The hard braking is the earlier of the two.",
        "after": "The hard braking is the later of the two.",
    }
    return Conclusion(order[value], ("onset", "braking"))


# How the answer to each of these topics follows: facts and the value that was read off them -> why it follows.
CONCLUSIONS: Mapping[str, Callable[[WindowFacts, str], Conclusion | None]] = {
    "outcome": _outcome,
    "blame": _blame,
    "role": _role,
    "contact": _contact,
    "evasion": _evasion,
    "third": _third,
    "warning": _warning,
    "braking_first": _braking_first,
}
