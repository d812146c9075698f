"""Contact: what momentum, restitution and friction make of two vehicles, and the blow that the camera feels."""

from dataclasses import dataclass

import numpy as np

from autodrive.world.physics import FRONT, LEFT, REAR, RIGHT
from autodrive.world.scenario import EGO, ROAD_USERS, Scene

# Of everybody's motion from here on, as fast as the accelerometer samples it.
RATE_HZ = 100
# Part of the closing speed with which bodies part again.
RESTITUTION = 0.3
# Part of the speed along the touching flanks that friction takes while they slide past each other.
SCRAPE_SHARE = 0.12
# What tyres that slide sideways on a dry road take off the speed.
TYRE_SLIDE_MPS2 = 7.0
# Direction along x and y in which the ego is pushed.
PUSHED = {FRONT: (-1.0, 0.0), REAR: (1.0, 0.0), LEFT: (0.0, -1.0), RIGHT: (0.0, 1.0)}
# Fronts give way by this much, flanks by half of it.
CRUSH_M = 0.4
# Fronts that overlap less than this sideways slide off each other.
GLANCING_M = 0.8


@dataclass(frozen=True)
class Contact:
    """First contact of the ego with another road user.

    Attributes:
        time_s: When, from the onset.
        side: Side of the ego that touches: front, rear, left or right.
        closing_mps: Speed at which the two approach along the direction of contact.
    """

    time_s: float
    side: str
    closing_mps: float


@dataclass(frozen=True)
class Jolt:
    """A blow to the camera: a decaying oscillation that begins at `time_s` (pothole, kerb or contact)."""

    time_s: float
    pitch_rad: float
    roll_rad: float
    frequency_hz: float
    decay_s: float


def collide(
    scene: Scene, pose: dict[str, np.ndarray], time_s: np.ndarray, contact: Contact, rng: np.random.Generator
) -> Jolt:
    """Overwrite the poses (see `motion.Play`) from the contact on; return the jolt that the camera feels.

    Momentum is exchanged along the direction of contact over a pulse of about a tenth of a second; then tyres slide and
    drivers brake.
    """
    k = int(np.searchsorted(time_s, contact.time_s))
    after = time_s[k:] - contact.time_s
    # Force builds up and fades over the pulse: `ramp` is the part of the exchange that has happened, 0 to 1.
    pulse_s = rng.uniform(0.08, 0.16)
    ramp = np.clip(after / pulse_s, 0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    slide_s = np.maximum(after - pulse_s, 0)
    # Speeds before the blow, from positions: the interpolated motion is what the film shows.
    before = {name: _rate(pose[name], k) for name in ("ego_y_m", "other_x_m", "other_y_m")}
    ego_vx, ego_vy = float(pose["ego_speed_mps"][max(k - 1, 0)]), before["ego_y_m"]
    partner = ROAD_USERS["car"] if contact.side == REAR else scene.other
    # Two bodies: each takes the other's share of the mass of (1 + e) times the closing speed.
    share = partner.mass_kg / (EGO.mass_kg + partner.mass_kg)
    push_x, push_y = PUSHED[contact.side]
    flank = contact.side in (LEFT, RIGHT)
    towards = float(np.sign(pose["other_y_m"][k] - pose["ego_y_m"][k] or 1.0))
    overlap_m = (EGO.width_m + scene.footprint_m[1]) / 2 - abs(pose["other_y_m"][k] - pose["ego_y_m"][k])
    # Fronts that overlap little deflect each other and go on past; what they exchange is in proportion.
    glancing = contact.side == FRONT and scene.other.name != "pedestrian" and overlap_m < GLANCING_M
    hold = max(overlap_m / GLANCING_M, 0.25) * 0.6 if glancing else 1.0
    gained = (1 + RESTITUTION) * share * contact.closing_mps * hold
    scraped = SCRAPE_SHARE * share * (ego_vx - before["other_x_m"]) if flank else 0.0

    # Who is stopped hard brakes on; after a scrape some just roll on.
    brakes = (
        rng.uniform(2.5, 6.5) if not flank and not glancing else rng.choice([0.3, rng.uniform(1.0, 5.0)], p=[0.4, 0.6])
    )
    ego_vx_after = rub(ego_vx + ramp * (gained * push_x - scraped), slide_s, float(brakes))
    deflected = -towards * overlap_m / pulse_s / 2 if glancing else 0.0
    ego_vy_after = rub(ego_vy + ramp * (gained * push_y + deflected), slide_s, TYRE_SLIDE_MPS2)
    # The blow turns the car about its centre: before or behind it on a flank, off-centre at the front.
    turn = rng.uniform(0.8, 2.5) if flank else rng.uniform(0.3, 2.0) * share
    where = np.sign(pose["other_x_m"][k] - pose["ego_x_m"][k]) if flank else 1.0
    if partner.name == "pedestrian":
        turn = 0.0
    # The yaw that it gives dies away as the driver catches the car; the car goes where it points.
    kick = -towards * where * np.radians(turn) * ramp * np.exp(-slide_s / rng.uniform(0.2, 0.5))
    pose["ego_speed_mps"][k:] = np.maximum(ego_vx_after, 0.0)
    pose["ego_x_m"][k:] = pose["ego_x_m"][k] + _travelled(pose["ego_speed_mps"][k:])
    sideways = ego_vy_after + pose["ego_speed_mps"][k:] * np.sin(kick)
    pose["ego_y_m"][k:] = pose["ego_y_m"][k] + _travelled(sideways)
    pose["ego_yaw_rad"][k:] = pose["ego_yaw_rad"][k] * np.exp(-after / 0.3) + kick
    # Whoever struck from behind is never in view, so nothing of it is kept.
    if contact.side != REAR:
        # A struck person is carried along; vehicles bounce.
        bounce = 1 if partner.name == "pedestrian" else 1 + RESTITUTION
        given = bounce * (1 - share) * contact.closing_mps * hold
        vx = before["other_x_m"] + ramp * (-given * push_x + (1 / share - 1) * scraped)
        vy = before["other_y_m"] - ramp * (given * push_y + (1 / share - 1) * deflected)
        _push_other(scene, pose, k, (vx, vy), (after, slide_s), None if glancing else contact.side, rng)
    return _jolt(contact, partner.name == "pedestrian", rng)


def _push_other(
    scene: Scene,
    pose: dict[str, np.ndarray],
    k: int,
    velocity_mps: tuple[np.ndarray, np.ndarray],
    since_s: tuple[np.ndarray, np.ndarray],
    side: str | None,
    rng: np.random.Generator,
) -> None:
    """The struck or striking road user slides to a halt, turned a little, outside the ego; a person falls.

    `side` is the one that holds it back; None where it goes past.
    """
    after, slide_s = since_s
    # Who was crossing is spun by what stopped its front, who drove along is turned off the ego's side.
    crosses = abs(float(velocity_mps[1][0])) > 2
    friction = rng.uniform(6.5, 8.5) if scene.other.name == "pedestrian" else rng.uniform(0.8, 3.5)
    vx, vy = rub(velocity_mps[0], slide_s, friction), rub(velocity_mps[1], slide_s, 5.0)
    pose["other_x_m"][k:] = pose["other_x_m"][k] + _travelled(vx)
    pose["other_y_m"][k:] = pose["other_y_m"][k] + _travelled(vy)
    offset = pose["other_y_m"][k] - pose["ego_y_m"][k] or 1.0
    if side == FRONT:
        reach = pose["other_x_m"][k] - pose["ego_x_m"][k] - CRUSH_M
        # Neither body passes into the other, whatever friction made of their speeds.
        pose["other_x_m"][k:] = np.maximum(pose["other_x_m"][k:], pose["ego_x_m"][k:] + reach)
    elif side is not None:
        reach = offset - np.sign(offset) * CRUSH_M / 2
        keeps = np.maximum if offset > 0 else np.minimum
        pose["other_y_m"][k:] = keeps(pose["other_y_m"][k:], pose["ego_y_m"][k:] + reach)
    pose["other_brakes"][k:] = True
    if scene.other.name != "pedestrian":
        spin = np.radians(rng.uniform(2, 12)) * (-np.sign(velocity_mps[1][0]) if crosses else np.sign(offset))
        pose["other_heading_rad"][k:] = pose["other_heading_rad"][k] + spin * (1 - np.exp(-after / 0.35))
    else:
        # A person struck at the legs swings onto the bonnet, towards the camera, and slides off as the car brakes.
        pose["other_tilt_rad"][k:] = -np.clip(after / 0.16, 0, 1) * np.radians(82)
        pose["other_lift_m"][k:] = 0.55 * np.clip(after / 0.16, 0, 1) * np.clip((0.9 - after) / 0.4, 0, 1)


def _jolt(contact: Contact, person: bool, rng: np.random.Generator) -> Jolt:
    """From the front the nose dips, from behind it rises, from a side the body rolls towards the blow."""
    strong, weak = rng.uniform(3.5, 5.0) if person else rng.uniform(4.0, 6.0), rng.uniform(-1.5, 1.5)
    pitch, roll = {FRONT: (strong, weak), REAR: (-strong, weak), LEFT: (weak, -strong), RIGHT: (weak, strong)}[
        contact.side
    ]
    frequency, decay = rng.uniform(5, 9), rng.uniform(0.07, 0.12)
    return Jolt(contact.time_s, float(np.radians(pitch)), float(np.radians(roll)), float(frequency), float(decay))


def _rate(position_m: np.ndarray, k: int) -> float:
    """Speed in the last step before k."""
    last = max(k - 1, 0)
    return float(position_m[last] - position_m[max(last - 1, 0)]) * RATE_HZ


def rub(speed_mps: np.ndarray, slide_s: np.ndarray, friction_mps2: float) -> np.ndarray:
    """Speed after sliding for so long, in either direction, until it stands."""
    return np.sign(speed_mps) * np.maximum(np.abs(speed_mps) - friction_mps2 * slide_s, 0.0)


def _travelled(speed_mps: np.ndarray) -> np.ndarray:
    """Distance since the first sample."""
    return (np.cumsum(speed_mps) - speed_mps) / RATE_HZ
