"""Turns a family of outcomes into files: per outcome one video, its sensors, its truth, and one record."""

from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from autodrive.schema import ROAD, SourceVideo, SourceView, Split
from autodrive.world.bodies import make_body
from autodrive.world.fills import SEE_FAR_M, Actor, Debris
from autodrive.world.motion import Play, Window
from autodrive.world.projection import CAMERA_FORWARD_M, Camera
from autodrive.world.renderer import render
from autodrive.world.scenario import EGO, ROAD_USERS, Scene
from autodrive.world.scenery import Look, make_look
from autodrive.world.sensors import locate, record
from autodrive.world.settings import WorldSettings
from autodrive.world.siblings import Family, Sibling, draw_family

SPLIT_CODES: dict[Split, int] = {"train": 0, "val": 1, "test": 2}
FILES = {"videos": ".mp4", "sensors": ".npz", "truth": ".npz"}
# Before contact, if there is one: who slows more than this brakes.
BRAKING_MPS2 = 1.5
# Constant quantiser, no look-ahead: the first picture's bytes do not depend on what follows.
ENCODER_OPTIONS = {"preset": "ultrafast", "tune": "zerolatency", "qp": "20", "g": "30", "bf": "0"}


def film_scene(settings: WorldSettings, split: Split, index: int, folder: Path) -> list[SourceVideo]:
    """Render scene `index` of a split: three sibling videos, each with a file of its sensors and one of its truth.

    Times are in seconds from the first frame. A sensor file (`sensors/*.npz`) holds `imu_time_s`, `imu_accel_mps2`
    (n, 3), `imu_gyro_radps` (n, 3), `gps_time_s` and `gps_speed_mps` (see `sensors.record` for axes and gravity). A
    truth file (`truth/*.npz`) holds `object_class` (O,), `object_boxes_px` (T, O, 4), `object_distance_m` (T, O) (see
    `sensors.locate`), `frame_time_s` (T,), `ego_speed_mps` (T,) without noise, and `jolt_time_s`, `jolt_pitch_deg` of
    potholes and kerbs.

    Args:
        settings: What decides the pictures; the same settings, split and index give the same bytes.
        split: Split of the scene; the scenes of different splits are drawn independently.
        index: Scene number within the split.
        folder: Folder that holds `videos/`, `sensors/` and `truth/`.

    Returns:
        One record for each video, paths relative to `folder`.
    """
    family = draw_family(settings, SPLIT_CODES[split], index)
    travelled = family.scene.ego_speed_mps * settings.duration_s
    start_x = float(family.siblings[0].play.ego_x_m[0])
    look = make_look(
        family.scene, (start_x - 10, start_x + travelled + SEE_FAR_M + 20), settings.width, settings.height
    )
    return [_film(settings, family, k, look, split, index, folder) for k in range(len(family.siblings))]


def _film(
    settings: WorldSettings, family: Family, k: int, look: Look, split: Split, index: int, folder: Path
) -> SourceVideo:
    scene, sibling = family.scene, family.siblings[k]
    name = f"{split}_{3 * index + k:06d}"
    frame_time = family.window.start_s + np.arange(settings.num_frames) / settings.fps
    camera = _camera(sibling.play, frame_time, scene, settings)
    actors = [_other_actor(scene, sibling.play, frame_time), *_traffic(scene, frame_time)]
    video, sensors, truth = (Path(kind) / f"{name}{suffix}" for kind, suffix in FILES.items())
    debris = _debris(scene, sibling, frame_time) if sibling.label == "collision" else None
    frames = render(look, camera, actors, scene.weather == "rain", scene.look_seed, debris)
    _encode(folder / video, frames, settings)
    rng = np.random.default_rng([scene.look_seed, 4, k])
    _save(folder / sensors, record(sibling.play, rng))
    _save(folder / truth, {**locate(actors, camera), **_ego_truth(sibling, frame_time)})
    zero = family.window.start_s
    return SourceVideo(
        id=name,
        dataset="synthetic",
        source_video_id=f"{split}_scene_{index:05d}",
        views={ROAD: SourceView(path=video.as_posix())},
        label=sibling.label,
        event_time_s=None if sibling.label == "normal" else round(sibling.event_s - zero, 3),
        alert_time_s=None
        if sibling.label == "normal" or sibling.alert_s is None
        else round(max(sibling.alert_s - zero, 0.0), 3),
        ego_involved=True,
        split=split,
        metadata={"weather": scene.weather, "light": scene.light},
        event_metadata=_event_metadata(scene, sibling, family.window),
        hazard_time_s=round(sibling.event_s - zero, 3),
        sensors=sensors.as_posix(),
        truth=truth.as_posix(),
    )


def _at(play: Play, values: np.ndarray, time_s: np.ndarray) -> np.ndarray:
    return np.interp(time_s, play.time_s, values)


def _camera(play: Play, time_s: np.ndarray, scene: Scene, settings: WorldSettings) -> Camera:
    yaw = _at(play, play.ego_yaw_rad, time_s)
    return Camera(
        x_m=_at(play, play.ego_x_m, time_s) + CAMERA_FORWARD_M,
        y_m=_at(play, play.ego_y_m, time_s) + CAMERA_FORWARD_M * np.sin(yaw),
        yaw_rad=yaw,
        pitch_rad=_at(play, play.pitch_rad, time_s),
        roll_rad=_at(play, play.roll_rad, time_s),
        curvature_per_m=scene.curvature_per_m,
        width=settings.width,
        height=settings.height,
    )


def _other_actor(scene: Scene, play: Play, time_s: np.ndarray) -> Actor:
    return Actor(
        name=scene.other.name,
        body=make_body(scene.other, np.random.default_rng([scene.look_seed, 5])),
        x_m=_at(play, play.other_x_m, time_s),
        y_m=_at(play, play.other_y_m, time_s),
        heading_rad=_at(play, play.other_heading_rad, time_s),
        tilt_rad=_at(play, play.other_tilt_rad, time_s),
        lift_m=_at(play, play.other_lift_m, time_s),
        brakes=_at(play, play.other_brakes.astype(float), time_s) > 0.5,
    )


def _debris(scene: Scene, sibling: Sibling, time_s: np.ndarray) -> Debris:
    """Glass and plastic from where the bumper met the other."""
    rng = np.random.default_rng([scene.look_seed, 7])
    num = 22 if scene.other.name != "pedestrian" else 8
    at = np.array([sibling.event_s])
    bumper = _at(sibling.play, sibling.play.ego_x_m, at)[0] + EGO.length_m / 2
    ego_y, other_y = (_at(sibling.play, y, at)[0] for y in (sibling.play.ego_y_m, sibling.play.other_y_m))
    origin = np.array([bumper, ego_y + np.clip(other_y - ego_y, -0.7, 0.7), 0.8])
    carried = _at(sibling.play, sibling.play.ego_speed_mps, at)[0] * rng.uniform(0.3, 1.0, num)
    velocity = np.stack([carried + rng.normal(0, 1.0, num), rng.normal(0, 2.2, num), rng.uniform(0.5, 4.5, num)], 1)
    grey = rng.uniform(25, 235, num)[:, None] * np.ones(3)
    return Debris(time_s - sibling.event_s, origin, velocity, rng.uniform(0.03, 0.11, num), grey)


def _traffic(scene: Scene, time_s: np.ndarray) -> list[Actor]:
    """Bystanders whose motion is fixed by the scene and who never meet the ego: oncoming cars, someone far ahead."""
    rng = np.random.default_rng([scene.look_seed, 6])
    actors = []
    still, calm = np.zeros(len(time_s)), np.zeros(len(time_s), dtype=bool)
    oncoming = int(rng.integers(0, 4)) if scene.scenario in ("lead_brake", "cut_in") else 0
    lane_m = 3.5 * scene.oncoming_from_lane
    for _ in range(oncoming):
        user = ROAD_USERS[str(rng.choice(["car", "car", "van", "truck"]))]
        x = rng.uniform(-10, 110) - rng.uniform(10, 15) * time_s
        body = make_body(user, rng)
        actors.append(Actor(user.name, body, x, still + lane_m, still + np.pi, still, still, calm))
    if scene.scenario != "lead_brake" and rng.random() < 0.5:
        user, gap = ROAD_USERS["car"], rng.uniform(50, 75)
        x = gap + scene.ego_speed_mps * 1.05 * time_s
        if scene.scenario in ("crossing_vehicle", "pedestrian", "oncoming_drift"):
            x = x + np.maximum(0.0, scene.start_xy_m[0] + 12.0 - gap)
        actors.append(Actor(user.name, make_body(user, rng), x, still, still, still, still, calm))
    return actors


def _encode(path: Path, frames, settings: WorldSettings) -> None:
    """Write H.264 in mp4; the file appears under its name only when it is complete."""
    partial = path.with_name(path.name + ".partial")
    with av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=settings.fps, options=ENCODER_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = settings.width, settings.height, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            planes = cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())
    partial.replace(path)


def _ego_truth(sibling: Sibling, frame_time: np.ndarray) -> dict[str, np.ndarray]:
    play = sibling.play
    return {
        "frame_time_s": (frame_time - frame_time[0]).astype(np.float32),
        "ego_speed_mps": _at(play, play.ego_speed_mps, frame_time).astype(np.float32),
        "jolt_time_s": np.array([j.time_s - frame_time[0] for j in sibling.jolts], dtype=np.float32),
        "jolt_pitch_deg": np.degrees([j.pitch_rad for j in sibling.jolts]).astype(np.float32),
    }


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    partial.replace(path)


def _event_metadata(scene: Scene, sibling: Sibling, window: Window) -> dict[str, Any]:
    collided = sibling.label == "collision"
    side = {1: "left", -1: "right", 0: "ahead"}[scene.side]
    before = sibling.play.time_s < (sibling.event_s if collided else np.inf)
    other_brakes = scene.other.name != "pedestrian" and bool(sibling.play.other_brakes[before].any())
    return {
        "scenario": scene.scenario,
        "other_road_user": scene.other.name,
        "side": side,
        "ego_brakes": bool(sibling.play.ego_accel_mps2[before].min() < -BRAKING_MPS2),
        "other_brakes": other_brakes,
        "ego_role": "striking" if collided else "none",
        "other_role": "struck" if collided else "none",
        "impact_side": "front" if collided else "none",
        "blame": _blame(scene) if collided else "none",
        "initial_gap_m": round(scene.initial_gap_m, 2),
        "initial_speed_mps": round(scene.ego_speed_mps, 2),
        "hazard_onset_s": round(-window.start_s, 3),
        **sibling.facts,
    }


def _blame(scene: Scene) -> str:
    """Who broke the rule: the one behind in a rear-end crash, else the one who left its own path."""
    return "ego" if scene.scenario == "lead_brake" else "other"
