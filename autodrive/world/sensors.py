"""What the car's sensors record: accelerometer, gyroscope and GPS, clean or as rough as those of a cheap dashcam."""

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from autodrive.world.impact import RATE_HZ
from autodrive.world.motion import RUN_UP_S, Play
from autodrive.world.scenario import GRAVITY_MPS2

# The sensor sits about half a metre ahead of the axis about which the body pitches; a blow lifts or drops it, no harder
# than this.
AHEAD_OF_PITCH_AXIS_M, HEAVE_LIMIT_MPS2 = 0.5, 40.0
# Rough sensors: largest tilt about each axis, biases, noise, range, steepest slope and over how far it comes and goes.
TILT_RAD = np.radians(4.0)
ACCEL_BIAS_MPS2, GYRO_BIAS_RADPS = 0.15, 0.01
ROUGH_NOISE = {"accel_noise_mps2": 0.25, "gyro_noise_radps": 0.01, "gps_noise_mps": 0.4}
ACCEL_LIMIT_MPS2 = 4 * GRAVITY_MPS2
SLOPE, SLOPE_WAVE_M = 0.06, (200.0, 800.0)
GPS_DELAY_S, GPS_MISSING = (0.2, 1.0), 0.1


@dataclass(frozen=True)
class SensorUnit:
    """How well a recording's sensors measure; without arguments, a unit that only has noise.

    Attributes:
        accel_noise_mps2, gyro_noise_radps, gps_noise_mps: Standard deviation of each value.
        mount: The unit's axes seen from the car.
        accel_bias_mps2, gyro_bias_radps: What each axis reads too much.
        accel_limit_mps2: Largest magnitude that an axis reads.
        slope: Rise of the road per metre at its steepest.
        slope_wave_m: Distance after which the slope is the same again.
        slope_phase_rad: Phase of that wave at the onset.
        gps_delay_s: Age of the speed that a GPS fix reports.
        gps_missing: Share of GPS fixes that are not there; the first and the last always are.
    """

    accel_noise_mps2: float = 0.08
    gyro_noise_radps: float = 0.004
    gps_noise_mps: float = 0.15
    mount: Rotation = field(default_factory=Rotation.identity)
    accel_bias_mps2: tuple[float, ...] = (0.0, 0.0, 0.0)
    gyro_bias_radps: tuple[float, ...] = (0.0, 0.0, 0.0)
    accel_limit_mps2: float = np.inf
    slope: float = 0.0
    slope_wave_m: float = 1.0
    slope_phase_rad: float = 0.0
    gps_delay_s: float = 0.0
    gps_missing: float = 0.0

    @classmethod
    def rough(cls, rng: np.random.Generator) -> "SensorUnit":
        """Draw a cheap unit, stuck to the windscreen by hand."""
        return cls(
            **ROUGH_NOISE,
            mount=Rotation.from_euler("ZYX", rng.uniform(-TILT_RAD, TILT_RAD, 3)),
            accel_bias_mps2=tuple(rng.uniform(-ACCEL_BIAS_MPS2, ACCEL_BIAS_MPS2, 3)),
            gyro_bias_radps=tuple(rng.uniform(-GYRO_BIAS_RADPS, GYRO_BIAS_RADPS, 3)),
            accel_limit_mps2=ACCEL_LIMIT_MPS2,
            slope=float(rng.uniform(0, SLOPE)),
            slope_wave_m=float(rng.uniform(*SLOPE_WAVE_M)),
            slope_phase_rad=float(rng.uniform(0, 2 * np.pi)),
            gps_delay_s=float(rng.uniform(*GPS_DELAY_S)),
            gps_missing=GPS_MISSING,
        )


def record(play: Play, unit: SensorUnit, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """IMU at 100 Hz and GPS speed at 1 Hz over the video; times are seconds from its first frame.

    The accelerometer reports specific force in the unit's axes (x forward, y left, z up): at rest on a level road it
    reads (0, 0, +9.81). The gyroscope reports rates about the same axes: pitch is positive nose-down.

    Args:
        play: Everybody's motion, which begins `RUN_UP_S` before the video.
        unit: What measures it.
        rng: Noise, and which GPS fixes are missing.
    """
    force, rate = _in_the_car(play, unit)
    # A tilted unit reads the same vector about its own axes; bias and noise are its own, and its range comes last.
    force, rate = unit.mount.inv().apply(force), unit.mount.inv().apply(rate)
    first = round(RUN_UP_S * RATE_HZ)
    accel = force[first:] + unit.accel_bias_mps2 + rng.normal(0, unit.accel_noise_mps2, force[first:].shape)
    gyro = rate[first:] + unit.gyro_bias_radps + rng.normal(0, unit.gyro_noise_radps, rate[first:].shape)
    time = np.arange(len(accel)) / RATE_HZ
    # A late fix reports the speed of a moment ago, at the start of the video from the run-up to it.
    fixes = time[::RATE_HZ]
    speed = np.interp(play.time_s[first] + fixes - unit.gps_delay_s, play.time_s, play.ego_speed_mps)
    speed = np.abs(speed + rng.normal(0, unit.gps_noise_mps, len(fixes)))
    there = rng.random(len(fixes)) >= unit.gps_missing
    there[[0, -1]] = True
    return {
        "imu_time_s": time.astype(np.float32),
        "imu_accel_mps2": np.clip(accel, -unit.accel_limit_mps2, unit.accel_limit_mps2).astype(np.float32),
        "imu_gyro_radps": gyro.astype(np.float32),
        "gps_time_s": fixes[there].astype(np.float32),
        "gps_speed_mps": speed[there].astype(np.float32),
    }


def _in_the_car(play: Play, unit: SensorUnit) -> tuple[np.ndarray, np.ndarray]:
    """Specific force and rates of turn about the axes of the car's body, shape (S, 3) each.

    The body is turned out of the road's plane by pitch, then roll (ISO 8855), so a part of gravity, of braking and of
    the yaw rate shows on the other axes.
    """
    step = 1 / RATE_HZ
    # The nose falls as the body pitches, and the unit with it.
    pitch_rate, roll_rate = np.gradient(play.pitch_rad, step), np.gradient(play.roll_rad, step)
    heave = np.clip(-AHEAD_OF_PITCH_AXIS_M * np.gradient(pitch_rate, step), -HEAVE_LIMIT_MPS2, HEAVE_LIMIT_MPS2)
    # Specific force is acceleration minus gravity, so uphill a part of gravity reads as driving forward.
    wave = 2 * np.pi * play.ego_x_m / unit.slope_wave_m + unit.slope_phase_rad
    incline = np.arctan(unit.slope * np.sin(wave))
    level = np.stack(
        [
            play.ego_accel_mps2 + GRAVITY_MPS2 * np.sin(incline),
            play.ego_lateral_mps2,
            GRAVITY_MPS2 * np.cos(incline) + heave,
        ],
        axis=1,
    )
    yaw_rate = play.ego_speed_mps * play.road.curvature(play.ego_x_m) + np.gradient(play.ego_yaw_rad, step)
    # Yaw turns about the road's upright axis, pitch about the axis across it, roll about the body's own.
    zero = np.zeros(len(yaw_rate))
    roll = Rotation.from_euler("X", play.roll_rad[:, None])
    body = Rotation.from_euler("Y", play.pitch_rad[:, None]) * roll
    gyro = body.inv().apply(np.stack([zero, zero, yaw_rate], axis=1))
    gyro += roll.inv().apply(np.stack([roll_rate, pitch_rate, zero], axis=1))
    return body.inv().apply(level), gyro
