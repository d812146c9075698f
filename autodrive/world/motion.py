"""One candidate played out: contact forces, what the camera feels, and everybody's pose at 100 Hz."""

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from autodrive.world.physics import STEP_S, Trajectories
from autodrive.world.scenario import EGO, OtherMotion, Scene

RATE_HZ = 100
RESTITUTION = 0.15
DIVE_RAD_PER_MPS2 = np.radians(0.33)
SUSPENSION_HZ, SUSPENSION_DAMPING = 1.6, 0.4
ROAD_FRICTION_MPS2 = 6.5


@dataclass(frozen=True)
class Jolt:
    """A blow to the camera: a decaying oscillation that begins at `time_s` (pothole, kerb or contact)."""

    time_s: float
    pitch_rad: float
    roll_rad: float
    frequency_hz: float
    decay_s: float


@dataclass(frozen=True)
class Play:
    """Everybody's motion on a 100 Hz grid; all arrays have shape (S,), times run from the hazard's onset.

    Attributes:
        time_s: Time of every step, shape (T,).
        ego_x_m, ego_y_m, ego_yaw_rad: Pose of the ego's centre (yaw left positive).
        ego_speed_mps, ego_accel_mps2: Speed and acceleration of the ego vehicle along the road.
        pitch_rad, roll_rad: Angles of the camera, positive nose-down and right-side-down (ISO 8855).
        other_x_m, other_y_m, other_heading_rad, other_tilt_rad, other_lift_m: Pose of the other; tilt is a fall
            (towards the camera negative), lift a height above the road, both for struck people.
        other_brakes: Whether its brake lights are on.
    """

    time_s: np.ndarray
    ego_x_m: np.ndarray
    ego_y_m: np.ndarray
    ego_yaw_rad: np.ndarray
    ego_speed_mps: np.ndarray
    ego_accel_mps2: np.ndarray
    pitch_rad: np.ndarray
    roll_rad: np.ndarray
    other_x_m: np.ndarray
    other_y_m: np.ndarray
    other_heading_rad: np.ndarray
    other_tilt_rad: np.ndarray
    other_lift_m: np.ndarray
    other_brakes: np.ndarray


@dataclass(frozen=True)
class Window:
    """The part of time a video shows, seconds from the onset."""

    start_s: float
    end_s: float


def play(
    scene: Scene,
    ego: Trajectories,
    other: OtherMotion,
    contact_step: int | None,
    window: Window,
    jolts: list[Jolt],
    rng: np.random.Generator,
) -> Play:
    """Turn one candidate (trailing axis of length one) into poses over the window.

    Args:
        scene: The scene that the three sibling videos share.
        ego: The ego vehicle's trajectory without contact forces.
        other: Motion of the other road user.
        contact_step: Index of first contact, or None.
        window: Part of the scene that the video shows.
        jolts: Potholes and kerbs; the contact's own jolt is added here.
        rng: Draws the strength of the contact's jolt, its pulse and deflection.
    """
    num = round((window.end_s - window.start_s) * RATE_HZ) + 1
    time = window.start_s + np.arange(num) / RATE_HZ
    grid = np.arange(len(ego.x_m)) * STEP_S
    before = np.minimum(time, 0.0)

    def sampled(values: np.ndarray, speed: float = 0.0) -> np.ndarray:
        return np.interp(time, grid, values[:, 0]) + before * speed

    pose = {
        "ego_x_m": sampled(ego.x_m, scene.ego_speed_mps),
        "ego_y_m": sampled(ego.y_m),
        "ego_yaw_rad": np.arctan2(np.gradient(sampled(ego.y_m), 1 / RATE_HZ), np.maximum(sampled(ego.speed_mps), 3.0)),
        "ego_speed_mps": sampled(ego.speed_mps),
        "other_x_m": sampled(other.x_m, scene.start_velocity_mps[0]),
        "other_y_m": sampled(other.y_m, scene.start_velocity_mps[1]),
        "other_heading_rad": _heading(scene, sampled(other.vx_mps), sampled(other.vy_mps)),
        "other_tilt_rad": np.zeros(num),
        "other_lift_m": np.zeros(num),
        "other_brakes": _brakes(sampled(other.vx_mps), sampled(other.vy_mps)),
    }
    if contact_step is not None:
        jolts = [*jolts, _collide(scene, pose, time, contact_step * STEP_S, rng)]
    acceleration = np.gradient(pose["ego_speed_mps"], 1 / RATE_HZ)
    pitch, roll = _camera(time, acceleration, jolts)
    return Play(time_s=time, ego_accel_mps2=acceleration, pitch_rad=pitch, roll_rad=roll, **pose)


def _heading(scene: Scene, vx: np.ndarray, vy: np.ndarray) -> np.ndarray:
    """Vehicles point where they go; who crosses keeps facing across."""
    if scene.footprint_m[0] != scene.other.length_m or scene.other.name == "pedestrian":
        return np.full(len(vx), scene.heading_rad)
    return scene.heading_rad + np.arctan2(vy * np.sign(np.cos(scene.heading_rad)), np.maximum(np.abs(vx), 4.0))


def _brakes(vx: np.ndarray, vy: np.ndarray) -> np.ndarray:
    speed = np.hypot(vx, vy)
    return (-np.gradient(speed, 1 / RATE_HZ) > 0.6) | (speed < 0.2)


def _collide(
    scene: Scene, pose: dict[str, np.ndarray], time: np.ndarray, contact_s: float, rng: np.random.Generator
) -> Jolt:
    """Overwrite the poses from the contact on (momentum and restitution); return the jolt the camera feels."""
    k = int(np.searchsorted(time, contact_s))
    after = time[k:] - contact_s
    pulse_s = rng.uniform(0.1, 0.25)
    ramp = np.clip(after / pulse_s, 0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    previous = max(k - 1, 0)
    other_vx = (pose["other_x_m"][k] - pose["other_x_m"][previous]) * RATE_HZ
    other_vy = (pose["other_y_m"][k] - pose["other_y_m"][previous]) * RATE_HZ
    ego_v, closing = pose["ego_speed_mps"][k], pose["ego_speed_mps"][k] - other_vx
    share = scene.other.mass_kg / (EGO.mass_kg + scene.other.mass_kg)
    slide_s = np.maximum(after - pulse_s, 0)
    ego_after = ego_v - ramp * (1 + RESTITUTION) * share * closing
    pose["ego_speed_mps"][k:] = _rub(ego_after, slide_s, ROAD_FRICTION_MPS2 + rng.uniform(0, 1.5))
    other_after = _rub(other_vx + ramp * (1 + RESTITUTION) * (1 - share) * closing, slide_s, rng.uniform(3.0, 6.0))
    lateral_after = _rub(other_vy * (1 - 0.7 * ramp), slide_s, 5.0)
    is_vehicle = scene.other.name != "pedestrian"
    offset = pose["other_y_m"][k] - pose["ego_y_m"][k]
    turn = (np.sign(other_vy) if abs(other_vy) > 2 else -np.sign(offset)) * share
    kick = turn * np.radians(rng.uniform(3.0, 9.0)) * (ramp if is_vehicle else 0.0 * ramp)
    pose["ego_yaw_rad"][k:] = pose["ego_yaw_rad"][k] + kick
    drift = np.cumsum(pose["ego_speed_mps"][k:] * np.sin(kick)) / RATE_HZ
    pose["ego_y_m"][k:] = pose["ego_y_m"][k] + drift
    for name, rate in (
        ("ego_x_m", pose["ego_speed_mps"][k:]),
        ("other_x_m", other_after),
        ("other_y_m", lateral_after),
    ):
        pose[name][k:] = pose[name][k] + np.cumsum(rate) / RATE_HZ
    reach = (EGO.length_m + scene.footprint_m[0]) / 2 - 0.25
    pose["other_x_m"][k:] = np.maximum(pose["other_x_m"][k:], pose["ego_x_m"][k:] + reach)
    pose["other_brakes"][k:] = True
    if is_vehicle:
        spin = np.radians(rng.uniform(4, 22)) * (-np.sign(other_vy) if abs(other_vy) > 2 else np.sign(offset or 1.0))
        pose["other_heading_rad"][k:] = pose["other_heading_rad"][k] + spin * (1 - np.exp(-after / 0.35))
        strength = np.radians(rng.uniform(3.5, 5.5))
    else:
        # A person struck at the legs swings onto the bonnet, towards the camera, and slides off as the car brakes.
        pose["other_tilt_rad"][k:] = -np.clip(after / 0.16, 0, 1) * np.radians(82)
        pose["other_lift_m"][k:] = 0.55 * np.clip(after / 0.16, 0, 1) * np.clip((0.9 - after) / 0.4, 0, 1)
        strength = np.radians(rng.uniform(3.0, 4.5))
    roll = np.radians(rng.uniform(-2.0, 2.0))
    return Jolt(contact_s, float(strength), float(roll), float(rng.uniform(6, 11)), float(rng.uniform(0.06, 0.11)))


def _rub(speed: np.ndarray, slide_s: np.ndarray, friction_mps2: float) -> np.ndarray:
    """Speed after sliding to a halt from either direction."""
    return np.sign(speed) * np.maximum(np.abs(speed) - friction_mps2 * slide_s, 0.0)


def _camera(time: np.ndarray, acceleration: np.ndarray, jolts: list[Jolt]) -> tuple[np.ndarray, np.ndarray]:
    """Pitch and roll: a damped spring driven by braking, plus the jolts, shape (S,) each."""
    omega, step = 2 * np.pi * SUSPENSION_HZ, 1 / RATE_HZ
    # Backward-difference discretisation of x'' = omega^2 (u - x) - 2 zeta omega x'.
    gain = (omega * step) ** 2
    damping = 2 * SUSPENSION_DAMPING * omega * step
    drive = -DIVE_RAD_PER_MPS2 * np.clip(acceleration, -12.0, 6.0)
    pitch = np.asarray(lfilter([gain], [1 + damping + gain, -(2 + damping), 1.0], drive))
    roll = np.zeros(len(time))
    for jolt in jolts:
        since = np.maximum(time - jolt.time_s, 0.0)
        shape = np.exp(-since / jolt.decay_s) * np.sin(2 * np.pi * jolt.frequency_hz * since) * 1.35
        pitch, roll = pitch + jolt.pitch_rad * shape, roll + jolt.roll_rad * shape
    return pitch, roll
