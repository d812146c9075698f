"""One candidate played out: everybody's pose at 100 Hz, lead-in and contact included, and what the body does."""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import Akima1DInterpolator
from scipy.signal import lfilter

from autodrive.world.impact import RATE_HZ, Contact, Jolt, collide
from autodrive.world.lead_in import drive_up
from autodrive.world.physics import STEP_S, Trajectories
from autodrive.world.road import Road, draw_road
from autodrive.world.scenario import GRAVITY_MPS2, OtherMotion, Scene

# Motion begins this long before the window: the suspension has settled, and a late GPS fix has something to report.
RUN_UP_S = 2.0
# Pitch per deceleration and roll per lateral acceleration (4.5 degrees per g), as of an average passenger car.
DIVE_RAD_PER_MPS2, ROLL_RAD_PER_MPS2 = np.radians(0.3), np.radians(4.5 / GRAVITY_MPS2)
SUSPENSION_HZ, SUSPENSION_DAMPING = 1.8, 0.6


@dataclass(frozen=True)
class Play:
    """Everybody's motion on a 100 Hz grid; all arrays have shape (S,), times run from the hazard's onset.

    Attributes:
        time_s: Time of every step, from `RUN_UP_S` before the window on.
        road: Where the road goes.
        ego_x_m, ego_y_m, ego_yaw_rad: Pose of the ego's centre (yaw against the road's direction, left positive).
        ego_speed_mps, ego_accel_mps2: Speed and acceleration of the ego vehicle along the road.
        ego_lateral_mps2: Acceleration to its left: the bend's v^2 k and what it does across the road.
        pitch_rad, roll_rad: Angles of the camera, positive nose-down and right-side-down (ISO 8855).
        other_x_m, other_y_m, other_heading_rad, other_tilt_rad, other_lift_m: Pose of the other; tilt is a fall
            (towards the camera negative), lift a height above the road, both for struck people.
        other_brakes: Whether its brake lights are on.
    """

    time_s: np.ndarray
    road: Road
    ego_x_m: np.ndarray
    ego_y_m: np.ndarray
    ego_yaw_rad: np.ndarray
    ego_speed_mps: np.ndarray
    ego_accel_mps2: np.ndarray
    ego_lateral_mps2: np.ndarray
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
    contact: Contact | None,
    window: Window,
    jolts: list[Jolt],
    rng: np.random.Generator,
) -> Play:
    """Turn one candidate (trailing axis of length one) into poses over the window and the run-up to it.

    In the lead-in, another road user that drives the ego's way keeps its distance: it brakes and accelerates as the ego
    does.

    Args:
        scene: The scene that the three sibling videos share.
        ego: The ego vehicle's trajectory without contact forces.
        other: Motion of the other road user.
        contact: First contact of the ego, or None.
        window: Part of the scene that the video shows.
        jolts: Potholes and kerbs; the contact's own jolt is added here.
        rng: Draws what the contact leaves open: its pulse, deflection and jolt.
    """
    num = round((window.end_s - window.start_s + RUN_UP_S) * RATE_HZ) + 1
    time = window.start_s - RUN_UP_S + np.arange(num) / RATE_HZ
    lead_in = drive_up(scene, float(time[0]))
    gain, shift = lead_in.gain(time), lead_in.shift(time)
    follows = scene.start_velocity_mps[0] > 0
    grid = np.arange(len(ego.x_m)) * STEP_S
    before, since = np.minimum(time, 0.0), np.clip(time, 0.0, grid[-1])

    # Smooth between steps: straight lines would make every step a kick to the accelerometer. Akima's curves hardly
    # overshoot where somebody comes to rest (by some cm/s).
    steps = (ego.x_m, ego.y_m, ego.speed_mps, other.x_m, other.y_m, other.vx_mps, other.vy_mps)
    ego_x, ego_y, ego_speed, other_x, other_y, other_vx, other_vy = Akima1DInterpolator(grid, np.hstack(steps))(since).T
    pose = {
        "ego_x_m": ego_x + before * scene.ego_speed_mps + shift,
        "ego_y_m": ego_y,
        "ego_yaw_rad": np.arctan2(np.gradient(ego_y, 1 / RATE_HZ), np.maximum(ego_speed, 3.0)),
        "ego_speed_mps": np.maximum(ego_speed, 0.0) + gain,
        "other_x_m": other_x + before * scene.start_velocity_mps[0] + shift * follows,
        "other_y_m": other_y + before * scene.start_velocity_mps[1],
        "other_heading_rad": _heading(scene, other_vx, other_vy),
        "other_tilt_rad": np.zeros(num),
        "other_lift_m": np.zeros(num),
        "other_brakes": _brakes(other_vx + gain * follows, other_vy),
    }
    if contact is not None:
        jolts = [*jolts, collide(scene, pose, time, contact, rng)]
    road = draw_road(scene, lead_in, (float(pose["ego_x_m"].min()), float(pose["ego_x_m"].max())))
    acceleration = np.gradient(pose["ego_speed_mps"], 1 / RATE_HZ)
    lateral = _lateral_acceleration(pose, acceleration, road)
    pitch, roll = _camera(time, acceleration, lateral, jolts)
    return Play(
        time, road, ego_accel_mps2=acceleration, ego_lateral_mps2=lateral, pitch_rad=pitch, roll_rad=roll, **pose
    )


def _lateral_acceleration(pose: dict[str, np.ndarray], acceleration: np.ndarray, road: Road) -> np.ndarray:
    """v^2 k + y'' turned into the car's axes, for small yaw angles and offsets far below the bend's radius."""
    across = np.gradient(np.gradient(pose["ego_y_m"], 1 / RATE_HZ), 1 / RATE_HZ)
    return pose["ego_speed_mps"] ** 2 * road.curvature(pose["ego_x_m"]) + across - acceleration * pose["ego_yaw_rad"]


def _heading(scene: Scene, vx: np.ndarray, vy: np.ndarray) -> np.ndarray:
    """Vehicles point where they go; who crosses keeps facing across."""
    if scene.footprint_m[0] != scene.other.length_m or scene.other.name == "pedestrian":
        return np.full(len(vx), scene.heading_rad)
    return scene.heading_rad + np.arctan2(vy * np.sign(np.cos(scene.heading_rad)), np.maximum(np.abs(vx), 4.0))


def _brakes(vx: np.ndarray, vy: np.ndarray) -> np.ndarray:
    speed = np.hypot(vx, vy)
    return (-np.gradient(speed, 1 / RATE_HZ) > 0.6) | (speed < 0.2)


def _camera(
    time: np.ndarray, acceleration: np.ndarray, lateral: np.ndarray, jolts: list[Jolt]
) -> tuple[np.ndarray, np.ndarray]:
    """Pitch and roll: springs driven by braking and cornering, plus the jolts, shape (S,) each."""
    pitch = _sprung(-DIVE_RAD_PER_MPS2 * np.clip(acceleration, -12.0, 6.0))
    roll = _sprung(ROLL_RAD_PER_MPS2 * np.clip(lateral, -9.0, 9.0))
    for jolt in jolts:
        since = np.maximum(time - jolt.time_s, 0.0)
        shape = np.exp(-since / jolt.decay_s) * np.sin(2 * np.pi * jolt.frequency_hz * since) * 1.35
        pitch, roll = pitch + jolt.pitch_rad * shape, roll + jolt.roll_rad * shape
    return pitch, roll


def _sprung(drive_rad: np.ndarray) -> np.ndarray:
    """The angle of a damped spring: x'' = omega^2 (drive - x) - 2 zeta omega x', by backward differences."""
    omega, step = 2 * np.pi * SUSPENSION_HZ, 1 / RATE_HZ
    gain, damping = (omega * step) ** 2, 2 * SUSPENSION_DAMPING * omega * step
    return np.asarray(lfilter([gain], [1 + damping + gain, -(2 + damping), 1.0], drive_rad))
