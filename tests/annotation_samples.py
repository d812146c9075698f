"""Clips with facts as the rendered world has them, without any video, and the rules of the shipped configuration."""

import numpy as np
from hydra.utils import instantiate
from records import make_clip
from run_samples import label_set
from running import composed

from autodrive.annotation.sources import AnnotationSource
from autodrive.annotation.stages import Setting, Teacher
from autodrive.schema import ROAD, Annotation, Clip, DrivingEvent, Split, View
from autodrive.seeding import generator_for
from autodrive.tasks.task_book import TaskBook

SCENARIOS = {
    "lead_brake": ("ahead",),
    "cut_in": ("left", "right"),
    "crossing_vehicle": ("left", "right"),
    "pedestrian": ("left", "right"),
    "oncoming_drift": ("left",),
}
LABELS = ("normal", "near_collision", "collision")
# Uneven, as in the world: answers of rules must be even all the same.
WEATHER, LIGHT, ROAD_USERS = (
    ("clear", "clear", "clear", "rain", "fog"),
    ("day", "day", "dusk", "night"),
    ("car", "van", "truck"),
)


def shipped_rules() -> dict[str, AnnotationSource]:
    """The sources of `teacher=rules`."""
    return dict(instantiate(composed("annotate", ["clips=a", "out=b"]).teacher).sources)


def shipped_teacher() -> Teacher:
    return instantiate(composed("annotate", ["clips=a", "out=b"]).teacher)


def shipped_setting(seed: int = 0) -> Setting:
    book: TaskBook = instantiate(composed("annotate", ["clips=a", "out=b"]).prompts)
    return Setting(label_set(), book, seed)


def annotations_of(clips: list[Clip], seed: int = 0) -> dict[str, list[Annotation]]:
    """What the shipped rules say of clips, by source."""
    return {name: list(source.annotations(clips, label_set(), seed)) for name, source in shipped_rules().items()}


def scenes(num: int, seed: int = 0) -> list[Clip]:
    """Three clips a scene, one of each class; two in three scenes are of the train split, the others of test."""
    return [clip for index in range(num) for clip in _scene(index, generator_for(seed, "scene", index))]


def _scene(index: int, rng: np.random.Generator) -> list[Clip]:
    scenario = list(SCENARIOS)[index % len(SCENARIOS)]
    onset_s, alert_s = float(rng.uniform(-1, 2)), float(rng.uniform(0.1, 0.6))
    shared = {
        "weather": str(rng.choice(WEATHER)),
        "light": str(rng.choice(LIGHT)),
        "scenario": scenario,
        "other_road_user": "pedestrian" if scenario == "pedestrian" else str(rng.choice(ROAD_USERS)),
        "other_brakes": scenario != "pedestrian" and bool(rng.random() < 0.8),
        "side": str(rng.choice(SCENARIOS[scenario])),
        "initial_speed_mps": round(float(rng.uniform(8, 18)), 2),
        "hazard_onset_s": round(onset_s, 3),
    }
    split: Split = "test" if index % 3 == 2 else "train"
    before = [_event(rng, "harsh_acceleration", 0.0, 0.5)] if rng.random() < 0.2 else []
    clips = []
    for place, label in enumerate(LABELS):
        time_s = round(min(onset_s + float(rng.uniform(1.0, 1.9)), 3.95), 3)
        time_s = max(time_s, 0.3)
        facts, events = _outcome(label, scenario, time_s, rng)
        clips.append(
            make_clip(
                id=f"{index:04d}_{place}#0",
                source_video_id=f"scene_{index:04d}",
                label=label,
                event_time_s=None if label == "normal" else time_s,
                alert_time_s=None if label == "normal" or onset_s < 0 else round(onset_s + alert_s, 3),
                ego_involved=True,
                split=split,
                metadata={**shared, **facts, "hazard_time_s": time_s},
                driving_events=(*before, *events),
            )
        )
    return clips


def _outcome(label: str, scenario: str, time_s: float, rng: np.random.Generator) -> tuple[dict, list[DrivingEvent]]:
    brakes = bool(rng.random() < (0.9 if label == "near_collision" else 0.5))
    steers = not brakes if label == "near_collision" else bool(rng.random() < 0.15)
    facts: dict[str, object] = dict.fromkeys(("ego_role", "other_role", "impact_side", "blame"), "none")
    facts |= {"min_gap_m": round(float(rng.uniform(0.5, 6)), 3), "min_ttc_s": 99.0}
    if label == "near_collision":
        facts |= {
            "min_gap_m": round(float(rng.uniform(0.15, 3)), 3),
            "min_ttc_s": round(float(rng.uniform(0.2, 0.8)), 3),
        }
    if label == "collision":
        side = str(rng.choice(["front", "front", "front", "rear", "left", "right"]))
        strikes = side == "front"
        facts |= {"impact_side": side, "min_gap_m": 0.0, "min_ttc_s": 0.0}
        facts |= (
            {"ego_role": "striking", "other_role": "struck"}
            if strikes
            else {"ego_role": "struck", "other_role": "striking"}
        )
        facts["blame"] = "ego" if scenario == "lead_brake" and strikes else "other"
    facts |= {"ego_brakes": brakes, "peak_lateral_mps2": 4.0 if steers else 0.5}
    events = (
        [_event(rng, "harsh_braking", max(time_s - float(rng.uniform(0.3, 1.5)), 0.15), time_s - 0.05)]
        if brakes
        else []
    )
    if steers:
        events.append(_event(rng, "harsh_cornering", max(time_s - 0.5, 0.2), min(time_s + 0.2, 4.0)))
    return facts, events


def _event(rng: np.random.Generator, kind: str, start_s: float, end_s: float) -> DrivingEvent:
    start_s = round(start_s + float(rng.uniform(0, 0.1)), 3)
    return DrivingEvent(
        kind=kind,
        start_s=start_s,
        end_s=round(max(end_s, start_s + 0.15), 3),
        severity=round(float(rng.uniform(3, 8)), 2),
    )


def later(clip: Clip, view: View, start_s: int, camera: str) -> Clip:
    """The clip as one of a recording in which all that happens happens so much later."""

    def moved(time_s: float | None) -> float | None:
        return None if time_s is None else time_s + start_s

    metadata = {**clip.metadata, "camera": camera, "hazard_time_s": clip.metadata["hazard_time_s"] + start_s}
    events = [e.model_copy(update={"start_s": moved(e.start_s), "end_s": moved(e.end_s)}) for e in clip.driving_events]
    times = {name: moved(getattr(clip, name)) for name in ("start_s", "end_s", "event_time_s", "alert_time_s")}
    return clip.model_copy(
        update={"views": {ROAD: view}, "metadata": metadata, "driving_events": tuple(events), **times}
    )
