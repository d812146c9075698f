"""One clip as the probes see it: class, scene, single frames, sensor readings and truth, all within the window."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autodrive.datasets.manifest import load_clips
from autodrive.errors import InputError
from autodrive.schema import Clip
from autodrive.video.decoder import PyAVDecoder
from autodrive.world.settings import CLASSES

FIXED_TIMES = {"first": 0.0, "1/4": 0.25, "1/2": 0.5, "3/4": 0.75, "last": 1.0}
CRITICAL = "critical"
SENSORS = ("imu_time_s", "imu_accel_mps2", "imu_gyro_radps", "gps_time_s", "gps_speed_mps")
TRUTH = (
    "frame_time_s",
    "object_class",
    "object_boxes_px",
    "camera_pitch_rad",
    "camera_roll_rad",
    "camera_yaw_rad",
    "road_curvature_per_m",
    "lens_half_view_rad",
    "lens_angles_rad",
)


@dataclass(frozen=True)
class Example:
    """What is known of one clip.

    Attributes:
        label: Its class.
        scene: Clips of one scene are one draw.
        facts: Its metadata, by which results are broken down.
        frames_HWC: uint8 RGB pictures: one for each of `FIXED_TIMES`, and `CRITICAL` where its moment is in the window.
        sensors: Arrays of the sensor file, cut to the window.
        truth: Arrays of the truth file, cut to the window.
        duration_s: Length of the window.
        native_fps: Frames per second of the video.
        size_px: Height and width of the picture.
        num_bytes: Length of the video file; None where there is none.
    """

    label: str
    scene: str
    facts: Mapping[str, Any]
    frames_HWC: Mapping[str, NDArray[np.uint8]]
    sensors: Mapping[str, NDArray]
    truth: Mapping[str, NDArray]
    duration_s: float
    native_fps: float
    size_px: tuple[int, int]
    num_bytes: int | None


def load_examples(manifest: Path, splits: tuple[str, ...]) -> dict[str, list[Example]]:
    """Read the clips of some splits with all their files.

    Raises:
        InputError: A clip has no label, no sensor file or no truth file, or a file lacks an array.
    """
    clips = load_clips(manifest)
    return {split: [_example(clip) for clip in clips if clip.split == split] for split in splits}


def frame_times(duration_s: float, native_fps: float, critical_s: float | None) -> dict[str, float]:
    """When the single frames are looked at, seconds from the window's start; the last is the last frame shown."""
    last_s = duration_s - 1 / native_fps
    times = {name: min(share * duration_s, last_s) for name, share in FIXED_TIMES.items()}
    if critical_s is not None and 0 <= critical_s <= last_s:
        times[CRITICAL] = critical_s
    return times


def _example(clip: Clip) -> Example:
    if clip.label not in CLASSES:
        raise InputError(f"clip {clip.id}: label {clip.label!r} is not one of {', '.join(CLASSES)}")
    critical_s = clip.event_time_s if clip.event_time_s is not None else clip.metadata.get("hazard_time_s")
    duration_s = clip.end_s - clip.start_s
    times = frame_times(duration_s, clip.road.native_fps, None if critical_s is None else critical_s - clip.start_s)
    order = sorted(times, key=lambda name: times[name])
    wanted_s = np.array([clip.start_s + times[name] for name in order])
    path, size = Path(clip.road.path), (clip.road.height, clip.road.width)
    pictures_THWC = PyAVDecoder().read(path, wanted_s, size).frames_TCHW.permute(0, 2, 3, 1).numpy()
    return Example(
        label=clip.label,
        scene=clip.source_video_id,
        facts=clip.metadata,
        frames_HWC=dict(zip(order, pictures_THWC, strict=True)),
        sensors=_within(clip, "sensors", SENSORS),
        truth=_within(clip, "truth", TRUTH),
        duration_s=duration_s,
        native_fps=clip.road.native_fps,
        size_px=size,
        num_bytes=path.stat().st_size,
    )


def _within(clip: Clip, kind: str, names: tuple[str, ...]) -> dict[str, NDArray]:
    """Arrays of one file; those along a time axis are cut to the window, with times from its start."""
    file = getattr(clip, kind)
    if file is None:
        raise InputError(f"clip {clip.id}: no {kind} file; the probes need the rendered world's clips")
    with np.load(file.path) as arrays:
        missing = [name for name in names if name not in arrays]
        if missing:
            raise InputError(f"{file.path}: no {', '.join(missing)}; render the clips again with this version")
        found = {name: arrays[name] for name in names}
    return cut(found, clip.start_s, clip.end_s)


def cut(arrays: Mapping[str, NDArray], start_s: float, end_s: float) -> dict[str, NDArray]:
    """Arrays of a sensor or truth file within the window: frames before its end, readings up to and with it."""
    kept = {}
    for name, values in arrays.items():
        clock = next((clock for prefix, clock in _CLOCKS.items() if name.startswith(prefix)), None)
        if clock is not None:
            times = arrays[clock]
            last_s = end_s + (-1e-3 if clock == "frame_time_s" else 1e-3)
            inside = (times > start_s - 1e-3) & (times < last_s)
            values = values[inside] - (np.float32(start_s) if name in _CLOCKS.values() else 0)
        kept[name] = values
    return kept


_CLOCKS = {
    "imu_": "imu_time_s",
    "gps_": "gps_time_s",
    "frame_": "frame_time_s",
    "object_boxes": "frame_time_s",
    "camera_": "frame_time_s",
    "road_": "frame_time_s",
}
