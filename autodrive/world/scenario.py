"""Scenes: what stands still or is fixed before the hazard, and the free choices that decide its outcome.

Axes are those of ISO 8855 laid along the road: x forward, y left, metres; the ego lane's centre is y = 0. Time zero is
the hazard's onset: until then everyone goes the same way in all siblings (see `lead_in`).
"""

from dataclasses import dataclass

import numpy as np

from autodrive.world.driver import Drivers

LANE_WIDTH_M = 3.5
GRAVITY_MPS2 = 9.81
# Lateral acceleration that tyres hold on a good road.
GRIP_MPS2 = 6.5


@dataclass(frozen=True)
class RoadUserType:
    """Size and mass of a kind of road user (length along its own heading)."""

    name: str
    length_m: float
    width_m: float
    height_m: float
    mass_kg: float


EGO = RoadUserType("car", 4.4, 1.8, 1.5, 1600.0)
ROAD_USERS = {
    "car": RoadUserType("car", 4.3, 1.8, 1.45, 1500.0),
    "van": RoadUserType("van", 5.0, 2.0, 2.1, 2300.0),
    "truck": RoadUserType("truck", 8.0, 2.4, 3.1, 9000.0),
    "pedestrian": RoadUserType("pedestrian", 0.5, 0.6, 1.75, 75.0),
}
VEHICLE_SHARES = {"car": 0.6, "van": 0.22, "truck": 0.18}


@dataclass(frozen=True)
class Scene:
    """The part of a scene that all its outcomes share.

    Attributes:
        scenario: Name of the hazard.
        light: Day, dusk or night.
        weather: Clear, rain or fog.
        ego_speed_mps: Speed before the onset.
        other: Kind of the other road user.
        side: Where it is or comes from: +1 left, -1 right, 0 ahead.
        start_xy_m: Its centre at the onset, relative to the ego's centre.
        start_velocity_mps: Its velocity along x and y until the onset.
        heading_rad: Direction it faces, 0 along the road.
        lanes_left: Lanes left of the ego lane.
        lanes_right: Lanes right of the ego lane.
        oncoming_from_lane: First lane to the left (counted from 1) used by oncoming traffic.
        look_seed: Decides colours, texture, props, background traffic, bends of the road and the drive up to the onset.
    """

    scenario: str
    light: str
    weather: str
    ego_speed_mps: float
    other: RoadUserType
    side: int
    start_xy_m: tuple[float, float]
    start_velocity_mps: tuple[float, float]
    heading_rad: float
    lanes_left: int
    lanes_right: int
    oncoming_from_lane: int
    look_seed: int

    @property
    def footprint_m(self) -> tuple[float, float]:
        """Length along x and width along y of the other road user."""
        if abs(np.sin(self.heading_rad)) > 0.5:
            return self.other.width_m, self.other.length_m
        return self.other.length_m, self.other.width_m

    @property
    def initial_gap_m(self) -> float:
        """Distance along the road from the ego's bumper to the other road user at the onset."""
        return self.start_xy_m[0] - (EGO.length_m + self.footprint_m[0]) / 2


@dataclass(frozen=True)
class OtherMotion:
    """Open-loop motion of the other road user for N candidates on a time grid of K steps from the onset.

    Attributes:
        x_m, y_m: Centre of the other road user, shape (K, N).
        vx_mps, vy_mps: Velocity of the other road user, shape (K, N).
        decel_mps2: Deceleration of the other road user along the road, shape (K, N).
    """

    x_m: np.ndarray
    y_m: np.ndarray
    vx_mps: np.ndarray
    vy_mps: np.ndarray
    decel_mps2: np.ndarray

    def candidate(self, index: int) -> "OtherMotion":
        """The motion of one candidate, still with a trailing axis of length one."""
        columns = (a[:, index : index + 1] for a in (self.x_m, self.y_m, self.vx_mps, self.vy_mps, self.decel_mps2))
        return OtherMotion(*columns)


def draw_scene(scenario: str, condition: str, rng: np.random.Generator) -> Scene:
    """Draw all that the outcomes of a scene have in common."""
    light = condition if condition in ("day", "dusk", "night") else str(rng.choice(["day", "dusk"], p=[0.75, 0.25]))
    weather = condition if condition in ("rain", "fog") else "clear"
    speed = float(rng.uniform(8.0, 18.0))
    kind = (
        "pedestrian"
        if scenario == "pedestrian"
        else str(rng.choice(list(VEHICLE_SHARES), p=list(VEHICLE_SHARES.values())))
    )
    other = ROAD_USERS[kind]
    lanes_left, lanes_right, oncoming_from = int(rng.integers(1, 3)), int(rng.integers(0, 2)), 1
    side, start, velocity, heading = 0, (0.0, 0.0), (0.0, 0.0), 0.0
    if scenario == "lead_brake":
        gap = speed * rng.uniform(0.3, 1.3) + 2.0
        start, velocity = ((EGO.length_m + other.length_m) / 2 + gap, rng.uniform(-0.3, 0.3)), (speed, 0.0)
    elif scenario == "cut_in":
        side = int(rng.choice([-1, 1]))
        lanes_left, lanes_right, oncoming_from = (2, lanes_right, 2) if side > 0 else (lanes_left, 1, 1)
        gap = rng.uniform(-4.0, 11.0)
        start = ((EGO.length_m + other.length_m) / 2 + gap, side * LANE_WIDTH_M)
        velocity = (speed - rng.uniform(-1.0, 4.5), 0.0)
    elif scenario == "crossing_vehicle":
        side = int(rng.choice([-1, 1]))
        arrival_s, cross_mps = rng.uniform(1.7, 2.8), rng.uniform(4.0, 9.0)
        start = (speed * arrival_s, side * cross_mps * (arrival_s + rng.uniform(-0.5, 0.8)))
        velocity, heading = (0.0, -side * cross_mps), -side * np.pi / 2
    elif scenario == "pedestrian":
        side = int(rng.choice([-1, 1]))
        edge = LANE_WIDTH_M * (0.5 + (lanes_left if side > 0 else lanes_right))
        lanes_left, edge = (1, min(edge, 1.5 * LANE_WIDTH_M)) if side > 0 else (lanes_left, edge)
        start = (speed * rng.uniform(1.6, 2.8), side * (edge + rng.uniform(-0.6, 0.8)))
        heading = -side * np.pi / 2
    else:
        side, other_mps = 1, rng.uniform(8.0, 16.0)
        start = ((speed + other_mps) * rng.uniform(1.5, 2.4), LANE_WIDTH_M + rng.uniform(-0.2, 0.3))
        velocity, heading = (-other_mps, 0.0), np.pi
    return Scene(
        scenario=scenario,
        light=light,
        weather=weather,
        ego_speed_mps=speed,
        other=other,
        side=side,
        start_xy_m=(float(start[0]), float(start[1])),
        start_velocity_mps=(float(velocity[0]), float(velocity[1])),
        heading_rad=float(heading),
        lanes_left=lanes_left,
        lanes_right=lanes_right,
        oncoming_from_lane=oncoming_from,
        look_seed=int(rng.integers(2**31)),
    )


def draw_drivers(scene: Scene, num: int, rng: np.random.Generator) -> Drivers:
    """Draw N ego drivers who differ in attention, brakes, distance, nerves and in whether they also steer."""
    reaction = np.where(rng.random(num) < 0.33, rng.uniform(1.2, 3.0, num), rng.uniform(0.25, 1.3, num))
    startle = np.where(rng.random(num) < 0.35, rng.uniform(0.1, 1.6, num), np.inf)
    # Away from what comes from a side; around what stands ahead on whichever side has room.
    away = -float(scene.side) if scene.side else np.where(rng.random(num) < 0.5, -1.0, 1.0)
    least, most = {"lead_brake": (1.8, 3.2), "oncoming_drift": (0.4, 2.2)}.get(scene.scenario, (0.7, 2.8))
    swerves, early = rng.random(num) < 0.5, rng.random(num) < 0.3
    # Many who swerve do little else.
    weak = rng.random(num) < np.where(swerves & ~early, 0.6, 0.15)
    limit = np.where(weak, rng.uniform(1.0, 3.5, num), rng.uniform(5.2, 9.0, num))
    swerve_m = np.where(swerves, away * rng.uniform(least, most, num), 0.0)
    lasts_s = np.where(early, rng.uniform(1.8, 2.8, num), rng.uniform(0.9, 1.5, num))
    return Drivers(
        reaction_s=reaction,
        brake_limit_mps2=limit,
        margin_m=0.5 + 3.5 * rng.random(num) ** 2,
        startle_s=startle,
        startle_speed_mps=scene.ego_speed_mps * rng.uniform(0.15, 0.75, num),
        swerve_m=swerve_m,
        # The smooth move's strongest lateral acceleration is 6 |move| / duration^2; tyres give no more than this.
        swerve_lasts_s=np.maximum(lasts_s, np.sqrt(6 * np.abs(swerve_m) / GRIP_MPS2)),
        swerve_early_s=np.where(early, rng.uniform(0.0, 1.2, num), np.inf),
        return_share=rng.uniform(0.3, 1.0, num),
    )


def draw_other_motion(scene: Scene, time_s: np.ndarray, num: int, rng: np.random.Generator) -> OtherMotion:
    """Draw N behaviours of the other road user after the onset.

    Args:
        scene: The scene that the three sibling videos share.
        time_s: Time grid from the onset, shape (K,).
        num: Number of candidates, N.
        rng: Source of all draws.
    """
    t = time_s[:, None]
    (x0, y0), (vx0, vy0) = scene.start_xy_m, scene.start_velocity_mps
    along, lateral = _keep_speed(t, vx0, num), _keep_speed(t, vy0, num)
    if scene.scenario == "lead_brake":
        # Most only brake briefly, for something that is gone again.
        final = np.maximum(vx0 - np.where(rng.random(num) < 0.3, vx0, rng.uniform(2.0, 7.0, num)), 0.0)
        along = _change_speed(t, vx0, rng.uniform(0, 0.6, num), rng.uniform(1.2, 8.5, num), final)
    elif scene.scenario == "cut_in":
        start, lasts = rng.uniform(0, 0.4, num), rng.uniform(1.0, 2.4, num)
        share = np.where(rng.random(num) < 0.75, 1.0, rng.uniform(0.15, 0.4, num))
        back = np.where(share < 1, 1.0, 0.0)
        move = -scene.side * LANE_WIDTH_M * share
        lateral = _glide(t, start, lasts, move, start + lasts + rng.uniform(0, 0.6, num), back)
        brake = rng.uniform(-1.0, 7.5, num)
        final = np.where(brake > 0, rng.uniform(0.0, 0.8, num) * vx0, vx0 + 3.0)
        along = _change_speed(t, vx0, start + rng.uniform(0.3, 1.6, num), np.maximum(np.abs(brake), 0.1), final)
    elif scene.scenario == "crossing_vehicle":
        lateral = _cross_or_yield(scene, t, num, rng)
    elif scene.scenario == "pedestrian":
        walk, begin, mind = rng.uniform(1.1, 3.4, num), rng.uniform(0, 0.6, num), rng.random(num)
        # Some stop at the edge of the ego's path, some freeze in it, most walk on.
        reach = np.abs(y0) - np.where(mind < 0.3, rng.uniform(1.7, 3.4, num), rng.uniform(-0.8, 0.8, num))
        reach = np.where(mind < 0.5, reach, 40.0)
        stop = begin + np.maximum(reach, 0.1) / walk
        lateral = -scene.side * walk * ((t >= begin) & (t < stop))
        along = lateral * 0.0
    else:
        amplitude, start = -rng.uniform(0.2, 4.0, num), rng.uniform(0, 0.4, num)
        lasts, back = rng.uniform(0.8, 1.8, num), np.where(rng.random(num) < 0.6, rng.uniform(0.6, 1.0, num), 0.0)
        lateral = _glide(t, start, lasts, amplitude, start + lasts + rng.uniform(-0.2, 0.5, num), back)
        along = -_change_speed(
            t, -vx0, rng.uniform(0.6, 1.8, num), rng.uniform(0.1, 6.0, num), rng.uniform(0.2, 0.9, num) * -vx0
        )
    step_s = float(time_s[1] - time_s[0])
    decel = np.maximum(-np.diff(along, axis=0, append=along[-1:]) / step_s, 0.0) * (vx0 > 0)
    return OtherMotion(x0 + _integrate(along, step_s), y0 + _integrate(lateral, step_s), along, lateral, decel)


def _keep_speed(t: np.ndarray, speed: float, num: int) -> np.ndarray:
    return np.full((len(t), num), speed)


def _change_speed(t: np.ndarray, speed: float, start: np.ndarray, rate: np.ndarray, final: np.ndarray) -> np.ndarray:
    """Speed that moves from `speed` towards `final` at `rate` (m/s2) from `start` on, shape (K, N)."""
    change = np.minimum(rate * np.maximum(t - start, 0.0), np.abs(final - speed))
    return speed + np.sign(final - speed) * change


def _glide(
    t: np.ndarray, start: np.ndarray, lasts: np.ndarray, move: np.ndarray, back_start: np.ndarray, back: np.ndarray
) -> np.ndarray:
    """Lateral velocity of a smooth displacement by `move` metres and, later, `back` of it undone, shape (K, N)."""
    there, again = np.clip((t - start) / lasts, 0, 1), np.clip((t - back_start) / lasts, 0, 1)
    return move * 6.0 * (there * (1 - there) - back * again * (1 - again)) / lasts


def _cross_or_yield(scene: Scene, t: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
    """Speed across the road: brake before the ego lane, stop in it, or go through, shape (K, N)."""
    speed, half = abs(scene.start_velocity_mps[1]), scene.other.length_m / 2
    brake = rng.uniform(2.5, 7.0, num)
    mind = rng.random(num)
    beyond = np.where(mind < 0.35, rng.uniform(1.3, 4.5, num), rng.uniform(-2.5, 1.0, num))
    to_line = abs(scene.start_xy_m[1]) - half - beyond
    yield_at = np.maximum((to_line - speed * speed / (2 * brake)) / speed, 0.0)
    yields = mind < 0.55
    through = _change_speed(t, speed, rng.uniform(0, 0.6, num), np.full(num, 1.5), speed + rng.uniform(-1.5, 2.5, num))
    return -scene.side * np.where(yields, _change_speed(t, speed, yield_at, brake, np.zeros(num)), through)


def _integrate(rate: np.ndarray, step_s: float) -> np.ndarray:
    """Running integral that starts at zero (left rule, as in the ego's simulation)."""
    total = np.cumsum(rate, axis=0) * step_s
    return total - rate * step_s
