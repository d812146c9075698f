"""The pictures and files of the rendered world: what a camera would see, the truth beside it, and no leaks."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from autodrive.schema import SourceVideo
from autodrive.world.bodies import make_body
from autodrive.world.fills import Actor
from autodrive.world.film import film_scene
from autodrive.world.projection import Camera
from autodrive.world.renderer import render
from autodrive.world.scenario import ROAD_USERS, draw_scene
from autodrive.world.scenery import make_look
from autodrive.world.settings import CONDITIONS, SCENARIOS, WorldSettings

SETTINGS = WorldSettings(3, 4.0, False, 30, 112, 56, SCENARIOS, CONDITIONS)


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def still_camera(num: int = 1, **changes) -> Camera:
    zero = np.zeros(num)
    camera = Camera(
        x_m=zero, y_m=zero, yaw_rad=zero, pitch_rad=zero, roll_rad=zero, curvature_per_m=0.0, width=112, height=56
    )
    return replace(camera, **changes)


def car(x_m: np.ndarray, brakes: bool = False) -> Actor:
    zero = np.zeros(len(x_m))
    body = make_body(ROAD_USERS["car"], np.random.default_rng(0))
    return Actor("car", body, x_m, zero, zero, zero, zero, np.full(len(x_m), brakes))


def look_of(condition: str, scenario: str = "lead_brake"):
    scene = replace(draw_scene(scenario, condition, np.random.default_rng(4)), curvature_per_m=0.0)
    return make_look(scene, (-10.0, 120.0), 112, 56)


def draw(condition: str, camera: Camera, actors: list[Actor], rain: bool = False) -> np.ndarray:
    return np.stack([f.copy() for f in render(look_of(condition), camera, actors, rain, 1)]).astype(float)


@pytest.fixture(scope="module")
def filmed(tmp_path_factory) -> tuple[Path, list[list[SourceVideo]]]:
    folder = tmp_path_factory.mktemp("film")
    for part in ("videos", "sensors", "truth"):
        (folder / part).mkdir()
    return folder, [film_scene(SETTINGS, "test", index, folder) for index in range(5)]


def test_projection_matches_the_pinhole_formula():
    camera = still_camera()
    pixels, depth = camera.project(np.zeros(1, dtype=int), np.array([[20.0, 2.0, 0.0]]))
    focal = 56 / np.tan(np.radians(37.0))
    assert depth[0] == pytest.approx(20.0)
    np.testing.assert_allclose(pixels[0], [56 - focal * 2 / 20, 0.42 * 56 + focal * 1.3 / 20], atol=1e-9)


def test_nose_down_raises_the_picture():
    level, dived = still_camera(), still_camera(pitch_rad=np.array([np.radians(3.0)]))
    frame, point = np.zeros(1, dtype=int), np.array([[20.0, 0.0, 1.0]])
    assert dived.project(frame, point)[0][0, 1] < level.project(frame, point)[0][0, 1] - 2.0


def test_bend_to_the_left_moves_the_distance_left():
    bent = still_camera(curvature_per_m=1 / 200)
    frame, point = np.zeros(1, dtype=int), np.array([[40.0, 0.0, 0.0]])
    assert bent.project(frame, point)[0][0, 0] < 56 - 5


def test_car_covers_more_of_the_picture_as_it_nears():
    frames = draw("day", still_camera(3), [car(np.array([60.0, 15.0, 5.0]))])
    empty = draw("day", still_camera(1), [])[0]
    covered = [(np.abs(f - empty).max(axis=-1) > 12).mean() for f in frames]
    assert 3 * covered[0] < covered[1]
    assert 4 * covered[1] < covered[2] > 0.08


def test_brake_lights_turn_brighter_red():
    off, on = (draw("day", still_camera(1), [car(np.array([8.0]), brakes)])[0] for brakes in (False, True))
    change = on - off
    assert change[..., 0].max() > 60
    assert change[..., 0].max() > change[..., 2].max()


def test_road_flows_towards_the_camera_and_sky_stays():
    frames = draw("day", still_camera(2, x_m=np.array([0.0, 0.5])), [])
    change = np.abs(frames[1] - frames[0]).max(axis=-1)
    assert change[26:47, 20:90].mean() > 2.0
    assert change[:3, 40:70].mean() < 0.2


def test_night_is_dark_and_headlights_show_the_near_road():
    day, night = (draw(condition, still_camera(1), [])[0] for condition in ("day", "night"))
    assert night.mean() < 0.4 * day.mean()
    assert night[46, 40:72].mean() > 2 * night[30, :10].mean()


def test_fog_hides_the_distance():
    contrast = {}
    for condition in ("day", "fog"):
        with_car = draw(condition, still_camera(1), [car(np.array([50.0]))])[0]
        contrast[condition] = np.abs(with_car - draw(condition, still_camera(1), [])[0]).max()
    assert contrast["fog"] < 0.5 * contrast["day"]


def test_rain_draws_streaks_that_move():
    wet = draw("rain", still_camera(2), [], rain=True)
    assert (np.abs(wet[1] - wet[0]).max(axis=-1) > 8).sum() > 40
    dry = draw("rain", still_camera(2), [], rain=False)
    assert np.abs(dry[1] - dry[0]).max() == 0


def test_files_hold_the_promised_frames_and_nothing_about_the_class(filmed):
    folder, scenes = filmed
    for videos in scenes:
        for video in videos:
            path = folder / video.road.path
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                assert (stream.codec_context.name, stream.average_rate, stream.frames) == ("h264", 30, 120)
                assert (stream.width, stream.height) == (112, 56)
            assert video.label not in str(path.relative_to(folder)) + str(video.sensors) + str(video.truth)
            assert "normal" not in path.name


def test_first_pictures_of_siblings_are_identical(filmed):
    folder, scenes = filmed
    for videos in scenes:
        firsts = [decode(folder / video.road.path)[0] for video in videos]
        np.testing.assert_array_equal(firsts[0], firsts[1])
        np.testing.assert_array_equal(firsts[0], firsts[2])


def test_impact_changes_the_picture_more_than_the_same_moment_of_a_normal_sibling(filmed):
    folder, scenes = filmed
    ratios = []
    for videos in scenes:
        jump = {}
        for video in videos:
            frames = decode(folder / video.road.path).astype(float)
            at = int(video.hazard_time_s * 30)
            jump[video.label] = np.abs(np.diff(frames[at - 2 : at + 8], axis=0)).mean(axis=(1, 2, 3)).max()
        ratios.append(jump["collision"] / jump["normal"])
    assert np.median(ratios) > 1.3


def test_truth_agrees_with_itself(filmed):
    folder, scenes = filmed
    for videos in scenes:
        for video in videos:
            sensors = np.load(folder / str(video.sensors), allow_pickle=False)
            truth = np.load(folder / str(video.truth), allow_pickle=False)
            assert sensors["imu_time_s"][-1] == pytest.approx(4.0, abs=0.02)
            assert np.allclose(np.diff(sensors["imu_time_s"]), 0.01, atol=1e-4)
            assert len(sensors["gps_speed_mps"]) == 5
            # Integrating the forward acceleration gives the change of speed (pitch leaks a little gravity).
            gained = np.trapezoid(sensors["imu_accel_mps2"][:, 0], sensors["imu_time_s"])
            assert gained == pytest.approx(truth["ego_speed_mps"][-1] - truth["ego_speed_mps"][0], abs=1.2)
            assert np.median(sensors["imu_accel_mps2"][:100, 2]) == pytest.approx(9.81, abs=0.1)
            assert truth["object_boxes_px"].shape[0] == len(truth["frame_time_s"]) == 120
            assert truth["object_class"][0] == video.event_metadata["other_road_user"]


def test_box_of_the_struck_road_user_is_large_at_contact(filmed):
    folder, scenes = filmed
    for video in (v for videos in scenes for v in videos if v.label == "collision"):
        truth = np.load(folder / str(video.truth), allow_pickle=False)
        assert video.event_time_s is not None
        box = truth["object_boxes_px"][int(video.event_time_s * 30), 0]
        share = (box[2] - box[0]) * (box[3] - box[1]) / (112 * 56)
        assert share > (0.08 if video.event_metadata["other_road_user"] == "pedestrian" else 0.2)


def test_events_are_marked_where_they_should_be(filmed):
    for video in (v for videos in filmed[1] for v in videos):
        assert (video.event_time_s is None) == (video.label == "normal")
        if video.event_time_s is not None:
            assert 0.5 < video.event_time_s < 4.0 - 0.3
            assert video.alert_time_s is None or video.alert_time_s <= video.event_time_s
        assert video.event_metadata["side"] in ("left", "right", "ahead")
        assert isinstance(video.event_metadata["ego_brakes"], bool)
