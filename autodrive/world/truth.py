"""What nobody in the car knows: where everything is, how the camera stands, how the car truly moves."""

import numpy as np

from autodrive.world.fills import Actor, actor_corners
from autodrive.world.impact import Jolt
from autodrive.world.motion import Play
from autodrive.world.projection import Camera


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
        distance[:, i] = actor.x_m - camera.x_m
    return {
        "object_class": np.array([actor.name for actor in actors]),
        "object_boxes_px": boxes,
        "object_distance_m": distance,
    }


def ego_truth(play: Play, camera: Camera, jolts: list[Jolt], frame_time_s: np.ndarray) -> dict[str, np.ndarray]:
    """The ego's motion, its camera's angles and the road in every frame, and when the road jolts it.

    Args:
        play: Everybody's motion.
        camera: The camera's poses in every frame.
        jolts: Potholes and kerbs, each axle by itself; some lie before or after the frames.
        frame_time_s: Times of the frames from the onset; the arrays' times count from the first of them.
    """

    def at(values: np.ndarray) -> np.ndarray:
        return np.interp(frame_time_s, play.time_s, values)

    along = at(play.ego_x_m)
    per_frame = {
        "frame_time_s": frame_time_s - frame_time_s[0],
        "ego_speed_mps": at(play.ego_speed_mps),
        "ego_accel_mps2": np.stack([at(play.ego_accel_mps2), at(play.ego_lateral_mps2)], axis=1),
        "road_curvature_per_m": play.road.curvature(along),
        "road_heading_rad": play.road.heading(along),
        "camera_pitch_rad": camera.pitch_rad,
        "camera_roll_rad": camera.roll_rad,
        "camera_yaw_rad": camera.yaw_rad,
        "lens_half_view_rad": np.array([camera.lens.half_view_rad]),
        "lens_angles_rad": np.array([camera.lens.pitch_rad, camera.lens.roll_rad, camera.lens.yaw_rad]),
        "jolt_time_s": np.array([jolt.time_s for jolt in jolts]) - frame_time_s[0],
        "jolt_pitch_deg": np.degrees([jolt.pitch_rad for jolt in jolts]),
    }
    return {name: values.astype(np.float32) for name, values in per_frame.items()}
