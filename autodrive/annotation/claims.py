"""What a trace claims, read from its words, and whether facts bear it out.

Rules, teachers and students all write traces in prose. A sentence with a time in it is a claim that something is so at
that time; which thing, its words say. The reader knows the words of `traces.py` and takes a time whose sentence it does
not understand as one that must at least be the time of something.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from autodrive.annotation.facts import WindowFacts
from autodrive.annotation.phrases import touches

# Times are written to a tenth of a second; half a tenth is lost on each of two.
TOLERANCE_S = 0.1
# Distances are written to a decimetre, from ten metres on to a metre.
GAP_TOLERANCE_M, GAP_TOLERANCE = 0.1, 0.05

Kind = Literal[
    "alert", "closest", "contact", "onset", "braking", "acceleration", "cornering", "bend", "outcome", "unknown"
]

# The first that matches: a sentence about the closest moment may add that nobody touches.
_KINDS: Mapping[Kind, re.Pattern[str]] = {
    "alert": re.compile(r"could (?:already |first )?(?:be seen|see)|can (?:first )?be seen coming"),
    "closest": re.compile(r"closest|nearest|(?:come|get|pass)(?:es)? within|least (?:room|distance)"),
    "contact": re.compile(
        r"\b(?:hits?|strikes?|struck|touch(?:es)?|collides?|contact|impact|runs? into|crash(?:es)?)\b"
    ),
    "onset": re.compile(r"\b(?:begins?|starts?|sets? (?:in|out)|appears?)\b"),
    "bend": re.compile(r"too fast (?:in|through|for)|too much speed"),
    "cornering": re.compile(r"steered|steers|corners|swerves"),
    "acceleration": re.compile(r"accelerates|speeds up"),
    "braking": re.compile(r"brak(?:es|ed|ing)\b"),
}
_EVENTS = {
    "braking": "harsh_braking",
    "acceleration": "harsh_acceleration",
    "cornering": "harsh_cornering",
    "bend": "excess_speed_in_turn",
}
_NUMBER = r"(\d+(?:\.\d+)?) ?s(?:econds?)?\b"
_SPAN = re.compile(rf"\b(?:from|between) {_NUMBER} (?:to|until|and) {_NUMBER}")
_MOMENT = re.compile(rf"\b(?:at|by|around) {_NUMBER}")
_ROAD_USER = re.compile(r"\b(car|van|truck|pedestrian)\b")
_SIDE = re.compile(r"\b(?:(?:from|on) the (left|right)\b(?! side)|(ahead)\b)")
_GAP = re.compile(r"(\d+(?:\.\d+)?) ?m(?:et(?:re|er)s?)?\b")
_OUTCOME = re.compile(r"\b(?:this|it) is (?:a )?(near-collision|collision|normal driving)")
_OUTCOMES = {"near-collision": "near_collision", "collision": "collision", "normal driving": "normal"}
_IMPACT = re.compile(r"\b(?:its|the) (front|rear|left side|right side)\b|(from behind)")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Claim:
    """Something that is said to be so.

    Attributes:
        kind: What happens.
        start_s: When it happens or begins, seconds from the clip's start; None for an outcome.
        end_s: When it ends; None for a moment.
        road_user: The road user that is named in the same sentence.
        side: Where that one comes from.
        impact_side: Side of the ego that is said to be touched.
        gap_m: Distance that is said to be left at the closest moment.
        outcome: What it is said to come to: `collision`, `near_collision` or `normal`.
        text: The sentence.
    """

    kind: Kind
    start_s: float | None = None
    end_s: float | None = None
    road_user: str | None = None
    side: str | None = None
    impact_side: str | None = None
    gap_m: float | None = None
    outcome: str | None = None
    text: str = ""


def claims_of(trace: str) -> tuple[Claim, ...]:
    """The claims with a time in them, and those about the outcome, in the order of the text."""
    return tuple(claim for sentence in _SENTENCE.split(trace) for claim in _claims_of_sentence(sentence))


def _claims_of_sentence(sentence: str) -> Iterator[Claim]:
    text = sentence.lower()
    times = [(float(m[1]), float(m[2])) for m in _SPAN.finditer(text)]
    times += [(float(m[1]), None) for m in _MOMENT.finditer(_SPAN.sub(" ", text))]
    if outcome := _OUTCOME.search(text):
        yield Claim("outcome", outcome=_OUTCOMES[outcome[1]], text=sentence.strip())
    if not times:
        return
    kinds: list[Kind] = [kind for kind, pattern in _KINDS.items() if pattern.search(text)]
    kind: Kind = kinds[0] if kinds else "unknown"
    gap = _GAP.search(text) if kind == "closest" else None
    road_user, side, impact = _ROAD_USER.search(text), _SIDE.search(text), _IMPACT.search(text)
    about_other = kind in ("onset", "closest", "contact")
    touched = (impact[1] or "rear").removesuffix(" side") if impact and kind == "contact" else None
    for start_s, end_s in times:
        yield Claim(
            kind,
            start_s,
            end_s,
            road_user[1] if road_user and about_other else None,
            side and (side[1] or side[2]) if about_other else None,
            touched,
            float(gap[1]) if gap else None,
            text=sentence.strip(),
        )


def trace_contradicts(claims: Sequence[Claim], facts: WindowFacts, tolerance_s: float = TOLERANCE_S) -> Claim | None:
    """The first claim that the facts do not bear out; None if they bear out all.

    What is not known bears out nothing: a trace may speak only of what is known to be true at the time that it gives.

    Args:
        claims: What a trace claims.
        facts: What is true of the clip.
        tolerance_s: How far a time may be off.
    """
    return next((claim for claim in claims if not is_true(claim, facts, tolerance_s)), None)


def is_true(claim: Claim, facts: WindowFacts, tolerance_s: float = TOLERANCE_S) -> bool:
    """Whether the facts bear out a claim."""
    hazard = facts.hazard
    named = (
        (claim.road_user, hazard and hazard.other_road_user),
        (claim.side, hazard and hazard.side),
        (claim.impact_side, hazard and hazard.impact_side),
    )
    if any(said is not None and said != known for said, known in named):
        return False
    if claim.gap_m is not None:
        known_m = hazard and hazard.min_gap_m
        if known_m is None or abs(claim.gap_m - known_m) > max(GAP_TOLERANCE_M, GAP_TOLERANCE * known_m):
            return False
    if claim.start_s is None:
        return claim.outcome == facts.label
    slack_s = tolerance_s + 1e-6
    if claim.end_s is not None:
        return any(
            abs(claim.start_s - start_s) <= slack_s and abs(claim.end_s - end_s) <= slack_s
            for start_s, end_s in _spans(claim.kind, facts)
        )
    moments = _moments(claim.kind, facts)
    inside = any(start_s - slack_s <= claim.start_s <= end_s + slack_s for start_s, end_s in _spans(claim.kind, facts))
    return inside or any(abs(claim.start_s - moment_s) <= slack_s for moment_s in moments)


def _moments(kind: Kind, facts: WindowFacts) -> list[float]:
    """Times at which something of this kind is known to be; of anything for `unknown`."""
    hazard = facts.hazard
    onset_s, time_s = (None, None) if hazard is None else (hazard.onset_s, hazard.time_s)
    touching = touches(facts)
    found = {
        "alert": facts.alert_time_s,
        "onset": onset_s,
        "closest": time_s if touching is False else None,
        "contact": (time_s if facts.event_time_s is None else facts.event_time_s) if touching else None,
    }
    known = found.values() if kind == "unknown" else (found.get(kind),)
    return [moment_s for moment_s in known if moment_s is not None]


def _spans(kind: Kind, facts: WindowFacts) -> list[tuple[float, float]]:
    """Spans in which something of this kind is known to last; of anything for `unknown`."""
    wanted = set(_EVENTS.values()) if kind == "unknown" else {_EVENTS.get(kind)}
    return [(event.start_s, event.end_s) for event in facts.driving_events if event.kind in wanted]


def contradicted(claim: Claim, facts: WindowFacts, tolerance_s: float = TOLERANCE_S) -> bool:
    """Whether facts speak against a claim: they know when such a thing is, or that it is not, and it is not then.

    In a description, other than in a trace, what nobody knows may be said: somebody may have seen it.
    """
    if is_true(claim, facts, tolerance_s) or claim.kind == "unknown":
        return False
    if claim.kind == "outcome":
        return facts.label in _OUTCOMES.values()
    if claim.kind in ("contact", "closest"):
        return touches(facts) is not None and facts.hazard is not None
    return bool(_moments(claim.kind, facts) or _spans(claim.kind, facts))
