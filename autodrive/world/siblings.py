"""Finds, for one scene, three outcomes that differ in motion after the onset and in as little else as can be."""

from dataclasses import dataclass

import numpy as np

from autodrive.world.casting import LATEST_EVENT_S, LEAD_S, SHORT_S, SHORTEST_TAIL_S, Cast, choose_alike, choose_near
from autodrive.world.follower import follow
from autodrive.world.impact import Contact, Jolt
from autodrive.world.motion import Play, Window
from autodrive.world.physics import STEP_S, judge, simulate
from autodrive.world.scenario import Scene, draw_drivers, draw_other_motion, draw_scene
from autodrive.world.settings import CLASSES, WorldSettings

# Outcomes tried per scene, and scenes tried until all three classes are among them.
CANDIDATES, SCENE_DRAWS = 768, 60
# A window ends this long after the event of its near-collision: the larger the skew, the more often soon.
TAIL_S, TAIL_SKEW = (SHORTEST_TAIL_S, 3.0), 5.0
# As far as the latest event and the longest tail after it reach.
HORIZON_S = LATEST_EVENT_S + TAIL_S[1]
# Chance of each of two potholes or kerbs per video; at walking pace they are not felt.
POTHOLE_RATE, ROLLING_MPS = 0.45, 2.0
WHEELBASE_M = 2.7


@dataclass(frozen=True)
class Sibling:
    """One outcome of a scene, played out.

    Attributes:
        label: Class of this outcome.
        play: Everybody's motion over the window, times from the onset.
        jolts: Potholes and kerbs on the way, each axle by itself (the contact's own jolt is not listed).
        contact: First contact of the ego; None where there is none.
        event_s, alert_s: Times of event and alert from the onset; the alert is None where no conflict ever showed.
        facts: Plain values for the metadata.
    """

    label: str
    play: Play
    jolts: list[Jolt]
    contact: Contact | None
    event_s: float
    alert_s: float | None
    facts: dict[str, float]


@dataclass(frozen=True)
class Partner:
    """The second of two others who collide in view of the ego.

    Attributes:
        scene: The scene as if it were the other road user.
        play: Its motion in `other_*`; the ego's is the same as in the sibling's.
        role: Whether it is striking or struck.
        place_m: Where the two touch (x, y, z).
    """

    scene: Scene
    play: Play
    role: str
    place_m: np.ndarray


@dataclass(frozen=True)
class Family:
    """A scene with its three outcomes in shuffled order, or with one collision of two others that the ego witnesses.

    Attributes:
        scene: What all its outcomes share.
        window: Part of time that all its videos show.
        siblings: The outcomes.
        partner: In a witnessed collision, the second of the two; None: the ego is in it.
    """

    scene: Scene
    window: Window
    siblings: list[Sibling]
    partner: Partner | None = None


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
        family = _try_scene(scene, settings, rng)
        if family is not None:
            return family
    raise RuntimeError(f"scene {index}: no {scenario} scene with all three outcomes in {SCENE_DRAWS} draws")


def _try_scene(scene: Scene, settings: WorldSettings, rng: np.random.Generator) -> Family | None:
    # Draws that depend on the video's length come from a stream of their own: the event is the same for every length.
    length_rng = np.random.default_rng(rng.integers(2**31))
    time_s = time_grid(settings)
    drivers = draw_drivers(scene, CANDIDATES, rng)
    other = draw_other_motion(scene, time_s, CANDIDATES, rng)
    ego = simulate(scene, drivers, other)
    blow = follow(ego, rng)
    cast = Cast(scene, drivers, other, ego, judge(scene, ego, other, blow.step, blow.closing_mps))
    near = choose_near(cast, rng)
    if near is None:
        return None
    window = draw_window(float(cast.outcomes.event_s[near]), settings, rng, length_rng)
    chosen = choose_alike(cast, near, window, rng)
    if chosen is None:
        return None
    siblings = [_sibling(cast, label, c, window, rng) for label, c in chosen.items()]
    return Family(scene, window, [siblings[i] for i in rng.permutation(len(CLASSES))])


def time_grid(settings: WorldSettings) -> np.ndarray:
    """Times from the onset at which everybody's motion is simulated, as far as a video may show it."""
    horizon_s = max(HORIZON_S, LATEST_EVENT_S + settings.duration_s) if settings.event_anywhere else HORIZON_S
    return np.arange(0.0, horizon_s + STEP_S, STEP_S)


def draw_window(
    event_s: float, settings: WorldSettings, rng: np.random.Generator, length_rng: np.random.Generator
) -> Window:
    """A window that ends soon or late after the event, never so late that the video would begin after it."""
    longest = min(TAIL_S[1], min(SHORT_S, settings.duration_s) - LEAD_S)
    # More often soon than late: what one frame per second misses is then often all there is.
    end = event_s + TAIL_S[0] + (longest - TAIL_S[0]) * rng.random() ** TAIL_SKEW
    if settings.event_anywhere:
        end = event_s + length_rng.uniform(1.0, settings.duration_s - 1.0)
    return Window(end - settings.duration_s, end)


def _sibling(cast: Cast, label: str, c: int, window: Window, rng: np.random.Generator) -> Sibling:
    outcomes, alert, event_s = cast.outcomes, float(cast.ego.alert_s[c]), float(cast.outcomes.event_s[c])
    jolts = potholes(event_s, cast.ego.speed_mps[:, c], window, rng)
    motion, contact = cast.play(c, window, jolts, rng)
    facts = {
        "min_gap_m": 0.0 if contact else round(float(outcomes.min_gap_m[c]), 3),
        "min_ttc_s": round(min(float(outcomes.min_ttc_s[c]), 99.0), 3),
        "peak_decel_mps2": round(float(outcomes.peak_decel_mps2[c]), 3),
        "peak_lateral_mps2": round(float(outcomes.peak_lateral_mps2[c]), 3),
        "reaction_s": round(float(cast.drivers.reaction_s[c]), 3),
    }
    return Sibling(label, motion, jolts, contact, event_s, min(alert, event_s) if np.isfinite(alert) else None, facts)


def potholes(event_s: float, speed_mps: np.ndarray, window: Window, rng: np.random.Generator) -> list[Jolt]:
    """Road blows at the same rate and strength in every class; half of them fall near the event.

    The rear axle follows the front one: two opposite blows, which a car at rest does not get. `speed_mps` is the speed
    without contact, so that a car that a contact has stopped may still get one.
    """
    jolts = []
    for near_event in (True, False):
        strike, where = rng.random() < POTHOLE_RATE, rng.random()
        pitch, roll = rng.uniform(0.8, 2.6), rng.uniform(-1.6, 1.6)
        frequency, decay = rng.uniform(6, 11), rng.uniform(0.05, 0.11)
        low, high = (event_s - 0.6, event_s + 0.3) if near_event else (event_s - 3.0, event_s + 1.0)
        time_s = low + where * (high - low)
        # Not before the first frame of a short video, where it would not be seen; a long one shows what came earlier.
        earliest_s = window.end_s - (SHORT_S - 0.15)
        if event_s > earliest_s + 0.6:
            time_s = max(time_s, earliest_s)
        now_mps = float(speed_mps[int(np.clip(time_s / STEP_S, 0, len(speed_mps) - 1))])
        if strike and now_mps > ROLLING_MPS:
            angles = float(np.radians(pitch)), float(np.radians(roll))
            jolts.append(Jolt(time_s, *angles, frequency, decay))
            jolts.append(Jolt(time_s + WHEELBASE_M / now_mps, -0.7 * angles[0], 0.7 * angles[1], frequency, decay))
    return jolts
