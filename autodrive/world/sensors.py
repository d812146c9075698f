"""What the car's other sensors record, and where everything is: IMU, GPS and object boxes from the same simulation."""

import numpy as np

from autodrive.world.fills import Actor, actor_corners
from autodrive.world.motion import RATE_HZ, Play
from autodrive.world.projection import Camera

GRAVITY_MPS2 = 9.81
IMU_NOISE_MPS2, GYRO_NOISE_RADPS, GPS_NOISE_MPS = 0.08, 0.004, 0.15


def record(play: Play, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """IMU at 100 Hz and GPS speed at 1 Hz over the video; times are seconds from its first frame.

    The accelerometer reports specific force in the car's frame (x forward, y left, z up): at rest on a level road it
    reads (0, 0, +9.81). The gyroscope reports rates about the same axes: pitch is positive nose-down.
    """
    step = 1 / RATE_HZ
    yaw_rate = np.gradient(play.ego_yaw_rad, step)
    pitch_rate, roll_rate = np.gradient(play.pitch_rad, step), np.gradient(play.roll_rad, step)
    # A blow that pitches the car also lifts the sensor, which sits about half a metre ahead of the pitch axis.
    heave = -0.5 * np.gradient(pitch_rate, step)
    accel = np.stack(
        [
            play.ego_accel_mps2 * np.cos(play.pitch_rad) - GRAVITY_MPS2 * np.sin(play.pitch_rad),
            play.ego_speed_mps * yaw_rate + GRAVITY_MPS2 * np.sin(play.roll_rad),
            GRAVITY_MPS2 * np.cos(play.pitch_rad) + np.clip(heave, -40, 40),
        ],
        axis=1,
    )
    gyro = np.stack([roll_rate, pitch_rate, yaw_rate], axis=1)
    time = play.time_s - play.time_s[0]
    gps = np.arange(0, len(time), RATE_HZ)
    return {
        "imu_time_s": time.astype(np.float32),
        "imu_accel_mps2": (accel + rng.normal(0, IMU_NOISE_MPS2, accel.shape)).astype(np.float32),
        "imu_gyro_radps": (gyro + rng.normal(0, GYRO_NOISE_RADPS, gyro.shape)).astype(np.float32),
        "gps_time_s": time[gps].astype(np.float32),
        "gps_speed_mps": np.abs(play.ego_speed_mps[gps] + rng.normal(0, GPS_NOISE_MPS, len(gps))).astype(np.float32),
    }


def locate(actors: list[Actor], camera: Camera) -> dict[str, np.ndarray]:
    """Boxes of all road users in every frame, in pixels.

    Returns:
        `object_class` (O,), `object_boxes_px` float32 (T, O, 4) as x0, y0, x1, y1 clipped to the picture (NaN where it
        is not in view) and `object_distance_m` float32 (T, O), from the lens to its centre along the road.
    """
    frames = np.arange(len(camera.x_m))
    boxes = np.full((len(frames), len(actors), 4), np.nan, dtype=np.float32)
    distance = np.zeros((len(frames), len(actors)), dtype=np.float32)
    limits = np.array([camera.width, camera.height])
    for i, actor in enumerate(actors):
        corners = actor_corners(actor).reshape(len(frames), -1, 3)
        pixels, depth = camera.project(frames, corners)
        low, high = np.clip(pixels.min(axis=1), 0, limits), np.clip(pixels.max(axis=1), 0, limits)
        seen = (depth.max(axis=1) > 0.5) & ((high - low) > 0.5).all(axis=1)
        boxes[seen, i] = np.concatenate([low, high], axis=1)[seen]
        distance[:, i] = camera.relative(frames, actor.x_m, actor.y_m)[0]
    return {
        "object_class": np.array([actor.name for actor in actors]),
        "object_boxes_px": boxes,
        "object_distance_m": distance,
    }
