"""Chooses three outcomes of a scene that differ in class, and otherwise look as much alike as its candidates allow."""

from dataclasses import dataclass

import numpy as np

from autodrive.world.driver import Drivers
from autodrive.world.impact import RATE_HZ, Contact, Jolt
from autodrive.world.motion import Play, Window, play
from autodrive.world.physics import FRONT, LEFT, NORMAL_TTC_S, REAR, RIGHT, STEP_S, Outcomes, Trajectories
from autodrive.world.scenario import EGO, OtherMotion, Scene

# Siblings' events lie at most this far apart, and at least this long after the window's start.
SPREAD_S, LEAD_S = 2.0, 0.8
# With the longest tail after it, the window still ends within what is simulated.
LATEST_EVENT_S = 3.6
# Videos that are longer than this hold the same outcomes.
SHORT_S = 4.0
# An event is followed by at least this much.
SHORTEST_TAIL_S = 0.2
# Which side a collision is wanted on, drawn by these weights among those that candidates reach. Flanks touch where
# others come from a side; who swerves into what stands ahead is rare.
SIDE_WEIGHTS = {FRONT: 1.0, LEFT: 1.2, RIGHT: 1.2, REAR: 0.25}
SWERVED_INTO = 0.2
# Nuisances are wanted in every class: the share of normal outcomes that brake hard, of near-collisions that only steer.
HARD_MPS2, SOFT_MPS2, BRAKED_MPS2 = 5.0, 4.0, 2.5
NORMAL_HARD, NEAR_STEERED = 0.3, 0.2
# As many collisions are played out to find the one whose end is most alike (only the contact shows where it ends); the
# normal outcome is drawn from as many that end most alike.
PLAYED, ALIKE = 8, 2
# Of so many near-collisions that a scene holds, the briefest is taken.
BRIEFEST_OF = 12
# How long before the window's end outcomes are to look alike, and how much that counts.
SEEN_S = {0.0: 1.0, 1.0: 0.7}


@dataclass(frozen=True)
class Cast:
    """The candidates of one scene: who drives, where everybody goes, and what becomes of it."""

    scene: Scene
    drivers: Drivers
    other: OtherMotion
    ego: Trajectories
    outcomes: Outcomes

    def play(self, c: int, window: Window, jolts: list[Jolt], rng: np.random.Generator) -> tuple[Play, Contact | None]:
        """Candidate c over a window, with its contact."""
        side = str(self.outcomes.side[c])
        contact = Contact(float(self.outcomes.event_s[c]), side, float(self.outcomes.closing_mps[c])) if side else None
        motion = play(self.scene, self.ego.candidate(c), self.other.candidate(c), contact, window, jolts, rng)
        return motion, contact


def choose_near(cast: Cast, rng: np.random.Generator) -> int | None:
    """A near-collision, evaded by braking or steering: the scarcest outcome, to which the others are matched."""
    outcomes = cast.outcomes
    usable = (outcomes.label == "near_collision") & (outcomes.event_s > LEAD_S) & (outcomes.event_s < LATEST_EVENT_S)
    steered = outcomes.peak_decel_mps2 < SOFT_MPS2
    pool = np.flatnonzero(_prefer(usable, steered if rng.random() < NEAR_STEERED else ~steered))
    if not len(pool):
        return None
    # What lasts longer than a second is seen at one frame per second: the danger that no normal outcome is in, and the
    # braking that ends it.
    few = rng.permutation(pool)[:BRIEFEST_OF]
    before = np.arange(len(cast.ego.x_m))[:, None] * STEP_S <= outcomes.event_s[few]
    braked, danger = cast.ego.acceleration_mps2[:, few] < -BRAKED_MPS2, cast.ego.ttc_s[:, few] < NORMAL_TTC_S
    return int(few[np.argmin(np.maximum((braked & before).sum(axis=0), (danger & before).sum(axis=0)))])


def choose_alike(cast: Cast, near: int, window: Window, rng: np.random.Generator) -> dict[str, int] | None:
    """A collision and a normal outcome of wanted kinds, at about that time, that end like the near-collision."""
    o = cast.outcomes
    # The window is the near-collision's; the others must show their moment in it, with some film before and after.
    usable = (np.abs(o.event_s - o.event_s[near]) < SPREAD_S) & (o.event_s < window.end_s - SHORTEST_TAIL_S)
    # A longer video shows what one of `SHORT_S` does, with more lead-in, unless its event lies far from its end.
    start_s = window.end_s - SHORT_S
    if o.event_s[near] < start_s + LEAD_S:
        start_s = window.start_s
    usable &= o.event_s > max(start_s + LEAD_S, window.start_s + LEAD_S, LEAD_S / 2)
    collision, normal = (usable & (o.label == label) for label in ("collision", "normal"))
    if not collision.any() or not normal.any():
        return None
    # The side is drawn first, by wanted shares and not by how many candidates reach it: otherwise nearly all would be
    # fronts.
    sides = [side for side in SIDE_WEIGHTS if (collision & (o.side == side)).any()]
    swerved = [side in (LEFT, RIGHT) and cast.scene.side == 0 for side in sides]
    weights = np.array([SIDE_WEIGHTS[side] for side in sides]) * np.where(swerved, SWERVED_INTO, 1.0)
    wanted = sides[int(rng.choice(len(sides), p=weights / weights.sum()))]
    # A contact changes where everybody ends, so a few are played out; the one is taken that ends most like the
    # near-collision and steered about as sharply. What the contact leaves open is drawn again for the film, so that one
    # ends a little differently.
    pool = rng.permutation(np.flatnonzero(collision & (o.side == wanted)))[:PLAYED]
    states = _states(cast, window)
    ends = np.stack([_played_states(cast.scene, cast.play(int(c), window, [], rng)[0]) for c in pool], axis=1)
    steered = np.abs(o.peak_lateral_mps2[pool] - o.peak_lateral_mps2[near])
    hit = int(np.argmin(np.abs(ends - states[:, near, None]).sum(axis=0) + 0.5 * steered))

    # Most normal outcomes would be calm. The wanted kind comes first, likeness among what is left.
    hard = o.peak_decel_mps2 > HARD_MPS2
    normal = _prefer(normal, hard if rng.random() < NORMAL_HARD else ~hard)
    calm = np.flatnonzero(normal)
    # Near-collision and collision end differently all the same; the normal one is to lie between them.
    apart = sum(np.abs(states[:, calm] - end[:, None]).sum(axis=0) for end in (states[:, near], ends[:, hit]))
    # The closest approach and the sharpest steering on the way should say as little as the end.
    apart = apart + 2.0 * np.minimum(np.abs(o.min_gap_m[calm] - o.min_gap_m[near]), 2.0)
    apart = apart + 0.5 * np.abs(o.peak_lateral_mps2[calm] - o.peak_lateral_mps2[near])
    alike = calm[np.argsort(apart, kind="stable")[:ALIKE]]
    return {"near_collision": near, "collision": int(pool[hit]), "normal": int(rng.choice(alike))}


def _prefer(pool: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The wanted part of a pool, or all of it where that part is empty."""
    return pool & wanted if (pool & wanted).any() else pool


def _states(cast: Cast, window: Window) -> np.ndarray:
    """What single frames would show of every candidate without contact, shape (7 * len(SEEN_S), N)."""
    ego, other, states = cast.ego, cast.other, []
    for before_s, weight in SEEN_S.items():
        step = int(np.clip(round((window.end_s - before_s) / STEP_S), 1, len(ego.x_m) - 1))
        ahead, aside = other.x_m[step] - ego.x_m[step], other.y_m[step] - ego.y_m[step]
        yaw = np.arctan2((ego.y_m[step] - ego.y_m[step - 1]) / STEP_S, np.maximum(ego.speed_mps[step], 3.0))
        own = ego.y_m[step], yaw, ego.speed_mps[step], ego.acceleration_mps2[step]
        states.append(weight * _as_seen(cast.scene, ahead, aside, *own))
    return np.concatenate(states)


def _played_states(scene: Scene, motion: Play) -> np.ndarray:
    """The same of an outcome that was played out, shape (7 * len(SEEN_S),)."""
    states = []
    for before_s, weight in SEEN_S.items():
        last = len(motion.time_s) - 1 - round(before_s * RATE_HZ)
        at = slice(last, last + 1)
        ahead, aside = motion.other_x_m[at] - motion.ego_x_m[at], motion.other_y_m[at] - motion.ego_y_m[at]
        own = motion.ego_y_m[at], motion.ego_yaw_rad[at], motion.ego_speed_mps[at], motion.ego_accel_mps2[at]
        states.append(weight * _as_seen(scene, ahead, aside, *own)[:, 0])
    return np.concatenate(states)


def _as_seen(
    scene: Scene,
    ahead_m: np.ndarray,
    aside_m: np.ndarray,
    y_m: np.ndarray,
    yaw_rad: np.ndarray,
    speed_mps: np.ndarray,
    acceleration_mps2: np.ndarray,
) -> np.ndarray:
    """Size and place of the other in the picture, the ego's pose, dive and speed, in units that count about alike."""
    depth_m = ahead_m - scene.footprint_m[0] / 2 + EGO.length_m / 2
    seen = (depth_m > 0.6) & (np.abs(aside_m) - scene.footprint_m[1] / 2 < 0.75 * np.maximum(depth_m, 0.6))
    near_m = np.maximum(depth_m, 0.6)
    size, place = np.where(seen, 6.0 / (near_m + 1.0), 0.0), np.where(seen, aside_m / near_m, 0.0)
    dive = np.clip(acceleration_mps2, -8.0, 2.0) / 4.0
    return np.stack([3.0 * seen, size, 2.0 * place, 0.7 * y_m, np.degrees(yaw_rad) / 2.0, speed_mps / 2.5, dive])
