"""What is filled into prompts, and what a role may be told at all."""

import re

from annotation_samples import scenes

from autodrive.annotation.facts import facts_of
from autodrive.annotation.figures import figures


def test_figures_say_every_time_that_can_be_seen_and_no_speed():
    for clip in scenes(12):
        facts = facts_of(clip)
        assert facts.hazard is not None
        said = figures(facts)
        times_s = [facts.hazard.time_s, *(e.start_s for e in facts.driving_events)]
        times_s += [facts.hazard.onset_s] if facts.hazard.onset_s is not None else []
        assert {f"{time_s:.1f} s" for time_s in times_s} <= set(re.findall(r"[\d.]+ s\b", said))
        assert ("to blame" in said) == (clip.label == "collision")
        assert ("First contact" in said) == (clip.label == "collision")
        assert ("does not brake" in said) == (facts.hazard.ego_brakes is False)
        assert "m/s" not in said


def test_a_window_without_the_event_has_no_figures_of_it():
    for clip in scenes(3):
        calm = clip.model_copy(update={"start_s": 20.0, "end_s": 24.0, "label": "normal", "event_time_s": None})
        assert figures(facts_of(calm)) == ""
