"""Roads that turn: straights, bends and the ramps between them, laid out in a plane.

The simulation knows arc length x and left offset y only. Where the road goes is geometry laid over them afterwards: it
decides what the camera sees and what the sensors feel, never what happens. Every scene's road comes from streams of its
own, drawn outwards from the onset, so that a longer video sees the same bends.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from autodrive.world.lead_in import LeadIn
from autodrive.world.scenario import Scene

# Spacing of the entries of a road's course.
STEP_M = 0.25
# The road is straight again this far beyond what is driven, which is out of sight.
MARGIN_M = 350.0
# Whether a bend spans the onset; how far it is to the first bend and between bends.
BEND_AT_ONSET_SHARE = 0.3
FIRST_STRAIGHT_M, STRAIGHT_M = (5.0, 110.0), (15.0, 120.0)
# Lateral acceleration at which bends are driven, and how often.
DRIVEN_AT_MPS2, DRIVEN_SHARES = ((0.7, 2.2), (2.4, 3.6), (3.9, 5.5)), (0.35, 0.25, 0.4)
RADIUS_M = (40.0, 300.0)
# Where the hazard plays, half of the bends are gentle, and all are wide where someone crosses.
HAZARD_M, GENTLE_MPS2, GENTLE_SHARE = 90.0, (0.6, 1.7), 0.55
GENTLE_RADIUS_M, CROSSING_RADIUS_M = (80.0, 300.0), (150.0, 300.0)
TURN_RAD = (0.25, 1.15)
LONGEST_ARC_M = 90.0
# A ramp takes about a second to drive.
RAMP_S = (0.7, 1.2)
# The road never heads further away from its direction at the onset, so it cannot cross itself.
MOST_HEADING_RAD = 1.35


@dataclass(frozen=True)
class Bend:
    """A clothoid, an arc and a clothoid.

    Attributes:
        start_m: Arc length at which it begins.
        ramp_m: Length of each clothoid.
        arc_m: Length of the arc.
        curvature_per_m: Curvature of the arc, left positive.
    """

    start_m: float
    ramp_m: float
    arc_m: float
    curvature_per_m: float

    @property
    def length_m(self) -> float:
        """Length along the road."""
        return 2 * self.ramp_m + self.arc_m

    @property
    def turn_rad(self) -> float:
        """Change of the road's direction, left positive."""
        return self.curvature_per_m * (self.ramp_m + self.arc_m)

    def knots(self) -> list[tuple[float, float]]:
        """Arc length and curvature where its curvature begins or ceases to change."""
        ends = np.cumsum([self.start_m, self.ramp_m, self.arc_m, self.ramp_m])
        return [
            (float(at), k) for at, k in zip(ends, (0.0, self.curvature_per_m, self.curvature_per_m, 0.0), strict=True)
        ]


@dataclass(frozen=True)
class Road:
    """The centre of the ego's lane, in steps of `STEP_M` from `start_m`; beyond both ends it goes straight on.

    Attributes:
        start_m: Arc length of the first entry; zero is the ego's centre at the onset.
        curvature_per_m: Curvature, left positive, shape (L,).
        course: X and y in the plane, in metres, and heading in radians (left positive), shape (L, 3); all zero at the
            onset.
    """

    start_m: float
    curvature_per_m: np.ndarray
    course: np.ndarray

    @classmethod
    def through(cls, bends: Sequence[Bend], range_m: tuple[float, float]) -> "Road":
        """Lay out a road with bends that do not overlap, straight elsewhere.

        Args:
            bends: The bends in any order.
            range_m: First and last arc length to lay out; zero lies between.
        """
        knots = np.array(sorted(knot for bend in bends for knot in bend.knots()) or [(0.0, 0.0)])
        first, last = int(np.floor(range_m[0] / STEP_M)), int(np.ceil(range_m[1] / STEP_M))
        along = np.arange(first, last + 1) * STEP_M
        curvature = np.interp(along, knots[:, 0], knots[:, 1], left=0.0, right=0.0)
        heading = _integral(curvature, -first)
        course = np.stack([_integral(np.cos(heading), -first), _integral(np.sin(heading), -first), heading], axis=1)
        return cls(first * STEP_M, curvature, course)

    @classmethod
    def straight(cls) -> "Road":
        """A road without bends."""
        return cls.through([], (-STEP_M, STEP_M))

    def curvature(self, along_m: np.ndarray) -> np.ndarray:
        """Curvature at arc lengths, 1/m."""
        grid = self.start_m + STEP_M * np.arange(len(self.curvature_per_m))
        return np.interp(along_m, grid, self.curvature_per_m, left=0.0, right=0.0)

    def heading(self, along_m: np.ndarray) -> np.ndarray:
        """Direction of the road at arc lengths, radians, left of the direction at the onset."""
        grid = self.start_m + STEP_M * np.arange(len(self.course))
        return np.interp(along_m, grid, self.course[:, 2])

    def place(self, along_m: np.ndarray, left_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """X and y in the plane of points at arc lengths and left offsets."""
        # The course is straight between two entries. They are counted from arc length zero, not from the first one, so
        # that siblings, whose roads differ in length, get the same to the last bit.
        steps, first = along_m / STEP_M, round(self.start_m / STEP_M)
        index = np.clip(np.floor(steps).astype(np.int64), first, first + len(self.course) - 2)
        part, index = steps - index, index - first
        # An offset is laid off square to the road's direction there.
        x, y, heading = (here[index] + part * change[index] for here, change in self._columns)
        return x - left_m * np.sin(heading), y + left_m * np.cos(heading)

    @cached_property
    def _columns(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each column of the course, and its change from one entry to the next."""
        return [(column, np.diff(column)) for column in np.ascontiguousarray(self.course.T)]

    def lay(self, points_m: np.ndarray) -> np.ndarray:
        """Points (..., 3) in road coordinates, laid out in the plane; heights stay."""
        return np.stack([*self.place(points_m[..., 0], points_m[..., 1]), points_m[..., 2]], axis=-1)


def draw_road(scene: Scene, lead_in: LeadIn, range_m: tuple[float, float]) -> Road:
    """The road of a scene; the same bends for every range.

    Args:
        scene: The scene; its `look_seed` decides the bends.
        lead_in: The ego's driving before the onset, for bends are as tight as the speed allows.
        range_m: First and last arc length that the ego reaches.
    """
    # One stream for the bend at the onset and one for each way outwards: how far the ego gets decides how many bends
    # are drawn, never which.
    first, last = range_m[0] - MARGIN_M, range_m[1] + MARGIN_M
    rng = np.random.default_rng([scene.look_seed, 8, 0])
    bend = _draw_bend(scene, scene.ego_speed_mps, 0.0, rng)
    bends, middle = [], Road.straight()
    begins = ends = 0.0
    if rng.random() < BEND_AT_ONSET_SHARE:
        bend = replace(bend, start_m=-rng.random() * bend.length_m)
        bends, begins, ends = [bend], bend.start_m, bend.start_m + bend.length_m
        middle = Road.through(bends, (begins, ends))
    for stream, reach in ((1, (ends, last)), (2, (begins, first))):
        heading = float(middle.heading(np.array(reach[0])))
        bends += _continue(scene, lead_in, reach, heading, np.random.default_rng([scene.look_seed, 8, stream]))
    return Road.through(bends, (first, last))


def _continue(
    scene: Scene, lead_in: LeadIn, range_m: tuple[float, float], heading_rad: float, rng: np.random.Generator
) -> list[Bend]:
    """Bends from one arc length outwards to another, ahead or behind; none turns the road too far away."""
    # `at` walks outwards: the near end of the next bend, which lies ahead of it or behind it.
    (at, limit), bends = range_m, []
    way = 1.0 if limit > at else -1.0
    reached_m = scene.ego_speed_mps * lead_in.time_s + lead_in.shift_m
    at += way * rng.uniform(*FIRST_STRAIGHT_M)
    while way * at < way * limit:
        speed = scene.ego_speed_mps + float(np.interp(at, reached_m, lead_in.gain_mps))
        bend = _draw_bend(scene, speed, at, rng)
        # Walked backwards, a bend to the left turns the road to the right.
        if abs(heading_rad + way * bend.turn_rad) > MOST_HEADING_RAD:
            bend = replace(bend, curvature_per_m=-bend.curvature_per_m)
        heading_rad += way * bend.turn_rad
        bends.append(replace(bend, start_m=min(at, at + way * bend.length_m)))
        at += way * (bend.length_m + rng.uniform(*STRAIGHT_M))
    return bends


def _draw_bend(scene: Scene, speed_mps: float, at_m: float, rng: np.random.Generator) -> Bend:
    """A bend to either side that is driven at `speed_mps`; where it begins is left open."""
    driven_at, radii = DRIVEN_AT_MPS2[int(rng.choice(len(DRIVEN_SHARES), p=DRIVEN_SHARES))], RADIUS_M
    gentle, crossed = rng.random() < GENTLE_SHARE, "crossing" in scene.scenario or scene.scenario == "pedestrian"
    if 0.0 <= at_m < HAZARD_M and (gentle or crossed):
        driven_at, radii = GENTLE_MPS2, CROSSING_RADIUS_M if crossed else GENTLE_RADIUS_M
    # Lateral acceleration is v^2 / r.
    curvature = 1 / np.clip(speed_mps**2 / rng.uniform(*driven_at), *radii)
    # A clothoid turns by half of what an arc of its length would, so the bend turns by k (ramp + arc).
    ramp = speed_mps * rng.uniform(*RAMP_S)
    arc = np.clip(rng.uniform(*TURN_RAD) / curvature - ramp, 5.0, LONGEST_ARC_M)
    return Bend(0.0, float(ramp), float(arc), float(curvature * rng.choice([-1, 1])))


def _integral(rate: np.ndarray, zero: int) -> np.ndarray:
    """Integral over arc length (trapezoidal rule) from index `zero` outwards, so that it is the same for any range."""
    steps = (rate[1:] + rate[:-1]) / 2 * STEP_M
    return np.concatenate([-np.cumsum(steps[:zero][::-1])[::-1], [0.0], np.cumsum(steps[zero:])])
