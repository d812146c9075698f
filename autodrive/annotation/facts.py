"""What is true of a clip within its seconds: all that captions, questions, traces, teachers and filters may know.

A recording's event says nothing about a window that does not hold it: in the calm minute before a collision nobody is
to blame. So facts of the event are here only if its moment lies in the window, whatever a manifest says beside it.
"""

import math
from typing import Any

from autodrive.schema import Clip, DrivingEvent, Record
from autodrive.video.chunker import NORMAL

# What the other road user of each hazard of the rendered world does. Some of them stop or turn back in time, so that
# words for these must hold for an approach that leads to nothing, too.
MOTIONS = {
    "lead_brake": "slows_ahead",
    "cut_in": "cuts_in",
    "crossing_vehicle": "crosses",
    "pedestrian": "walks_in",
    "oncoming_drift": "drifts_over",
}
# Where two are on no course to collide, sources say that it would take them this long.
LONGEST_TTC_S = 99.0


class HazardFacts(Record):
    """The hazard or event whose moment lies in the window. A fact that the source does not have is None.

    Attributes:
        time_s: Its moment in seconds from the clip's start: first contact, or the closest approach.
        onset_s: When it begins to develop; None also if that lies before the window.
        other_road_user: `car`, `van`, `truck` or `pedestrian`; the one the hazard is about.
        motion: What it does, a value of `MOTIONS`. Who slows ahead does so only if `other_brakes` is not False.
        side: Where it is or comes from, as the ego's driver sees it: `left`, `ahead` or `right`.
        ego_role: `striking`, `struck`, `witness`, or `none` if nobody touches.
        other_role: `striking`, `struck` or `none`. Whoever strikes from behind is not `other_road_user`.
        impact_side: Side of the ego that is touched: `front`, `rear`, `left`, `right` or `none`.
        blame: Who is to blame for a contact: `ego`, `other` or `none`.
        ego_brakes: Whether the ego brakes hard (above 0.3 g) at some moment of the window, before a contact.
        other_brakes: Whether the other road user's brake lights are on at some moment of the window.
        initial_speed_mps: Speed of the ego at the onset; None if that lies before the window.
        min_gap_m: Least distance between the two; 0 if they touch.
        on_collision_course: Whether the two would ever have collided, had both gone on as they did.
        min_ttc_s: Least time to collision; None where they were on no such course.
        peak_decel_mps2: Strongest deceleration of the ego from the onset on.
        peak_lateral_mps2: Strongest lateral acceleration of the ego's evading.
        reaction_s: Time in which the ego's driver reacts.
    """

    time_s: float
    onset_s: float | None = None
    other_road_user: str | None = None
    motion: str | None = None
    side: str | None = None
    ego_role: str | None = None
    other_role: str | None = None
    impact_side: str | None = None
    blame: str | None = None
    ego_brakes: bool | None = None
    other_brakes: bool | None = None
    initial_speed_mps: float | None = None
    min_gap_m: float | None = None
    on_collision_course: bool | None = None
    min_ttc_s: float | None = None
    peak_decel_mps2: float | None = None
    peak_lateral_mps2: float | None = None
    reaction_s: float | None = None


class WindowFacts(Record):
    """What is true between a clip's start and its end. Times are seconds from the clip's start.

    Attributes:
        clip_id: The clip.
        duration_s: Length of the window.
        label: The source's label of this window; None if it gives none.
        ego_involved: Whether the ego takes part in the event; None if that is not known or there is no event.
        weather: Such as `clear`, `rain` or `fog`; None where the source does not say.
        light: Such as `day`, `dusk` or `night`.
        scene: Kind of place, such as `urban`.
        event_time_s: When the event that the label names happens; None if it names none, or its time is not known.
        alert_time_s: When the ego's driver could first have seen it come; None also if that is before the window.
        hazard: What is known of the hazard or event; None if its moment does not lie in the window.
        driving_events: What the ego's driver does, cut to the window.
    """

    clip_id: str
    duration_s: float
    label: str | None = None
    ego_involved: bool | None = None
    weather: str | None = None
    light: str | None = None
    scene: str | None = None
    event_time_s: float | None = None
    alert_time_s: float | None = None
    hazard: HazardFacts | None = None
    driving_events: tuple[DrivingEvent, ...] = ()

    @property
    def holds_event(self) -> bool:
        """Whether the window is known to hold an event, be its time known or not."""
        return self.label not in (None, NORMAL)


def facts_of(clip: Clip) -> WindowFacts:
    """Read off a clip's record what is true within its seconds. No file is opened, and nothing is guessed.

    Values of another type than expected, such as a number for the weather, count as not known.
    """
    known = clip.metadata
    is_event = clip.label not in (None, NORMAL)
    event_s = _within(clip, clip.event_time_s) if is_event else None
    return WindowFacts(
        clip_id=clip.id,
        duration_s=_rounded(clip.end_s - clip.start_s),
        label=clip.label,
        ego_involved=clip.ego_involved if is_event else None,
        weather=_text(known, "weather"),
        light=_text(known, "light"),
        scene=_text(known, "scene"),
        event_time_s=event_s,
        # Sources write 0 for what could be seen before the recording began.
        alert_time_s=_within(clip, clip.alert_time_s) if event_s is not None and clip.alert_time_s else None,
        hazard=_hazard(clip),
        driving_events=_driving_events(clip),
    )


def _hazard(clip: Clip) -> HazardFacts | None:
    known = clip.metadata
    moment_s = _number(known, "hazard_time_s")
    time_s = _within(clip, clip.event_time_s if moment_s is None else moment_s)
    if time_s is None:
        return None
    onset_s = _within(clip, _number(known, "hazard_onset_s"))
    ttc_s = _number(known, "min_ttc_s")
    return HazardFacts(
        time_s=time_s,
        onset_s=onset_s,
        other_road_user=_text(known, "other_road_user"),
        motion=MOTIONS.get(_text(known, "scenario") or ""),
        side=_text(known, "side"),
        ego_role=_text(known, "ego_role"),
        other_role=_text(known, "other_role"),
        impact_side=_text(known, "impact_side"),
        blame=_text(known, "blame"),
        ego_brakes=_yes_or_no(known, "ego_brakes"),
        other_brakes=_yes_or_no(known, "other_brakes"),
        initial_speed_mps=None if onset_s is None else _number(known, "initial_speed_mps"),
        min_gap_m=_number(known, "min_gap_m"),
        on_collision_course=None if ttc_s is None else ttc_s < LONGEST_TTC_S,
        min_ttc_s=None if ttc_s is None or ttc_s >= LONGEST_TTC_S else ttc_s,
        peak_decel_mps2=_number(known, "peak_decel_mps2"),
        peak_lateral_mps2=_number(known, "peak_lateral_mps2"),
        reaction_s=_number(known, "reaction_s"),
    )


def _driving_events(clip: Clip) -> tuple[DrivingEvent, ...]:
    """Those that reach into the window, cut to it; the recording's times become the clip's."""
    cut = []
    for event in clip.driving_events:
        start_s, end_s = max(event.start_s, clip.start_s), min(event.end_s, clip.end_s)
        if start_s < end_s:
            times = {"start_s": _rounded(start_s - clip.start_s), "end_s": _rounded(end_s - clip.start_s)}
            cut.append(event.model_copy(update=times))
    return tuple(cut)


def _within(clip: Clip, time_s: float | None) -> float | None:
    """A time of the recording as one of the clip; None if it lies outside."""
    return None if time_s is None or not clip.start_s <= time_s < clip.end_s else _rounded(time_s - clip.start_s)


def _rounded(seconds: float) -> float:
    return round(seconds, 3)


def _text(known: dict[str, Any], key: str) -> str | None:
    value = known.get(key)
    return value if isinstance(value, str) and value.strip() else None


def _yes_or_no(known: dict[str, Any], key: str) -> bool | None:
    value = known.get(key)
    return value if isinstance(value, bool) else None


def _number(known: dict[str, Any], key: str) -> float | None:
    value = known.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
