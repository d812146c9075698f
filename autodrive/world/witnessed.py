"""Collisions of two others in view of the ego, which drives on or stops (`ego_involved` is false)."""

from dataclasses import dataclass, replace

import numpy as np

from autodrive.world.driver import Drivers
from autodrive.world.impact import RESTITUTION, rub
from autodrive.world.motion import Play, play
from autodrive.world.physics import STEP_S, Trajectories, simulate
from autodrive.world.scenario import (
    EGO,
    LANE_WIDTH_M,
    ROAD_USERS,
    VEHICLE_SHARES,
    OtherMotion,
    RoadUserType,
    Scene,
    draw_drivers,
    draw_scene,
)
from autodrive.world.settings import WorldSettings
from autodrive.world.siblings import Family, Partner, Sibling, draw_window, potholes, time_grid

# A car runs into another in the next lane; or one that crosses is struck by the one ahead, or by an oncoming one.
QUEUE, CROSSING_AHEAD, CROSSING_ONCOMING = "witnessed_queue", "witnessed_crossing_ahead", "witnessed_crossing_oncoming"
KINDS = (QUEUE, CROSSING_AHEAD, CROSSING_ONCOMING)
# Egos tried per scene, and scenes tried.
DRIVERS, DRAWS = 32, 200
# The collision lies this far before the ego, in time after the onset and in metres, and is not a mere touch.
EVENT_S, EVENT_AHEAD_M, LEAST_CLOSING_MPS = (1.0, 3.4), (6.0, 22.0), 3.5
# The ego keeps this far from both.
LEAST_ROOM_M = 0.8
# Length of the blow, and what sliding takes off the speed afterwards.
PULSE_S, SLIDE_MPS2 = 0.12, (3.5, 6.5)
HEADING_ALONG, HEADING_AGAINST = 0.0, float(np.pi)
# Seeds of witnessed scenes lie beside those of the families of three.
WITNESSED_STREAM = 10


@dataclass
class _Way:
    """Where one of the two goes.

    Attributes:
        user: Kind of road user.
        heading_rad: Direction it faces, 0 along the road.
        start_xy_m: Its centre at the onset, relative to the ego's.
        vx, vy: Velocity along and across the road in m/s at every step from the onset, shape (K,).
    """

    user: RoadUserType
    heading_rad: float
    start_xy_m: tuple[float, float]
    vx: np.ndarray
    vy: np.ndarray

    @property
    def footprint_m(self) -> np.ndarray:
        """Length along x and width along y."""
        across = abs(np.sin(self.heading_rad)) > 0.5
        return np.array([self.user.width_m, self.user.length_m] if across else [self.user.length_m, self.user.width_m])

    @property
    def x_m(self) -> np.ndarray:
        """Centre along the road at every step."""
        return self.start_xy_m[0] + (np.cumsum(self.vx) - self.vx) * STEP_S

    @property
    def y_m(self) -> np.ndarray:
        """Centre across the road at every step."""
        return self.start_xy_m[1] + (np.cumsum(self.vy) - self.vy) * STEP_S

    def scene(self, base: Scene) -> Scene:
        """The scene as if this one were its other road user."""
        velocity = float(self.vx[0]), float(self.vy[0])
        changes = {"start_xy_m": self.start_xy_m, "start_velocity_mps": velocity, "heading_rad": self.heading_rad}
        return replace(base, other=self.user, **changes)

    def motion(self, num: int) -> OtherMotion:
        """The same motion for every one of N egos."""
        decel = np.maximum(-np.gradient(np.abs(self.vx), STEP_S), 0.0) * (np.cos(self.heading_rad) > 0.5)
        arrays = (self.x_m, self.y_m, self.vx, self.vy, decel)
        return OtherMotion(*(np.repeat(a[:, None], num, axis=1) for a in arrays))


def draw_witnessed(settings: WorldSettings, split_code: int, index: int) -> Family:
    """Draw a collision of two others that the ego stays clear of: a family of one outcome.

    Depends on nothing but the arguments, as `siblings.draw_family` does.

    Raises:
        RuntimeError: No such scene among `DRAWS`.
    """
    for attempt in range(DRAWS):
        rng = np.random.default_rng([settings.seed, split_code + WITNESSED_STREAM, index, attempt])
        kind = KINDS[int(rng.integers(len(KINDS)))]
        base = replace(draw_scene("lead_brake", str(rng.choice(settings.conditions)), rng), scenario=kind)
        found = _try(base, settings, rng)
        if found is not None:
            return found
    raise RuntimeError(f"scene {index}: no witnessed collision in {DRAWS} draws")


def _try(base: Scene, settings: WorldSettings, rng: np.random.Generator) -> Family | None:
    length_rng = np.random.default_rng(rng.integers(2**31))
    base, striker, struck = _cast(base, time_grid(settings), rng)
    k = _contact(striker, struck)
    if k is None or not EVENT_S[0] < k * STEP_S < EVENT_S[1]:
        return None
    if abs(striker.vx[k] - struck.vx[k]) < LEAST_CLOSING_MPS:
        return None
    _collide(striker, struck, k, rng)
    # The ego minds whoever is, or comes, nearest to its own path.
    first, second = (striker, struck) if base.scenario == CROSSING_AHEAD else (struck, striker)
    scene = first.scene(base)
    drivers, motion = draw_drivers(scene, DRIVERS, rng), first.motion(DRIVERS)
    ego = simulate(scene, drivers, motion)
    clear = np.flatnonzero(_keeps_clear(ego, first) & _keeps_clear(ego, second) & _sees(ego, struck, k))
    if not len(clear):
        return None
    c = int(rng.choice(clear))
    window = draw_window(k * STEP_S, settings, rng, length_rng)
    jolts = potholes(k * STEP_S, ego.speed_mps[:, c], window, rng)
    own = ego.candidate(c)
    plays = [
        _turned(play(way.scene(base), own, way.motion(1), None, window, jolts, rng), k, rng) for way in (first, second)
    ]
    sibling = Sibling("collision", plays[0], jolts, None, k * STEP_S, k * STEP_S, _facts(own, drivers, c))
    middle = np.array([(striker.x_m[k] + struck.x_m[k]) / 2, (striker.y_m[k] + struck.y_m[k]) / 2, 0.7])
    # The partner is the second of the two.
    role = "striking" if second is striker else "struck"
    return Family(scene, window, [sibling], Partner(second.scene(base), plays[1], role, middle))


def _cast(base: Scene, time_s: np.ndarray, rng: np.random.Generator) -> tuple[Scene, _Way, _Way]:
    """The scene's lanes, who strikes and who is struck, as they go without contact."""
    users = [ROAD_USERS[str(rng.choice(list(VEHICLE_SHARES), p=list(VEHICLE_SHARES.values())))] for _ in range(2)]
    if base.scenario != CROSSING_ONCOMING:
        users[0] = ROAD_USERS["car"]  # whoever strikes ahead of the ego must not hide whom it strikes
    still, speed = np.zeros(len(time_s)), base.ego_speed_mps
    if base.scenario == QUEUE:
        side = int(rng.choice([-1, 1]))
        lanes = {"lanes_left": 2, "oncoming_from_lane": 2} if side > 0 else {"lanes_right": 1}
        lane_m, ahead = side * LANE_WIDTH_M, rng.uniform(6, 20)
        brake_s = rng.uniform(0.2, 0.7)
        front = _brake(speed, time_s, brake_s, rng.uniform(5.5, 8.5), rng.choice([0.0, 0.3]) * speed)
        behind_mps = speed + rng.uniform(0.0, 4.0)
        behind = _brake(behind_mps, time_s, brake_s + rng.uniform(1.0, 2.4), rng.uniform(4.0, 8.0), 0.0)
        gap = sum(user.length_m for user in users) / 2 + rng.uniform(4.0, 11.0)
        striker = _Way(users[0], HEADING_ALONG, (ahead, lane_m), behind, still.copy())
        struck = _Way(users[1], HEADING_ALONG, (ahead + gap, lane_m), front, still.copy())
        return replace(base, side=side, **lanes), striker, struck
    side, cross_mps, meets_s = int(rng.choice([-1, 1])), rng.uniform(4.0, 8.0), rng.uniform(1.2, 3.0)
    along = base.scenario == CROSSING_AHEAD
    lane_m = 0.0 if along else LANE_WIDTH_M
    if along:
        striker_mps, ahead = speed, rng.uniform(9, 20)
        striker = _Way(users[0], HEADING_ALONG, (ahead, lane_m), still + striker_mps, still.copy())
    else:
        striker_mps = -rng.uniform(8, 14)
        ahead = rng.uniform(10, 22) + (speed - striker_mps) * meets_s
        striker = _Way(users[0], HEADING_AGAINST, (ahead, lane_m), still + striker_mps, still.copy())
    # Half a second of braking is what the striking driver still has.
    braked = _brake(abs(striker_mps), time_s, max(meets_s - 0.5, 0.0), rng.uniform(3.0, 7.0), 0.0)
    striker.vx = np.sign(striker_mps) * braked
    start = ahead + striker_mps * meets_s, lane_m + side * cross_mps * meets_s + rng.uniform(-1.0, 1.0)
    struck = _Way(users[1], -side * np.pi / 2, start, still.copy(), still - side * cross_mps)
    return replace(base, side=side), striker, struck


def _brake(speed_mps: float, time_s: np.ndarray, start_s: float, rate_mps2: float, final_mps: float) -> np.ndarray:
    return np.maximum(speed_mps - rate_mps2 * np.maximum(time_s - start_s, 0.0), final_mps)


def _contact(a: _Way, b: _Way) -> int | None:
    """First step at which the two touch."""
    reach_x, reach_y = (a.footprint_m + b.footprint_m) / 2
    touching = (np.abs(a.x_m - b.x_m) < reach_x) & (np.abs(a.y_m - b.y_m) < reach_y)
    return int(np.argmax(touching)) if touching.any() else None


def _collide(striker: _Way, struck: _Way, k: int, rng: np.random.Generator) -> None:
    """Momentum along the striker's way is exchanged with restitution over a pulse; then both slide to a halt."""
    after_s = np.arange(len(striker.vx) - k) * STEP_S
    ramp, slide_s = np.clip(after_s / PULSE_S, 0, 1), np.maximum(after_s - PULSE_S, 0)
    total = striker.user.mass_kg + struck.user.mass_kg
    exchanged = (1 + RESTITUTION) * (striker.vx[k] - struck.vx[k])
    friction = rng.uniform(*SLIDE_MPS2, 2)
    striker.vx[k:] = rub(striker.vx[k] - ramp * exchanged * struck.user.mass_kg / total, slide_s, friction[0])
    struck.vx[k:] = rub(struck.vx[k] + ramp * exchanged * striker.user.mass_kg / total, slide_s, friction[1])
    struck.vy[k:] = rub(struck.vy[k] * (1 - 0.5 * ramp), slide_s, friction[1])


def _keeps_clear(ego: Trajectories, way: _Way) -> np.ndarray:
    """Which of N egos never come near, shape (N,)."""
    reach = (np.array([EGO.length_m, EGO.width_m]) + way.footprint_m) / 2 + LEAST_ROOM_M
    near = (np.abs(way.x_m[:, None] - ego.x_m) < reach[0]) & (np.abs(way.y_m[:, None] - ego.y_m) < reach[1])
    return ~near.any(axis=0)


def _sees(ego: Trajectories, way: _Way, k: int) -> np.ndarray:
    """Which of N egos have it ahead and in view at step k, shape (N,)."""
    ahead, aside = way.x_m[k] - ego.x_m[k], np.abs(way.y_m[k] - ego.y_m[k])
    return (ahead > EVENT_AHEAD_M[0]) & (ahead < EVENT_AHEAD_M[1]) & (aside < 0.6 * ahead)


def _turned(motion: Play, k: int, rng: np.random.Generator) -> Play:
    """The play in which the other road user is spun by the blow at step `k`."""
    since_s = np.maximum(motion.time_s - k * STEP_S, 0.0)
    spin = rng.choice([-1, 1]) * np.radians(rng.uniform(3, 14)) * (1 - np.exp(-since_s / 0.35))
    return replace(motion, other_heading_rad=motion.other_heading_rad + spin)


def _facts(ego: Trajectories, drivers: Drivers, c: int) -> dict[str, float]:
    return {
        "min_gap_m": round(float(np.hypot(np.maximum(ego.gap_x_m, 0), np.maximum(ego.gap_y_m, 0)).min()), 3),
        "min_ttc_s": round(min(float(ego.ttc_s.min()), 99.0), 3),
        "peak_decel_mps2": round(float(np.maximum(-ego.acceleration_mps2, 0).max()), 3),
        "reaction_s": round(float(drivers.reaction_s[c]), 3),
    }
