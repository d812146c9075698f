"""What is true of a clip within its seconds, and what is not said of a window that does not hold it."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from records import make_clip

from autodrive.annotation.facts import facts_of
from autodrive.annotation.stages import Dropped, Outcome
from autodrive.schema import Clip, DrivingEvent

EVENT = {
    "scenario": "cut_in",
    "other_road_user": "van",
    "side": "right",
    "ego_role": "struck",
    "other_role": "striking",
    "impact_side": "right",
    "blame": "other",
    "ego_brakes": True,
    "hazard_onset_s": 10.5,
    "initial_speed_mps": 12.0,
    "min_ttc_s": 99.0,
    "hazard_time_s": 12.25,
}
BRAKING = DrivingEvent(kind="harsh_braking", start_s=9.0, end_s=11.5, severity=5.0)


def window(start_s: float, label: str = "collision", **changes) -> Clip:
    """Four seconds of a recording whose metadata, as if nobody had cut them, are about its collision at 12.25 s."""
    facts = {
        "label": label,
        "start_s": start_s,
        "end_s": start_s + 4,
        "event_time_s": 12.25,
        "alert_time_s": 11.0,
        "ego_involved": True,
        "metadata": {"weather": "rain", **EVENT},
        "driving_events": (BRAKING,),
    }
    return make_clip(**(facts | changes))


def test_times_count_from_the_start_of_the_clip():
    facts = facts_of(window(10.0))
    assert (facts.event_time_s, facts.alert_time_s) == (2.25, 1.0)
    assert facts.hazard is not None
    assert (facts.hazard.time_s, facts.hazard.onset_s, facts.hazard.initial_speed_mps) == (2.25, 0.5, 12.0)
    assert (facts.hazard.motion, facts.hazard.side, facts.hazard.blame) == ("cuts_in", "right", "other")
    assert facts.hazard.min_ttc_s is None  # the source's way to say that there was none
    (braking,) = facts.driving_events
    assert (braking.start_s, braking.end_s, braking.severity) == (0.0, 1.5, 5.0)


@pytest.mark.parametrize("start_s", [0.0, 8.25, 12.26, 40.0])
def test_windows_that_do_not_hold_the_moment_know_nothing_of_the_event(start_s: float):
    facts = facts_of(window(start_s, "normal"))
    assert facts.hazard is None
    assert (facts.event_time_s, facts.alert_time_s, facts.ego_involved) == (None, None, None)
    assert facts.weather == "rain"
    assert not facts.holds_event


def test_a_normal_window_may_hold_a_hazard_but_no_event():
    facts = facts_of(window(10.0, "normal", event_time_s=None))
    assert facts.hazard is not None
    assert facts.event_time_s is None
    assert not facts.holds_event


def test_what_began_before_the_window_has_no_time_in_it():
    facts = facts_of(window(11.2))
    assert facts.hazard is not None
    assert (facts.alert_time_s, facts.hazard.onset_s, facts.hazard.initial_speed_mps) == (None, None, None)


def test_an_event_of_unknown_time_is_an_event_of_which_nothing_else_is_known():
    facts = facts_of(window(0.0, event_time_s=None, metadata={"blame": "other"}))
    assert facts.holds_event
    assert (facts.event_time_s, facts.hazard) == (None, None)


VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine
@given(st.dictionaries(st.sampled_from(["weather", "light", *EVENT]), VALUES))
def test_any_metadata_give_facts_of_the_right_types(metadata: dict):
    facts = facts_of(window(10.0, metadata=metadata))
    assert type(facts).model_validate_json(facts.model_dump_json()) == facts


def test_an_outcome_adds_up():
    failed = Dropped(item="a#0", reason="timeout", unit="request", stage="vqa", clip_id="a#0", clip_class=None)
    assert Outcome(requests=2, failed=1, replies=1, dropped=(failed,)).dropped == (failed,)
    for wrong in (
        {"requests": 2, "replies": 1},
        {"requests": 1, "failed": 1},
        {"requests": 1, "replies": 1, "unparsable": 2},
        {"requests": 1, "replies": 1, "dropped": (failed,)},
    ):
        with pytest.raises(ValidationError):
            Outcome.model_validate(wrong)
