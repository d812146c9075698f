"""What a caption may leave out, in plain sentences for those who write from it: every time and figure that is known."""

from collections.abc import Iterator

from autodrive.annotation.facts import HazardFacts, WindowFacts
from autodrive.annotation.phrases import DRIVING, metres, seconds, touches

BLAME = {"ego": "The ego vehicle is to blame.", "other": "The other party is to blame."}


def figures(facts: WindowFacts) -> str:
    """All times and figures of a clip that can be seen in it, in seconds from its start; empty if none is known.

    Speeds and accelerations are left out: nobody reads them off a picture, so no answer should rest on them.
    """
    sentences = [] if facts.hazard is None else list(_of_hazard(facts.hazard, touches(facts), facts.label))
    sentences += [
        f"From {seconds(event.start_s)} to {seconds(event.end_s)} the ego vehicle {DRIVING[event.kind][0]}."
        for event in facts.driving_events
        if event.kind in DRIVING
    ]
    return " ".join(sentences)


def _of_hazard(hazard: HazardFacts, contact: bool | None, label: str | None) -> Iterator[str]:
    if hazard.onset_s is not None:
        yield f"It begins at {seconds(hazard.onset_s)}."
    if contact:
        yield f"First contact is at {seconds(hazard.time_s)}."
    elif label in ("near_collision", "normal") and hazard.min_gap_m:
        yield f"The closest approach is at {seconds(hazard.time_s)}, {metres(hazard.min_gap_m)} apart."
    if contact and hazard.blame in BLAME:
        yield BLAME[hazard.blame]
    if hazard.ego_brakes is not None:
        yield f"The ego vehicle {'brakes' if hazard.ego_brakes else 'does not brake'} hard."
