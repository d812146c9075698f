"""Captions: what is known of a clip, in sentences. What is not known is not mentioned."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Le

from autodrive.annotation.facts import HazardFacts, WindowFacts, facts_of
from autodrive.annotation.phrases import (
    DRIVING,
    EGO,
    IMPACT_SIDES,
    ROAD_USERS,
    Draws,
    approach,
    capitalised,
    conditions,
    evasion,
    metres,
    motion,
    seconds,
    touches,
)
from autodrive.bounds import Count
from autodrive.labels import LabelSet
from autodrive.schema import Annotation, Clip

GENERATOR = "rule/2"
QUESTIONS = (
    "Describe the clip.",
    "Describe what happens in this clip.",
    "Describe the driving scene.",
    "What can be seen in this clip?",
    "Give a short description of the clip.",
    "Tell what happens on the road.",
    "Summarise the clip.",
    "Say in a sentence or two what this dashcam clip shows.",
)
EVADING = {
    "brakes": ("the driver brakes hard", "hard braking prevents it"),
    "steers": ("the driver steers away", "a sharp swerve prevents it"),
    "both": ("the driver brakes hard and steers away", "braking and a swerve prevent it"),
}


@dataclass(frozen=True)
class Captions:
    """Describes each clip in the words of its facts.

    Attributes:
        task: The task of the captions.
        per_clip: Captions of a clip, in different words but to the same question: for evaluation they are references.
    """

    task: str
    per_clip: Annotated[Count, Le(20)] = 1

    def annotations(self, clips: Sequence[Clip], labels: LabelSet, seed: int) -> Iterator[Annotation]:
        """Captions of the clips of which there is anything to say; fewer where wordings come out alike."""
        for clip in clips:
            facts, draws = facts_of(clip), Draws(seed, clip.id, self.task)
            question = draws.pick(QUESTIONS)
            texts = dict.fromkeys(caption(facts, draws) for _ in range(self.per_clip))
            for text in texts:
                if text is not None:
                    yield Annotation.create(clip.id, self.task, question, text, GENERATOR)


def caption(facts: WindowFacts, draws: Draws) -> str | None:
    """One description: conditions, the other road user, how it ends, what the driver does; None if nothing is known.

    Args:
        facts: What is true of the clip.
        draws: Chooses the words.
    """
    ego = draws.pick(EGO)
    where = conditions(facts, draws)
    meeting = None if facts.hazard is None else _meeting(facts.hazard, draws)
    sentences = []
    if where and meeting and draws.pick((True, False)):
        sentences.append(f"{capitalised(where)}, {meeting}.")
    else:
        if where:
            scenes = (f"{ego} drives {where}", f"a drive {where}", f"the scene is a road {where}")
            sentences.append(f"{capitalised(draws.pick(scenes))}.")
        if meeting:
            sentences.append(f"{capitalised(meeting)}.")
    sentences += _ending(facts, ego, draws)
    sentences += _driving(facts, ego, draws)
    return " ".join(sentences) or None


def _meeting(hazard: HazardFacts, draws: Draws) -> str | None:
    who, does = approach(hazard), motion(hazard, draws)
    if who is None:
        return None
    return f"{who} {does}" if does else f"there is {who}"


def _ending(facts: WindowFacts, ego: str, draws: Draws) -> list[str]:
    """How it ends, in up to two sentences."""
    hazard = facts.hazard
    if facts.label == "collision" and touches(facts) is False:
        return [
            draws.pick((f"Two others collide; {ego} is not involved.", f"{capitalised(ego)} sees two others collide."))
        ]
    if facts.label == "collision":
        blame = {
            "ego": ("The driver of {ego} is to blame.", "The fault lies with {ego}."),
            "other": ("The other party is to blame.", "{Ego} is not at fault."),
        }
        found = blame.get((hazard and hazard.blame) or "", ("",))
        said = draws.pick(found).format(ego=ego, Ego=capitalised(ego))
        return [_contact(hazard, ego, draws), *([said] if said and draws.pick((True, True, False)) else [])]
    if facts.label == "near_collision":
        return [_near_miss(facts, draws)]
    if facts.label == "normal" and hazard is not None:
        calm = ["Nothing comes of it.", "There is no danger of a collision.", "Everybody passes safely."]
        if hazard.min_gap_m:
            calm += [f"They keep {metres(hazard.min_gap_m)} apart.", f"Never closer than {metres(hazard.min_gap_m)}."]
        return [draws.pick(calm)]
    if facts.label == "normal":
        return [
            draws.pick(("Normal driving without an incident.", "Nothing out of the ordinary happens.", "Calm driving."))
        ]
    if facts.holds_event and facts.label == "event":
        return [draws.pick(("An incident happens.", "It comes to a collision or nearly so."))]
    return []


def _contact(hazard: HazardFacts | None, ego: str, draws: Draws) -> str:
    side = IMPACT_SIDES.get((hazard and hazard.impact_side) or "")
    if hazard is None or side is None:
        return f"{capitalised(ego)} is in a collision."
    other = f"the {ROAD_USERS[hazard.other_road_user]}" if hazard.other_road_user in ROAD_USERS else "the other"
    if side == "rear":  # by somebody whom the camera does not show, and who is not the other road user
        hit = (f"{ego} is struck from behind", f"a vehicle behind runs into {ego}", f"{ego} is hit at its rear")
    elif hazard.ego_role == "striking":
        hit = (f"{ego} strikes {other} with its {side}", f"{ego} hits {other}, {side} first")
    elif hazard.ego_role == "struck":
        hit = (f"{other} hits the {side} of {ego}", f"{other} strikes {ego} on its {side}")
    else:  # nobody knows by whom
        hit = (f"there is contact on the {side} of {ego}", f"{ego} is touched on its {side}")
    text = draws.pick(hit)
    return f"{capitalised(text)} {draws.pick(('', f'at {seconds(hazard.time_s)}'))}".rstrip() + "."


def _near_miss(facts: WindowFacts, draws: Draws) -> str:
    gap = None if facts.hazard is None else facts.hazard.min_gap_m
    close = f"they come within {metres(gap)} of each other" if gap else "it is a close call"
    how = EVADING.get(evasion(facts) or "")
    endings = [f"It nearly comes to a collision: {close}.", f"A near-collision: {close}."]
    if how:
        endings += [f"A collision is narrowly avoided: {draws.pick(how)}.", f"{capitalised(close)}; {draws.pick(how)}."]
    return draws.pick(endings)


def _driving(facts: WindowFacts, ego: str, draws: Draws) -> list[str]:
    """One of the things that the driver does, in some captions with its time."""
    known = [event for event in facts.driving_events if event.kind in DRIVING]
    if not known or draws.pick((True, False)):
        return []
    event = draws.pick(known)
    when = draws.pick(("", f" from {seconds(event.start_s)} to {seconds(event.end_s)}"))
    return [f"{capitalised(ego)} {draws.pick(DRIVING[event.kind])}{when}."]
