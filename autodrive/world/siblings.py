"""Finds, for one scene, three outcomes that differ only in what happens after the hazard's onset."""

from dataclasses import dataclass

import numpy as np

from autodrive.world.motion import Jolt, Play, Window, play
from autodrive.world.physics import STEP_S, Outcomes, Trajectories, judge, simulate
from autodrive.world.scenario import OtherMotion, Scene, draw_drivers, draw_other_motion, draw_scene
from autodrive.world.settings import CLASSES, WorldSettings

CANDIDATES = 128
SCENE_DRAWS = 60
HORIZON_S = 5.0
# How long after its event a video goes on, and how far siblings' events may lie apart.
TAIL_S = (0.35, 1.3)
SPREAD_S = 1.2
# A standard video ends at most this long after the onset, so that 4 s reach back before the hazard.
LATEST_END_S = 3.9
POTHOLE_RATE = 0.45
BRAKED_MPS2 = 1.5
# Potholes lie in the last seconds, whatever the length of the video.
LEAD_S = 3.85


@dataclass(frozen=True)
class Sibling:
    """One outcome of a scene, played out.

    Attributes:
        label: Class of this outcome.
        play: Everybody's motion over the window, times from the onset.
        jolts: Potholes and kerbs of the scene (the contact's own jolt is not listed).
        event_s, alert_s: Times of event and alert from the onset; the alert is None where no conflict ever showed.
        facts: Plain values for the metadata.
    """

    label: str
    play: Play
    jolts: list[Jolt]
    event_s: float
    alert_s: float | None
    facts: dict[str, float]


@dataclass(frozen=True)
class Family:
    """A scene with its three outcomes, in shuffled order, all shown over the same window."""

    scene: Scene
    window: Window
    siblings: list[Sibling]
    draws: int


def draw_family(settings: WorldSettings, split_code: int, index: int) -> Family:
    """Draw scenes until one is found in which all three outcomes are possible.

    Depends on nothing but the arguments: any number of workers gives the same families.

    Raises:
        RuntimeError: No such scene among `SCENE_DRAWS`.
    """
    scenario = settings.scenarios[index % len(settings.scenarios)]
    for attempt in range(SCENE_DRAWS):
        rng = np.random.default_rng([settings.seed, split_code, index, attempt])
        scene = draw_scene(scenario, str(rng.choice(settings.conditions)), rng)
        family = _try_scene(scene, settings, rng, attempt + 1)
        if family is not None:
            return family
    raise RuntimeError(f"scene {index}: no {scenario} scene with all three outcomes in {SCENE_DRAWS} draws")


def _try_scene(scene: Scene, settings: WorldSettings, rng: np.random.Generator, draws: int) -> Family | None:
    # Draws that depend on the video's length come from a stream of their own: the event is the same for every length.
    length_rng = np.random.default_rng(rng.integers(2**31))
    horizon_s = max(HORIZON_S, settings.duration_s + 2.0) if settings.event_anywhere else HORIZON_S
    time_s = np.arange(0.0, horizon_s, STEP_S)
    drivers = draw_drivers(scene, CANDIDATES, rng)
    other = draw_other_motion(scene, time_s, CANDIDATES, rng)
    ego = simulate(scene, drivers, other)
    outcomes = judge(scene, ego, other)
    chosen = _choose(outcomes, rng)
    if chosen is None:
        return None
    first, last = (f(outcomes.event_s[c] for c in chosen.values()) for f in (min, max))
    end = min(last + rng.uniform(TAIL_S[0], TAIL_S[1] * 0.8), LATEST_END_S)
    if settings.event_anywhere:
        end = first + length_rng.uniform(1.0, settings.duration_s - 1.0)
    if first <= end - settings.duration_s:  # a short video would begin after its event
        return None
    window = Window(end - settings.duration_s, end)
    order = rng.permutation(len(CLASSES))
    siblings = [
        _play_out(scene, label, chosen[label], ego, other, drivers.reaction_s, outcomes, window, rng)
        for label in CLASSES
    ]
    return Family(scene, window, [siblings[i] for i in order], draws)


def _choose(outcomes: Outcomes, rng: np.random.Generator) -> dict[str, int] | None:
    """One candidate of each class whose events lie close together in time, or None."""
    usable = (outcomes.event_s > 0.5) & (outcomes.event_s < LATEST_END_S - TAIL_S[0])
    # Hard negatives: two in five normal outcomes come from those in which the driver had to brake, if there are any.
    braked = usable & (outcomes.label == "normal") & (outcomes.peak_decel_mps2 > BRAKED_MPS2)
    if rng.random() < 0.4 and braked.any():
        usable = usable & ((outcomes.label != "normal") | braked)
    pools = {label: np.flatnonzero(usable & (outcomes.label == label)) for label in CLASSES}
    if not all(len(pool) for pool in pools.values()):
        return None
    for _ in range(24):
        chosen = {label: int(rng.choice(pool)) for label, pool in pools.items()}
        times = outcomes.event_s[list(chosen.values())]
        if times.max() - times.min() <= SPREAD_S:
            return chosen
    return None


def _play_out(
    scene: Scene,
    label: str,
    c: int,
    ego: Trajectories,
    other: OtherMotion,
    reaction_s: np.ndarray,
    outcomes: Outcomes,
    window: Window,
    rng: np.random.Generator,
) -> Sibling:
    columns = {k: v[:, c : c + 1] if v.ndim == 2 else v[c : c + 1] for k, v in vars(ego).items()}
    own = Trajectories(**columns)
    event_s = float(outcomes.event_s[c])
    jolts = _potholes(window, event_s, rng)
    contact = int(outcomes.event_step[c]) if label == "collision" else None
    motion = play(scene, own, other.candidate(c), contact, window, jolts, rng)
    alert = float(ego.alert_s[c])
    facts = {
        "min_gap_m": round(float(outcomes.min_gap_m[c]) if contact is None else 0.0, 3),
        "min_ttc_s": round(min(float(outcomes.min_ttc_s[c]), 99.0), 3),
        "peak_decel_mps2": round(float(outcomes.peak_decel_mps2[c]), 3),
        "reaction_s": round(float(reaction_s[c]), 3),
    }
    return Sibling(label, motion, jolts, event_s, min(alert, event_s) if np.isfinite(alert) else None, facts)


def _potholes(window: Window, event_s: float, rng: np.random.Generator) -> list[Jolt]:
    """Road blows at the same rate and strength in every class; half of them fall near the event."""
    jolts = []
    for near_event in (True, False):
        strike, where = rng.random() < POTHOLE_RATE, rng.random()
        pitch, roll = rng.uniform(1.0, 4.0), rng.uniform(-2.0, 2.0)
        frequency, decay = rng.uniform(6, 11), rng.uniform(0.05, 0.11)
        low, high = (event_s - 0.6, event_s + 0.3) if near_event else (event_s - 3.0, event_s)
        time = max(low + where * (high - low), window.end_s - LEAD_S)
        if strike:
            jolts.append(Jolt(time, float(np.radians(pitch)), float(np.radians(roll)), frequency, decay))
    return jolts
