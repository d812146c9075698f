"""English for facts. A value that has no words here is left out of what is said, never guessed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from autodrive.annotation.facts import HazardFacts, WindowFacts
from autodrive.seeding import generator_for

ItemT = TypeVar("ItemT")

EGO = ("the ego vehicle", "the camera vehicle", "the recording vehicle")
ROAD_USERS = {"car": "car", "van": "van", "truck": "truck", "pedestrian": "pedestrian"}
FROM_SIDE = {"left": "from the left", "right": "from the right", "ahead": "ahead"}
LIGHT = {"day": ("by day", "in daylight"), "dusk": ("at dusk", "in the half-light of dusk"), "night": ("at night",)}
WEATHER = {"clear": ("in clear weather", "in fine weather"), "rain": ("in the rain",), "fog": ("in fog",)}
# Of a road user who may yet stop or turn back: each holds from the first moment of the motion on.
MOTIONS: Mapping[str, Sequence[str]] = {
    "slows_ahead": ("slows down", "loses speed", "drops its speed"),
    "cuts_in": (
        "moves over towards the ego lane",
        "starts to change towards the ego lane",
        "pulls across from its lane",
    ),
    "crosses": ("comes up to cross the road", "heads across the road", "approaches on a crossing path"),
    "walks_in": ("walks towards the ego lane", "sets out towards the ego lane", "steps out towards the ego lane"),
    "drifts_over": (
        "comes the other way and drifts towards the ego lane",
        "approaches head-on and drifts towards the centre line",
        "comes towards the camera and leaves the middle of its lane",
    ),
}
BEGINS_TO = {
    "slows_ahead": "slow down",
    "cuts_in": "move over towards the ego lane",
    "crosses": "come up to cross the road",
    "walks_in": "walk towards the ego lane",
    "drifts_over": "drift towards the ego lane",
}
IMPACT_SIDES = {"front": "front", "rear": "rear", "left": "left side", "right": "right side"}
DRIVING = {
    "harsh_braking": ("brakes hard", "is braked hard"),
    "harsh_acceleration": ("accelerates hard", "speeds up sharply"),
    "harsh_cornering": ("is steered sharply", "corners hard"),
    "excess_speed_in_turn": ("takes a bend too fast", "goes too fast through a bend"),
}
# From here on steering is evading, as the rendered world's near-collisions have it (docs/world.md).
SWERVE_MPS2 = 3.5


class Draws:
    """Choices of words that follow from the seed and the clip, one after the other."""

    def __init__(self, seed: int, *keys: object) -> None:
        self._numbers = _numbers(generator_for(seed, *keys))

    def pick(self, options: Sequence[ItemT]) -> ItemT:
        """One of them, all being as likely."""
        return options[next(self._numbers) % len(options)]

    def order(self, options: Sequence[ItemT], num: int) -> list[ItemT]:
        """Up to so many of them, in an order of its own."""
        left = list(options)
        return [left.pop(next(self._numbers) % len(left)) for _ in range(min(num, len(left)))]


def _numbers(random: np.random.Generator) -> Iterator[int]:
    while True:  # many at once: a generator takes longer over a single number than over a hundred
        yield from random.integers(2**31, size=256).tolist()


def seconds(time_s: float) -> str:
    """A time or duration as all texts write it, such as `3.4 s`."""
    return f"{time_s:.1f} s"


def metres(distance_m: float) -> str:
    """A distance, to the decimetre below ten metres."""
    return f"{distance_m:.1f} m" if distance_m < 10 else f"{distance_m:.0f} m"


def capitalised(text: str) -> str:
    """With a capital letter at its beginning; the rest stays."""
    return text[:1].upper() + text[1:]


def conditions(facts: WindowFacts, draws: Draws) -> str | None:
    """Light and weather, such as `at dusk in the rain`; None if neither is known."""
    found = (LIGHT.get(facts.light or ""), WEATHER.get(facts.weather or ""))
    return " ".join(draws.pick(words) for words in found if words) or None


def motion(hazard: HazardFacts, draws: Draws) -> str | None:
    """What the other road user does, without the subject; None where it is not known."""
    words = MOTIONS.get(hazard.motion or "")
    if words is None or (hazard.motion == "slows_ahead" and hazard.other_brakes is False):
        return None
    return draws.pick(words)


def approach(hazard: HazardFacts) -> str | None:
    """Who comes from where, such as `a van from the right`; None where the road user is not known."""
    if hazard.other_road_user not in ROAD_USERS:
        return None
    side = FROM_SIDE.get(hazard.side or "", "")
    if hazard.motion == "drifts_over" and hazard.side in ("left", "right"):  # head-on, so from ahead, on this side
        side = f"on the {hazard.side}"
    return f"a {ROAD_USERS[hazard.other_road_user]} {side}".rstrip()


def evasion(facts: WindowFacts) -> str | None:
    """What the ego's driver does about the hazard: `brakes`, `steers`, `both` or `neither`; None where not known.

    Braking that is over before the hazard begins is not about it.
    """
    hazard = facts.hazard
    if hazard is None or hazard.ego_brakes is None or hazard.peak_lateral_mps2 is None:
        return None
    times = [event for event in facts.driving_events if event.kind == "harsh_braking"]
    brakes = hazard.ego_brakes
    if brakes and times:
        brakes = any(e.end_s > (hazard.onset_s or 0.0) and e.start_s <= hazard.time_s for e in times)
    steers = hazard.peak_lateral_mps2 >= SWERVE_MPS2
    return {(True, True): "both", (True, False): "brakes", (False, True): "steers", (False, False): "neither"}[
        brakes, steers
    ]


def touches(facts: WindowFacts) -> bool | None:
    """Whether the ego touches anybody within the window; None where that is not known."""
    if facts.label == "collision":
        return facts.ego_involved is not False
    return False if facts.label in ("near_collision", "normal") else None
