"""What can be asked about a clip in free words: how each answer is read off the facts. The words are in topics.yaml.

A question is worded alike whatever the answer is, and holds no fact of the clip, so that nothing in it says the answer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from autodrive.annotation.facts import HazardFacts, WindowFacts
from autodrive.annotation.phrases import (
    LIGHT,
    ROAD_USERS,
    WEATHER,
    capitalised,
    evasion,
    metres,
    seconds,
    touches,
)
from autodrive.schema import DrivingEvent

Aspect = Literal["spatial", "environmental", "causal", "blame", "temporal", "driving"]
ANY = "any"  # key of the wordings of values that are not listed one by one
WORDS = Path(__file__).with_name("topics.yaml")
EDGE_S = 0.1  # what begins or ends this close to an edge of the window may have been cut there


@dataclass(frozen=True)
class Topic:
    """One thing to ask.

    Attributes:
        key: Name of the topic.
        aspect: What it is about.
        read: The answer as a value, read off the facts; None where it is not known.
        questions: Wordings of the question.
        answers: Wordings of the answer by value, or under `ANY` for every value.
    """

    key: str
    aspect: Aspect
    read: Callable[[WindowFacts], str | None]
    questions: tuple[str, ...]
    answers: Mapping[str, tuple[str, ...]]

    def value(self, facts: WindowFacts) -> str | None:
        """The answer as a value; None where it is not known, or there are no words for it."""
        value = self.read(facts)
        return value if value in self.answers or ANY in self.answers else None

    def wordings(self, value: str) -> tuple[str, ...]:
        """The wordings of an answer."""
        return self.answers[value if value in self.answers else ANY]


def _of_hazard(read: Callable[[HazardFacts], str | None]) -> Callable[[WindowFacts], str | None]:
    return lambda facts: None if facts.hazard is None else read(facts.hazard)


def _yes_no(value: bool | None) -> str | None:
    return None if value is None else "yes" if value else "no"


def _motion(hazard: HazardFacts) -> str | None:
    return None if hazard.motion == "slows_ahead" and hazard.other_brakes is False else hazard.motion


def _gap(facts: WindowFacts) -> str | None:
    """How much room is left to the other road user; of one who strikes from behind nobody knows the distance."""
    hazard = facts.hazard
    if hazard is None or hazard.min_gap_m is None or hazard.impact_side == "rear" or facts.ego_involved is False:
        return None
    if touches(facts):
        return "touch"
    gap_m = round(hazard.min_gap_m, 1)  # as it is written: 0.97 m would be "less than a metre: 1.0 m"
    return "close" if gap_m < 1 else "near" if gap_m < 3 else "far"


def _third(facts: WindowFacts) -> str | None:
    if facts.hazard is None:
        return None
    return ("beginning", "middle", "end")[min(2, int(facts.hazard.time_s / facts.duration_s * 3))]


def _blame(facts: WindowFacts) -> str | None:
    if facts.ego_involved is False:
        return None
    return "nobody" if touches(facts) is False else facts.hazard and facts.hazard.blame


def _role(facts: WindowFacts) -> str | None:
    if facts.ego_involved is False:
        return None
    return "neither" if touches(facts) is False else facts.hazard and facts.hazard.ego_role


def _impact(facts: WindowFacts) -> str | None:
    if facts.ego_involved is False:
        return None
    return "none" if touches(facts) is False else facts.hazard and facts.hazard.impact_side


def _outcome(facts: WindowFacts) -> str | None:
    return None if facts.hazard is None or facts.ego_involved is False else facts.label


def _strongest(facts: WindowFacts) -> DrivingEvent | None:
    """The event with the largest acceleration, in whichever direction."""
    return max(facts.driving_events, key=lambda event: event.severity, default=None)


def _one(facts: WindowFacts, kind: str) -> DrivingEvent | None:
    """The event of a kind, if there is exactly one: of two nobody knows which is asked about."""
    found = [event for event in facts.driving_events if event.kind == kind]
    return found[0] if len(found) == 1 else None


def _whole_braking(facts: WindowFacts) -> DrivingEvent | None:
    """The only hard braking, if it neither reaches back before the window nor beyond it."""
    event = _one(facts, "harsh_braking")
    whole = event is not None and event.start_s > EDGE_S and event.end_s < facts.duration_s - EDGE_S
    return event if whole else None


def _braking_start(facts: WindowFacts) -> str | None:
    event = _whole_braking(facts)
    return None if event is None else seconds(event.start_s)


def _braking_length(facts: WindowFacts) -> str | None:
    event = _whole_braking(facts)
    return None if event is None else seconds(event.end_s - event.start_s)


def _braking_first(facts: WindowFacts) -> str | None:
    """Whether the ego begins to brake hard before the hazard begins or after; once only, and both inside the window."""
    event, hazard = _one(facts, "harsh_braking"), facts.hazard
    if event is None or hazard is None or hazard.onset_s is None or abs(event.start_s - hazard.onset_s) < 0.2:
        return None
    return "before" if event.start_s < hazard.onset_s else "after"


def _warning(facts: WindowFacts) -> str | None:
    if facts.alert_time_s is None or facts.event_time_s is None or facts.event_time_s - facts.alert_time_s < 0.1:
        return None
    return seconds(facts.event_time_s - facts.alert_time_s)


def _speed(hazard: HazardFacts) -> str | None:
    """In steps of 10 km/h; nobody reads it more exactly off a picture."""
    return None if hazard.initial_speed_mps is None else str(10 * round(hazard.initial_speed_mps * 3.6 / 10))


def _number_of_manoeuvres(facts: WindowFacts) -> str | None:
    """Only where there is one: a source that names none may not have looked."""
    return ("one", "two", "several")[min(3, len(facts.driving_events)) - 1] if facts.driving_events else None


def _other_brakes(hazard: HazardFacts) -> str | None:
    return None if hazard.other_road_user == "pedestrian" else _yes_no(hazard.other_brakes)


def _conditions(facts: WindowFacts) -> str | None:
    return f"{facts.light} {facts.weather}" if facts.light in LIGHT and facts.weather in WEATHER else None


READERS: Mapping[str, Callable[[WindowFacts], str | None]] = {
    "side": _of_hazard(lambda hazard: hazard.side),
    "road_user": _of_hazard(lambda hazard: ROAD_USERS.get(hazard.other_road_user or "")),
    "gap": _gap,
    "impact_side": _impact,
    "weather": lambda facts: facts.weather,
    "light": lambda facts: facts.light,
    "conditions": _conditions,
    "reduced_view": lambda facts: _yes_no(None if _conditions(facts) is None else _conditions(facts) != "day clear"),
    "motion": _of_hazard(_motion),
    "evasion": evasion,
    "outcome": _outcome,
    "contact": lambda facts: None if facts.ego_involved is False else _yes_no(touches(facts)),
    "blame": _blame,
    "role": _role,
    "moment": _of_hazard(lambda hazard: seconds(hazard.time_s)),
    "third": _third,
    "onset": _of_hazard(lambda hazard: None if hazard.onset_s is None else seconds(hazard.onset_s)),
    "warning": _warning,
    "braking_first": _braking_first,
    "manoeuvre": lambda facts: None if (event := _strongest(facts)) is None else event.kind,
    "hard_braking": _of_hazard(lambda hazard: _yes_no(hazard.ego_brakes)),
    "other_brakes": _of_hazard(_other_brakes),
    "braking_start": _braking_start,
    "braking_length": _braking_length,
    "speed": _of_hazard(_speed),
    "num_manoeuvres": _number_of_manoeuvres,
}


def _topics() -> tuple[Topic, ...]:
    words = yaml.safe_load(WORDS.read_text(encoding="utf-8"))
    assert list(words) == list(READERS), "topics.yaml and READERS name the same topics in the same order"
    return tuple(
        Topic(
            key=key,
            aspect=found["aspect"],
            read=READERS[key],
            questions=tuple(found["questions"]),
            answers={value: tuple(texts) for value, texts in found["answers"].items()},
        )
        for key, found in words.items()
    )


TOPICS = _topics()


def fields_of(facts: WindowFacts) -> dict[str, str]:
    """What wordings of answers may name beside the value."""
    hazard = facts.hazard
    fields = {
        "gap": None if hazard is None or hazard.min_gap_m is None else metres(hazard.min_gap_m),
        "light": None if facts.light not in LIGHT else LIGHT[facts.light][0],
        "weather": None if facts.weather not in WEATHER else WEATHER[facts.weather][0],
    }
    known = {name: text for name, text in fields.items() if text is not None}
    return known | {capitalised(name): capitalised(text) for name, text in known.items()}
