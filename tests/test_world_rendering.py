"""The pictures and files of the rendered world: what a camera would see, the truth beside it, and no leaks."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from autodrive.schema import SourceVideo
from autodrive.world.bodies import make_body
from autodrive.world.fills import Actor, actor_corners
from autodrive.world.film import film_scene
from autodrive.world.projection import HALF_VIEW_DEG, Camera, Lens
from autodrive.world.renderer import render
from autodrive.world.road import Bend, Road
from autodrive.world.scenario import LANE_WIDTH_M, ROAD_USERS, draw_scene
from autodrive.world.scenery import make_look
from autodrive.world.settings import CONDITIONS, SCENARIOS, WorldSettings
from autodrive.world.truth import locate

SETTINGS = WorldSettings(3, 4.0, False, 30, 112, 56, SCENARIOS, CONDITIONS, "clean")


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def still_camera(num: int = 1, **changes) -> Camera:
    zero = np.zeros(num)
    camera = Camera(
        x_m=zero,
        y_m=zero,
        yaw_rad=zero,
        pitch_rad=zero,
        roll_rad=zero,
        road=Road.straight(),
        lens=Lens(half_view_rad=np.radians(37.0), pitch_rad=0.0, roll_rad=0.0, yaw_rad=0.0),
        width=112,
        height=56,
    )
    return replace(camera, **changes)


def car(x_m: np.ndarray, brakes: bool = False) -> Actor:
    zero = np.zeros(len(x_m))
    body = make_body(ROAD_USERS["car"], np.random.default_rng(0))
    return Actor("car", body, x_m, zero, zero, zero, zero, np.full(len(x_m), brakes))


def look_of(condition: str, scenario: str = "lead_brake"):
    return make_look(draw_scene(scenario, condition, np.random.default_rng(4)), (-10.0, 120.0), 112, 56)


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


def bent_road(curvature_per_m: float) -> Road:
    return Road.through([Bend(-20.0, 10.0, 90.0, curvature_per_m)], (-50.0, 200.0))


def test_bend_to_the_left_moves_the_distance_left():
    bent = still_camera(road=bent_road(1 / 200))
    frame, point = np.zeros(1, dtype=int), np.array([[40.0, 0.0, 0.0]])
    assert bent.project(frame, point)[0][0, 0] < 56 - 5


def test_in_a_bend_of_constant_radius_points_lie_on_its_circle():
    road = Road.through([Bend(-20.0, 1.0, 90.0, 1 / 50)], (-50.0, 200.0))
    arc = np.array([0.0, 10.0, 40.0]) / 50
    x, y = road.place(50 * arc, np.array([0.0, 2.0, -3.0]))
    radius = 50 - np.array([0.0, 2.0, -3.0])
    np.testing.assert_allclose(x, radius * np.sin(arc), atol=2e-3)
    np.testing.assert_allclose(y, 50 - radius * np.cos(arc), atol=2e-3)


@pytest.mark.parametrize("curvature_per_m", [1 / 50, -1 / 50, 1 / 150])
def test_painted_lines_lie_where_the_projection_says(curvature_per_m: float):
    """What stands on the road and its surface bend alike, also for a camera that is turned, aside and rolled."""
    pose = {"x_m": 5.0, "y_m": 0.6, "yaw_rad": 0.06, "pitch_rad": 0.02, "roll_rad": -0.04}
    camera = replace(still_camera(road=bent_road(curvature_per_m)), width=448, height=224)
    camera = replace(camera, **{name: np.array([value]) for name, value in pose.items()})
    scene = draw_scene("lead_brake", "day", np.random.default_rng(4))
    picture = next(render(make_look(scene, (-10.0, 120.0), 448, 224), camera, [], False, 1)).astype(float)
    yellow, line_m = picture[..., 0] - picture[..., 2], LANE_WIDTH_M * (scene.oncoming_from_lane - 0.5)
    for ahead in np.arange(5.0, 20.0, 0.5):
        points = np.array([[5 + ahead, line_m + off, 0.0] for off in (-0.7, 0.0, 0.7)])[None]
        u, v = camera.project(np.zeros(1, dtype=int), points)[0][0].T.round().astype(int)
        assert yellow[v[1], u[1]] > 80
        assert max(yellow[v[0], u[0]], yellow[v[2], u[2]]) < 60


def test_the_panorama_turns_with_the_road():
    road = bent_road(1 / 80)
    camera = still_camera(2, x_m=np.array([10.0, 18.0]), road=road)
    turned_px = float(np.diff(road.heading(camera.x_m))[0]) * camera.focal_px
    look = look_of("day")
    bare = replace(look, objects=look.ground)  # nothing stands beside the road; of a braking lead, nothing lies on it
    sky = np.stack([f[8:23].astype(float).mean(axis=(0, 2)) for f in render(bare, camera, [], False, 1)])
    shifts = np.arange(-15, 16)
    far = [np.abs(sky[1, 20 + s : 90 + s] - sky[0, 20:90]).mean() for s in shifts]
    assert turned_px > 5
    assert shifts[int(np.argmin(far))] == pytest.approx(turned_px, abs=1.5)  # to the right, as the camera turns left


def test_vehicles_in_a_bend_point_along_the_road():
    zero = np.zeros(1)
    camera = still_camera(road=bent_road(1 / 45))
    corners = actor_corners(car(np.array([25.0])))[0].reshape(-1, 3)
    x, y = camera.road.place(corners[:, 0], corners[:, 1])
    rear, front = (np.flatnonzero(corners[:, 0] == pick) for pick in (corners[:, 0].min(), corners[:, 0].max()))
    along = np.arctan2(y[front].mean() - y[rear].mean(), x[front].mean() - x[rear].mean())
    assert along == pytest.approx(float(camera.road.heading(np.array(25.0))), abs=0.01)
    assert along > 0.4
    flanks = [box_width(camera, zero + 25.0), box_width(still_camera(), zero + 25.0)]
    assert flanks[0] > 1.3 * flanks[1]  # its side shows


def box_width(camera: Camera, x_m: np.ndarray) -> float:
    box = locate([car(x_m)], camera)["object_boxes_px"][0, 0]
    return float(box[2] - box[0])


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
        for files in ([video.road.path for video in videos], [str(video.sensors) for video in videos]):
            assert len({(folder / file).stat().st_size for file in files}) == 1


def test_first_pictures_of_siblings_are_identical_where_they_come_before_the_onset(filmed):
    folder, scenes = filmed
    early = [videos for videos in scenes if videos[0].event_metadata["hazard_onset_s"] > 0]
    assert early
    for videos in early:
        firsts = [decode(folder / video.road.path)[0] for video in videos]
        np.testing.assert_array_equal(firsts[0], firsts[1])
        np.testing.assert_array_equal(firsts[0], firsts[2])


def test_blow_to_the_front_changes_the_picture_more_than_a_normal_siblings_moment(filmed):
    folder, scenes = filmed
    ratios = []
    for videos in scenes:
        jump = {}
        for video in videos:
            frames = decode(folder / video.road.path).astype(float)
            at = int(video.hazard_time_s * 30)
            jump[video.label] = np.abs(np.diff(frames[at - 2 : at + 8], axis=0)).mean(axis=(1, 2, 3)).max()
        if "front" in [video.event_metadata["impact_side"] for video in videos]:
            ratios.append(jump["collision"] / jump["normal"])
    assert np.median(ratios) > 1.3


def test_sensors_and_truth_cover_the_video(filmed):
    folder, scenes = filmed
    for videos in scenes:
        for video in videos:
            sensors = np.load(folder / str(video.sensors), allow_pickle=False)
            truth = np.load(folder / str(video.truth), allow_pickle=False)
            assert sensors["imu_time_s"][-1] == pytest.approx(4.0, abs=0.02)
            assert np.allclose(np.diff(sensors["imu_time_s"]), 0.01, atol=1e-4)
            assert len(sensors["gps_speed_mps"]) == 5
            assert truth["object_boxes_px"].shape[0] == len(truth["frame_time_s"]) == 120
            assert all(truth[f"camera_{angle}_rad"].shape == (120,) for angle in ("pitch", "roll", "yaw"))
            assert truth["object_class"][0] == video.event_metadata["other_road_user"]


def test_each_scene_has_a_lens_of_its_own_that_its_siblings_share(filmed):
    folder, scenes = filmed
    lenses = []
    for videos in scenes:
        truths = [np.load(folder / str(video.truth), allow_pickle=False) for video in videos]
        shared = {(*truth["lens_half_view_rad"], *truth["lens_angles_rad"]) for truth in truths[:3]}
        assert len(shared) == 1
        lenses.append(shared.pop())
        # The road lies level and the car upright most of the time: what is left on average is how the lens is stuck on.
        for truth in truths[:3]:
            pitch_rad, roll_rad, _ = truth["lens_angles_rad"]
            assert np.median(truth["camera_pitch_rad"]) == pytest.approx(pitch_rad, abs=np.radians(1.0))
            assert np.median(truth["camera_roll_rad"]) == pytest.approx(roll_rad, abs=np.radians(1.0))
    assert len(set(lenses)) == len(scenes)
    assert all(np.radians(HALF_VIEW_DEG[0]) <= lens[0] <= np.radians(HALF_VIEW_DEG[1]) for lens in lenses)


def test_a_wider_lens_sees_the_same_car_smaller():
    narrow, wide = (still_camera(lens=Lens(np.radians(half_view_deg), 0.0, 0.0, 0.0)) for half_view_deg in (35.0, 43.0))
    pixels = [draw("day", camera, [car(np.array([12.0]))]) - draw("day", camera, []) for camera in (narrow, wide)]
    ratio = np.sqrt(np.divide(*((np.abs(p).max(axis=-1) > 25).sum() for p in pixels)))
    assert ratio == pytest.approx(np.tan(np.radians(43.0)) / np.tan(np.radians(35.0)), rel=0.15)


def test_box_of_what_the_front_strikes_is_large_at_contact(filmed):
    folder, scenes = filmed
    for video in (v for videos in scenes for v in videos if v.event_metadata["impact_side"] == "front"):
        truth = np.load(folder / str(video.truth), allow_pickle=False)
        assert video.event_time_s is not None
        box = truth["object_boxes_px"][int(video.event_time_s * 30), 0]
        share = (box[2] - box[0]) * (box[3] - box[1]) / (112 * 56)
        assert share > (0.08 if video.event_metadata["other_road_user"] == "pedestrian" else 0.2)


def test_events_are_marked_where_they_should_be(filmed):
    for video in (v for videos in filmed[1] for v in videos):
        assert (video.event_time_s is None) == (video.label == "normal")
        if video.event_time_s is not None:
            assert 0.5 < video.event_time_s < 4.0 - 0.1
            assert video.alert_time_s is None or video.alert_time_s <= video.event_time_s
        assert video.event_metadata["side"] in ("left", "right", "ahead")
        assert video.spans.keys() == {"ego_brakes", "other_brakes"}
