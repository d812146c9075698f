"""What flies about in videos of every class: splinters and grit, leaves, paper, birds and spray.

A burst of specks lies near the hazard's moment in the same share of all videos: in a collision that the camera sees it
comes from the contact, else from the road. What begins before the onset is drawn per scene, so that siblings share it,
and what begins later per video.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from autodrive.world.scenario import EGO, GRAVITY_MPS2

# Share of videos of every class with a burst near the hazard's moment, and how far from it one may lie.
BURST_SHARE, BURST_SPREAD_S = 0.6, 0.15
# Share of potholes and kerbs that throw up grit.
POTHOLE_GRIT_SHARE = 0.5
# Everything else is drawn for each of these stretches of time by itself, so a longer video shows the same at a moment.
STRETCH_S = 2.0
LEAVES_SHARE, PAPER_SHARE, BIRDS_SHARE, GRIT_SHARE = 0.16, 0.07, 0.12, 0.08
SPRAY_SHARE = {True: 0.7, False: 0.06}
# Seeds must not be negative: stretches are counted from well before any onset.
FIRST_STRETCH = 10**4
# From the ego's centre.
BUMPER_M = EGO.length_m / 2


@dataclass(frozen=True)
class Specks:
    """N specks, each a flat piece with a life of its own; every array's first axis is N.

    Attributes:
        start_s, lasts_s: When it appears, in the drive's time, and for how long, shape (N,).
        origin_m, velocity_mps: Where and how it starts in road coordinates (x, y, z), shape (N, 3).
        fall_mps2: Downward acceleration: gravity for splinters, about none for what the air carries, shape (N,).
        sway_m: How far the air lifts and drops it, shape (N,).
        size_m: Half its length, shape (N,).
        slimness: Its width as a share of its length, shape (N,).
        angle_rad, spin_radps, flap_rad: Its direction in the picture, how fast that turns, and how far it beats to and
            fro, shape (N,).
        is_wing: Whether it turns about its end and not about its centre, shape (N,).
        colour: RGB in full light, 0 to 255, shape (N, 3).
    """

    start_s: np.ndarray
    lasts_s: np.ndarray
    origin_m: np.ndarray
    velocity_mps: np.ndarray
    fall_mps2: np.ndarray
    sway_m: np.ndarray
    size_m: np.ndarray
    slimness: np.ndarray
    angle_rad: np.ndarray
    spin_radps: np.ndarray
    flap_rad: np.ndarray
    is_wing: np.ndarray
    colour: np.ndarray


@dataclass(frozen=True)
class Flying:
    """What is drawn of specks.

    Attributes:
        time_s: Time of every frame, shape (T,).
        specks: All specks of the video.
    """

    time_s: np.ndarray
    specks: Specks


@dataclass(frozen=True)
class Track:
    """Where a vehicle is and how fast, for every frame, shape (T,) each; x is its centre."""

    x_m: np.ndarray
    y_m: np.ndarray
    vx_mps: np.ndarray
    length_m: float


@dataclass(frozen=True)
class Drive:
    """What of a video decides the things that fly about in it.

    Attributes:
        time_s: Time of every frame from the onset, shape (T,).
        ego: The car's own way.
        vehicles: Other vehicles, whose wheels throw up spray.
        wet: Whether it rains.
        event_s: The hazard's moment.
        contact_m: Where the ego and another road user touch at that moment (x, y, z), if a forward camera sees it.
        jolts_s: Times of potholes and kerbs.
    """

    time_s: np.ndarray
    ego: Track
    vehicles: list[Track]
    wet: bool
    event_s: float
    contact_m: np.ndarray | None
    jolts_s: list[float]

    def at(self, values: np.ndarray, time_s: float) -> float:
        """One of the tracks' arrays at a time."""
        return float(np.interp(time_s, self.time_s, values))

    def ahead(self, time_s: float, along_m: float, left_m: float, up_m: float) -> np.ndarray:
        """A point before the ego as it is at a time, in road coordinates."""
        return np.array([self.at(self.ego.x_m, time_s) + along_m, self.at(self.ego.y_m, time_s) + left_m, up_m])


def make_flying(drive: Drive, look_seed: int, number: int) -> Flying:
    """Draw all that flies about in a video.

    Args:
        drive: The video's tracks and moments.
        look_seed: Seed of the scene's appearance, which siblings share.
        number: The video's number within its scene, which says nothing about its class.
    """
    rng = np.random.default_rng([look_seed, 7, number])
    parts = [_of(0)]
    shown, offset, from_road = rng.random(), rng.uniform(-BURST_SPREAD_S, BURST_SPREAD_S), _grit_origin(rng)
    if shown < BURST_SHARE:
        if drive.contact_m is not None:
            parts.append(_grit(drive, drive.event_s, drive.contact_m, rng))
        else:
            start = max(drive.event_s + offset, 0.0)
            parts.append(_grit(drive, start, drive.ahead(start, *from_road), rng))
    for jolt_s in drive.jolts_s:
        thrown, origin = rng.random(), _grit_origin(rng)
        if thrown < POTHOLE_GRIT_SHARE:
            parts.append(_grit(drive, jolt_s, drive.ahead(jolt_s, *origin), rng))
    first, last = (int(np.floor(t / STRETCH_S)) for t in (drive.time_s[0], drive.time_s[-1]))
    for stretch in range(first, last + 1):
        shared = stretch < 0
        rng = np.random.default_rng([look_seed, 8, stretch + FIRST_STRETCH, 0 if shared else number + 1])
        parts += _stretch(drive, stretch * STRETCH_S, rng)
    joined = (np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Specks))
    return Flying(drive.time_s, Specks(*joined))


def _stretch(drive: Drive, begin_s: float, rng: np.random.Generator) -> list[Specks]:
    """What begins to fly in one stretch of time; each kind is drawn whether or not the others are."""
    kinds: list[tuple[float, Callable[[Drive, float, np.random.Generator], Specks]]] = [
        (LEAVES_SHARE, _leaves),
        (PAPER_SHARE, _paper),
        (BIRDS_SHARE, _birds),
        (SPRAY_SHARE[drive.wet], _spray),
        (GRIT_SHARE, lambda drive, start, rng: _grit(drive, start, drive.ahead(start, *_grit_origin(rng)), rng)),
    ]
    parts = []
    for share, make in kinds:
        own = np.random.default_rng(rng.integers(2**31))
        if own.random() < share:
            parts.append(make(drive, begin_s + own.uniform(0, STRETCH_S), own))
    return parts


def _of(num: int, **given) -> Specks:
    """N specks that stay where they are unless something else is given; scalars are repeated."""
    vectors = ("origin_m", "velocity_mps", "colour")
    values = {f.name: np.zeros((num, 3) if f.name in vectors else num) for f in fields(Specks)}
    for name, value in given.items():
        values[name] = np.broadcast_to(value, values[name].shape)
    return Specks(**values)


def _grit_origin(rng: np.random.Generator) -> tuple[float, float, float]:
    """Where a wheel throws up gravel, as seen from the ego's centre: about where a bumper would touch something."""
    return BUMPER_M + rng.uniform(0.0, 0.4), rng.uniform(-1.0, 1.0), rng.uniform(0.4, 0.9)


def _grit(drive: Drive, start_s: float, origin_m: np.ndarray, rng: np.random.Generator) -> Specks:
    """A burst of small pieces: gravel, or glass and plastic. They look alike, whatever threw them."""
    num = int(rng.integers(7, 14))
    carried = drive.at(drive.ego.vx_mps, start_s) * rng.uniform(0.4, 1.05, num)
    velocity = np.stack([carried + rng.normal(0, 1.0, num), rng.normal(0, 1.8, num), rng.uniform(0.5, 4.0, num)], 1)
    grey = rng.uniform(30, 225, num)[:, None] * rng.uniform((0.9, 0.85, 0.75), (1.0, 1.0, 1.0), (num, 3))
    return _of(
        num,
        start_s=start_s,
        lasts_s=rng.uniform(0.3, 0.6, num),
        origin_m=origin_m,
        velocity_mps=velocity,
        fall_mps2=GRAVITY_MPS2,
        size_m=rng.uniform(0.02, 0.055, num),
        slimness=rng.uniform(0.5, 1.0, num),
        angle_rad=rng.uniform(0, np.pi, num),
        spin_radps=rng.uniform(-25, 25, num),
        colour=grey,
    )


def _blown(drive: Drive, start_s: float, num: int, spread_m: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Ways of things that the wind blows across the road some metres ahead."""
    side, along = rng.choice([-1, 1]), rng.uniform(7, 22)
    middle = drive.ahead(start_s, along, side * rng.uniform(1.5, 4.0), rng.uniform(0.3, 1.8))
    wind = np.array([rng.uniform(-2, 2), -side * rng.uniform(2.0, 5.0), rng.uniform(-0.3, 0.3)])
    return {
        "start_s": start_s + rng.uniform(0, 0.3, num),
        "lasts_s": rng.uniform(0.8, 1.8, num),
        "origin_m": middle + rng.normal(0, 1, (num, 3)) * (spread_m, spread_m, spread_m / 3),
        "velocity_mps": wind + rng.normal(0, 1, (num, 3)) * (0.8, 0.6, 0.3),
        "sway_m": rng.uniform(0.05, 0.3, num),
        "angle_rad": rng.uniform(0, np.pi, num),
        "spin_radps": rng.uniform(-9, 9, num),
    }


def _leaves(drive: Drive, start_s: float, rng: np.random.Generator) -> Specks:
    num = int(rng.integers(4, 13))
    hue = np.array([(150, 104, 40), (116, 84, 44), (104, 112, 50)])[rng.integers(3, size=num)]
    return _of(
        num,
        **_blown(drive, start_s, num, 1.0, rng),
        size_m=rng.uniform(0.06, 0.13, num),
        slimness=rng.uniform(0.4, 0.8, num),
        colour=hue * rng.uniform(0.7, 1.2, (num, 1)),
    )


def _paper(drive: Drive, start_s: float, rng: np.random.Generator) -> Specks:
    num = int(rng.integers(1, 3))
    way = _blown(drive, start_s, num, 0.6, rng)
    return _of(num, **way, size_m=rng.uniform(0.14, 0.26, num), slimness=0.7, colour=rng.uniform(190, 245, (num, 1)))


def _birds(drive: Drive, start_s: float, rng: np.random.Generator) -> Specks:
    """One or two birds that cross the view; each is two wings that beat about a common joint."""
    num, side = int(rng.integers(1, 3)), rng.choice([-1, 1])
    origin = drive.ahead(start_s, rng.uniform(16, 40), side * rng.uniform(5, 13), rng.uniform(2.2, 6.0))
    away = origin + rng.normal(0, 1, (num, 3)) * (1.5, 1.5, 0.5)
    along = drive.at(drive.ego.vx_mps, start_s) * rng.uniform(0.0, 0.7)
    velocity = np.array([along, -side * rng.uniform(5, 9), rng.uniform(-0.6, 1.0)]) + rng.normal(0, 0.3, (num, 3))
    right = np.tile([True, False], num)
    tone = rng.uniform(28, 70, num).repeat(2)[:, None]
    return _of(
        2 * num,
        start_s=start_s,
        lasts_s=2.5,
        origin_m=away.repeat(2, axis=0),
        velocity_mps=velocity.repeat(2, axis=0),
        sway_m=0.15,
        size_m=rng.uniform(0.2, 0.32, num).repeat(2),
        slimness=0.35,
        angle_rad=np.where(right, -0.25, np.pi + 0.25),
        flap_rad=np.where(right, -0.7, 0.7),
        is_wing=True,
        colour=tone,
    )


def _spray(drive: Drive, start_s: float, rng: np.random.Generator) -> Specks:
    """Half a second of water from the wheels of the nearest vehicle that moves ahead."""
    num = 24
    emitted = start_s + rng.uniform(0, 0.5, num)
    far = [drive.at(v.x_m, start_s) - drive.at(drive.ego.x_m, start_s) for v in drive.vehicles]
    near = [
        (distance, v)
        for distance, v in zip(far, drive.vehicles, strict=True)
        if 3 < distance < 45 and abs(drive.at(v.vx_mps, start_s)) > 4
    ]
    if not near:  # The same share of frames holds specks where the others have stopped.
        return _grit(drive, start_s, drive.ahead(start_s, *_grit_origin(rng)), rng)
    _, vehicle = min(near, key=lambda pair: pair[0])
    x, y, vx = (np.interp(emitted, drive.time_s, a) for a in (vehicle.x_m, vehicle.y_m, vehicle.vx_mps))
    rear = x - np.sign(vx) * vehicle.length_m * 0.45
    wheel = rng.choice([-0.8, 0.8], num) + rng.normal(0, 0.15, num)
    drift = np.stack([vx * rng.uniform(0.4, 0.8, num), rng.normal(0, 0.9, num), rng.uniform(0.4, 2.2, num)], 1)
    return _of(
        num,
        start_s=emitted,
        lasts_s=rng.uniform(0.25, 0.5, num),
        origin_m=np.stack([rear, y + wheel, np.full(num, 0.15)], 1),
        velocity_mps=drift,
        fall_mps2=GRAVITY_MPS2 / 2,
        size_m=rng.uniform(0.03, 0.09, num),
        slimness=0.8,
        angle_rad=rng.uniform(0, np.pi, num),
        colour=rng.uniform(125, 180, (num, 1)) * np.array([0.96, 0.99, 1.0]),
    )
