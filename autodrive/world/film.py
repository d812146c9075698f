"""Turns a family of outcomes into files: per outcome one video, its sensors, its truth, and one record."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autodrive.schema import ROAD, SourceVideo, SourceView, Split
from autodrive.world.bodies import make_body
from autodrive.world.driving_events import HARSH_BRAKING_MPS2, find_driving_events, spans_of
from autodrive.world.files import finish_videos, write_arrays, write_video
from autodrive.world.fills import SEE_FAR_M, Actor
from autodrive.world.flying import Drive, Flying, Track, make_flying
from autodrive.world.impact import RATE_HZ, Contact
from autodrive.world.motion import Play
from autodrive.world.physics import FRONT, REAR, SEEN_AHEAD_M
from autodrive.world.projection import CAMERA_FORWARD_M, Camera, Lens
from autodrive.world.renderer import render
from autodrive.world.scenario import EGO, ROAD_USERS, Scene
from autodrive.world.scenery import Look, make_look
from autodrive.world.sensors import SensorUnit, record
from autodrive.world.settings import WorldSettings
from autodrive.world.siblings import Family, Sibling, draw_family
from autodrive.world.traffic import draw_traffic
from autodrive.world.truth import ego_truth, locate
from autodrive.world.witnessed import draw_witnessed

# Part of every scene's seed.
SPLIT_CODES: dict[Split, int] = {"train": 0, "val": 1, "test": 2}
FILES = {"videos": ".mp4", "sensors": ".npz", "truth": ".npz"}


def film_scene(settings: WorldSettings, split: Split, index: int, folder: Path) -> list[SourceVideo]:
    """Render scene `index` of a split: three sibling videos, each with a file of its sensors and one of its truth.

    One scene in `settings.witnessed_every` comes with another video, of a scene of its own: a collision of two others.

    Times in them are in seconds from the first frame; `docs/world.md` lists their arrays.

    Args:
        settings: What decides the pictures; the same settings, split and index give the same bytes.
        split: Split of the scene; the scenes of different splits are drawn independently.
        index: Scene number within the split.
        folder: Folder that holds `videos/`, `sensors/` and `truth/`.

    Returns:
        One record for each video, paths relative to `folder`.
    """
    families = [draw_family(settings, SPLIT_CODES[split], index)]
    if settings.witnessed_every and (index + 1) % settings.witnessed_every == 0:
        families.append(draw_witnessed(settings, SPLIT_CODES[split], index))
    videos = []
    for family in families:
        look = family_look(settings, family)
        videos += [_film(settings, family, k, look, split, index, folder) for k in range(len(family.siblings))]
    finish_videos(folder / video.road.path for video in videos)
    return videos


@dataclass(frozen=True)
class Staged:
    """One outcome made ready to be drawn, with all that is known of it.

    Attributes:
        camera: Poses of the camera in every frame.
        actors: Other road users, with their poses in every frame.
        flying: What flies about.
        sensors: Arrays of the sensor file.
        truth: Arrays of the truth file.
    """

    camera: Camera
    actors: list[Actor]
    flying: Flying
    sensors: dict[str, np.ndarray]
    truth: dict[str, np.ndarray]


def family_look(settings: WorldSettings, family: Family) -> Look:
    """What stands still along the road, the same in all outcomes of a family."""
    driven = np.concatenate([sibling.play.ego_x_m for sibling in family.siblings])
    seen = float(driven.min()) - 10, float(driven.max()) + SEE_FAR_M + 20
    return make_look(family.scene, seen, settings.width, settings.height)


def stage(settings: WorldSettings, family: Family, k: int) -> Staged:
    """Pose everything in outcome `k` of a family for every frame, and work out its sensors and truth; draws nothing."""
    scene, sibling = family.scene, family.siblings[k]
    frame_time = family.window.start_s + np.arange(settings.num_frames) / settings.fps
    camera = _camera(scene, sibling.play, frame_time, settings)
    actors = [_other_actor(scene, sibling.play, frame_time, [scene.look_seed, 5])]
    if family.partner:
        actors.append(_other_actor(family.partner.scene, family.partner.play, frame_time, [scene.look_seed, 5, 1]))
    else:
        actors += draw_traffic(family, frame_time)
    # Siblings have the same sensors.
    rough = settings.sensors == "rough"
    unit = SensorUnit.rough(np.random.default_rng([scene.look_seed, 9])) if rough else SensorUnit()
    return Staged(
        camera=camera,
        actors=actors,
        flying=_flying(family, k, actors, frame_time),
        sensors=record(sibling.play, unit, np.random.default_rng([scene.look_seed, 4, k])),
        truth={**locate(actors, camera), **ego_truth(sibling.play, camera, sibling.jolts, frame_time)},
    )


def _film(
    settings: WorldSettings, family: Family, k: int, look: Look, split: Split, index: int, folder: Path
) -> SourceVideo:
    scene, sibling = family.scene, family.siblings[k]
    name, source = f"{split}_{3 * index + k:06d}", f"{split}_scene_{index:05d}"
    if family.partner:
        name = source = f"{split}_extra_{index:05d}"
    staged = stage(settings, family, k)
    video, sensors, truth = (Path(kind) / f"{name}{suffix}" for kind, suffix in FILES.items())
    frames = render(look, staged.camera, staged.actors, scene.weather == "rain", scene.look_seed, staged.flying)
    write_video(folder / video, frames, settings)
    write_arrays(folder / sensors, staged.sensors)
    write_arrays(folder / truth, staged.truth)
    zero = family.window.start_s
    # What a contact does to the car is not driving, nor are the steps before it, whose differences already show it.
    driven_until_s = sibling.contact.time_s - 3 / RATE_HZ if sibling.contact else family.window.end_s
    return SourceVideo(
        id=name,
        dataset="synthetic",
        source_video_id=source,
        views={ROAD: SourceView(path=video.as_posix())},
        label=sibling.label,
        event_time_s=None if sibling.label == "normal" else round(sibling.event_s - zero, 3),
        alert_time_s=None
        if sibling.label == "normal" or sibling.alert_s is None
        else round(max(sibling.alert_s - zero, 0.0), 3),
        ego_involved=family.partner is None,
        split=split,
        metadata={"weather": scene.weather, "light": scene.light},
        event_metadata=_event_metadata(family, sibling),
        hazard_time_s=round(sibling.event_s - zero, 3),
        spans=_spans(scene, sibling, zero, driven_until_s),
        driving_events=find_driving_events(sibling.play, zero, driven_until_s),
        sensors=sensors.as_posix(),
        truth=truth.as_posix(),
    )


def _at(play: Play, values: np.ndarray, time_s: np.ndarray) -> np.ndarray:
    return np.interp(time_s, play.time_s, values)


def _camera(scene: Scene, play: Play, time_s: np.ndarray, settings: WorldSettings) -> Camera:
    lens = Lens.draw(np.random.default_rng([scene.look_seed, 10]))
    yaw = _at(play, play.ego_yaw_rad, time_s)
    return Camera(
        x_m=_at(play, play.ego_x_m, time_s) + CAMERA_FORWARD_M,
        y_m=_at(play, play.ego_y_m, time_s) + CAMERA_FORWARD_M * np.sin(yaw),
        yaw_rad=yaw + lens.yaw_rad,
        pitch_rad=_at(play, play.pitch_rad, time_s) + lens.pitch_rad,
        roll_rad=_at(play, play.roll_rad, time_s) + lens.roll_rad,
        road=play.road,
        lens=lens,
        width=settings.width,
        height=settings.height,
    )


def _other_actor(scene: Scene, play: Play, time_s: np.ndarray, seed: list[int]) -> Actor:
    return Actor(
        name=scene.other.name,
        body=make_body(scene.other, np.random.default_rng(seed)),
        x_m=_at(play, play.other_x_m, time_s),
        y_m=_at(play, play.other_y_m, time_s),
        heading_rad=_at(play, play.other_heading_rad, time_s),
        tilt_rad=_at(play, play.other_tilt_rad, time_s),
        lift_m=_at(play, play.other_lift_m, time_s),
        brakes=_at(play, play.other_brakes.astype(float), time_s) > 0.5,
    )


def _flying(family: Family, k: int, actors: list[Actor], time_s: np.ndarray) -> Flying:
    scene, sibling, play = family.scene, family.siblings[k], family.siblings[k].play
    x, y, speed = (_at(play, a, time_s) for a in (play.ego_x_m, play.ego_y_m, play.ego_speed_mps))
    vehicles = [
        Track(a.x_m, a.y_m, np.gradient(a.x_m, time_s), ROAD_USERS[a.name].length_m)
        for a in actors
        if a.name != "pedestrian"
    ]
    drive = Drive(
        time_s=time_s,
        ego=Track(x, y, speed, EGO.length_m),
        vehicles=vehicles,
        wet=scene.weather == "rain",
        event_s=sibling.event_s,
        contact_m=family.partner.place_m if family.partner else _seen_contact(play, sibling.contact),
        jolts_s=[jolt.time_s for jolt in sibling.jolts],
    )
    return make_flying(drive, scene.look_seed, k)


def _seen_contact(play: Play, contact: Contact | None) -> np.ndarray | None:
    """Where the ego and the other touch; None where a forward camera would not see it."""
    if contact is None or contact.side == REAR:
        return None
    centres = (play.ego_x_m, play.ego_y_m, play.other_x_m, play.other_y_m)
    ego_x, ego_y, other_x, other_y = (_at(play, a, np.array([contact.time_s]))[0] for a in centres)
    ahead = min(other_x - ego_x, EGO.length_m / 2)
    aside = np.clip(other_y - ego_y, -EGO.width_m / 2, EGO.width_m / 2)
    return np.array([ego_x + ahead, ego_y + aside, 0.7]) if ahead > SEEN_AHEAD_M else None


def _spans(scene: Scene, sibling: Sibling, start_s: float, end_s: float) -> dict[str, tuple[tuple[float, float], ...]]:
    """When who brakes, in seconds from `start_s`: the ego harshly, the other road user so that its lights show."""
    play, has_lights = sibling.play, scene.other.name != "pedestrian"
    brakes = {"ego_brakes": play.ego_accel_mps2 < -HARSH_BRAKING_MPS2, "other_brakes": play.other_brakes & has_lights}
    return {name: spans_of(play, holds, start_s, end_s) for name, holds in brakes.items()}


def _event_metadata(family: Family, sibling: Sibling) -> dict[str, Any]:
    scene = family.scene
    side = {1: "left", -1: "right", 0: "ahead"}[scene.side]
    return {
        "scenario": scene.scenario,
        "other_road_user": scene.other.name,
        "side": side,
        **_roles(family, sibling.contact),
        "initial_gap_m": round(scene.initial_gap_m, 2),
        "initial_speed_mps": round(scene.ego_speed_mps, 2),
        "hazard_onset_s": round(-family.window.start_s, 3),
        **sibling.facts,
    }


def _roles(family: Family, contact: Contact | None) -> dict[str, str]:
    """Who struck whom and on which side of the ego; who left its own path or did not keep distance is to blame."""
    if family.partner:
        role = "struck" if family.partner.role == "striking" else "striking"
        return {"ego_role": "witness", "other_role": role, "impact_side": "none", "blame": "other"}
    if contact is None:
        return dict.fromkeys(("ego_role", "other_role", "impact_side", "blame"), "none")
    # Whoever's front touches strikes. Where flanks touch, it is who moves into the other's path: the ego only if the
    # other came from no side.
    ego_strikes = contact.side == FRONT or (contact.side != REAR and family.scene.side == 0)
    blame = "ego" if family.scene.scenario == "lead_brake" and contact.side != REAR else "other"
    roles = ("striking", "struck") if ego_strikes else ("struck", "striking")
    return {"ego_role": roles[0], "other_role": roles[1], "impact_side": contact.side, "blame": blame}
