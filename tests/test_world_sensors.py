"""Sensors and truth agree with physics, and with each other; none of it names the class."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from autodrive.world.driving_events import find_driving_events
from autodrive.world.film import Staged, stage
from autodrive.world.impact import RATE_HZ
from autodrive.world.lead_in import drive_up
from autodrive.world.motion import RUN_UP_S, Play
from autodrive.world.road import Bend, Road, draw_road
from autodrive.world.scenario import draw_scene
from autodrive.world.sensors import SensorUnit, record
from autodrive.world.settings import CLASSES, CONDITIONS, SCENARIOS, WorldSettings
from autodrive.world.siblings import Family, draw_family

G_MPS2 = 9.81
SETTINGS = WorldSettings(3, 6.0, False, 30, 112, 56, SCENARIOS, CONDITIONS, "clean")
EXACT = SensorUnit(accel_noise_mps2=0.0, gyro_noise_radps=0.0, gps_noise_mps=0.0)


@pytest.fixture(scope="module")
def families() -> list[Family]:
    return [draw_family(SETTINGS, 2, index) for index in range(10)]


def steady(speed_mps: float = 0.0, accel_mps2: float = 0.0, road: Road | None = None, **changes) -> Play:
    """Six seconds at constant acceleration from t = -2 on, upright unless `changes` say otherwise."""
    time = np.arange(-RUN_UP_S, 4.0 + 1e-9, 1 / RATE_HZ)
    zero, since, road = np.zeros(len(time)), time - time[0], road or Road.straight()
    poses: dict[str, Any] = {field.name: zero for field in fields(Play)} | {"time_s": time, "road": road}
    speed = speed_mps + accel_mps2 * since
    along = speed_mps * since + accel_mps2 * since**2 / 2
    poses |= {"ego_x_m": along, "ego_speed_mps": speed, "ego_accel_mps2": zero + accel_mps2}
    poses |= {"ego_lateral_mps2": speed**2 * road.curvature(along)}
    return Play(**(poses | changes))


def measure(play: Play, unit: SensorUnit = EXACT) -> dict[str, np.ndarray]:
    return {name: array.astype(float) for name, array in record(play, unit, np.random.default_rng(0)).items()}


def played(families: list[Family], *labels: str):
    return [(f, k, s) for f in families for k, s in enumerate(f.siblings) if s.label in labels]


def test_a_car_at_rest_reads_gravity_upwards():
    sensed = measure(steady(), SensorUnit())
    np.testing.assert_allclose(sensed["imu_accel_mps2"].mean(axis=0), [0, 0, G_MPS2], atol=0.02)
    np.testing.assert_allclose(sensed["imu_accel_mps2"].std(axis=0), 0.08, rtol=0.2)
    np.testing.assert_allclose(sensed["imu_gyro_radps"].mean(axis=0), 0, atol=0.001)
    np.testing.assert_allclose(sensed["imu_time_s"], np.arange(401) / 100, atol=1e-5)


def test_forward_acceleration_integrates_to_speed_once_gravity_is_taken_out(families: list[Family]):
    leaks = []
    for _, _, sibling in played(families, *CLASSES):
        play = sibling.play
        sensed, video = measure(play), slice(round(RUN_UP_S * RATE_HZ), None)
        pitch, roll = play.pitch_rad[video], play.roll_rad[video]
        x, y, z = sensed["imu_accel_mps2"].T
        level = x * np.cos(pitch) + np.sin(pitch) * (y * np.sin(roll) + z * np.cos(roll))
        # A blow that lifts the sensor shows on its tilted axes as well: tight where nothing jolts.
        calm = np.abs(level - play.ego_accel_mps2[video]) < 0.3
        assert calm.mean() > 0.9
        gained = np.trapezoid(np.where(calm, level, play.ego_accel_mps2[video]), sensed["imu_time_s"])
        speed = play.ego_speed_mps[video]
        assert gained == pytest.approx(speed[-1] - speed[0], abs=0.05)
        leaks.append(np.abs(x - level)[calm].max())
    assert max(leaks) > 0.3  # without taking gravity out, dive under braking does show


def test_in_a_bend_the_lateral_axis_reads_v2_k_and_the_lean():
    speed, radius, roll = 12.0, 60.0, np.radians(1.1)
    road = Road.through([Bend(-30.0, 1.0, 200.0, 1 / radius)], (-40.0, 200.0))
    sensed = measure(steady(speed, road=road, roll_rad=np.full(601, roll)))
    across = speed**2 / radius
    forward, left, up = sensed["imu_accel_mps2"].mean(axis=0)
    assert forward == pytest.approx(0.0, abs=1e-6)
    assert left == pytest.approx(across * np.cos(roll) + G_MPS2 * np.sin(roll), abs=1e-3)
    assert up == pytest.approx(G_MPS2 * np.cos(roll) - across * np.sin(roll), abs=1e-3)
    # The yaw rate v/R is about the upright axis; leaning shows a little of it as pitch.
    about_y, about_z = speed / radius * np.sin(roll), speed / radius * np.cos(roll)
    np.testing.assert_allclose(sensed["imu_gyro_radps"].mean(axis=0), [0.0, about_y, about_z], atol=1e-5)


def test_yaw_rate_integrates_to_the_change_of_direction(families: list[Family]):
    turned = []
    for family, k, sibling in played(families, "normal", "near_collision"):
        truth, sensed = stage(SETTINGS, family, k).truth, measure(sibling.play)
        direction = truth["road_heading_rad"] + truth["camera_yaw_rad"]
        until = sensed["imu_time_s"] <= truth["frame_time_s"][-1] + 1e-6
        gained = np.trapezoid(sensed["imu_gyro_radps"][until, 2], sensed["imu_time_s"][until])
        assert gained == pytest.approx(direction[-1] - direction[0], abs=0.02)
        turned.append(abs(direction[-1] - direction[0]))
    assert max(turned) > 0.25


def test_truth_of_the_road_agrees_with_itself(families: list[Family]):
    for family, k, _ in played(families, "normal"):
        truth = stage(SETTINGS, family, k).truth
        time, speed = truth["frame_time_s"].astype(float), truth["ego_speed_mps"].astype(float)
        turning = np.gradient(truth["road_heading_rad"].astype(float), time)
        np.testing.assert_allclose(turning[1:-1], (speed * truth["road_curvature_per_m"])[1:-1], atol=0.01)
        forward = np.trapezoid(truth["ego_accel_mps2"][:, 0], time)
        assert forward == pytest.approx(speed[-1] - speed[0], abs=0.1)


def test_two_in_five_stretches_of_road_hold_a_bend_and_none_is_too_tight():
    sharpest = []
    for seed in range(80):
        scene = draw_scene("lead_brake", "day", np.random.default_rng(seed))
        road = draw_road(scene, drive_up(scene, -1.0), (-10.0, 50.0))
        sharpest.append(np.abs(road.curvature(np.linspace(-10, 50, 50))).max())
        assert np.abs(road.course[:, 2]).max() < 1.36
    assert 0.3 < np.mean(np.array(sharpest) > 1 / 310) < 0.6
    assert max(sharpest) <= 1 / 40


def test_roll_follows_the_lateral_acceleration(families: list[Family]):
    across, leans = [], []
    for _, _, sibling in played(families, "normal", "near_collision"):
        play = sibling.play
        # Springs take a while: steady for half a second, and nothing jolts.
        restless = np.abs(np.gradient(play.ego_lateral_mps2, play.time_s)) > 1.0
        restless |= np.any([np.abs(play.time_s - jolt.time_s) < 0.1 for jolt in sibling.jolts], axis=0)
        steady = np.convolve(restless, np.ones(80))[: len(restless)] == 0
        across.append(play.ego_lateral_mps2[steady])
        leans.append(play.roll_rad[steady])
    across, leans = np.concatenate(across), np.concatenate(leans)
    assert np.abs(across).max() > 1.0
    assert np.degrees(np.polyfit(across, leans, 1)[0]) * G_MPS2 == pytest.approx(4.5, rel=0.1)


def test_the_contacts_pulse_lies_in_the_frame_in_which_the_picture_jolts(families: list[Family]):
    checked = 0
    for family, k, sibling in played(families, "collision"):
        staged, contact_s = stage(SETTINGS, family, k), sibling.event_s - family.window.start_s
        if any(-0.4 < jolt.time_s - sibling.event_s < 0.02 for jolt in sibling.jolts):
            continue
        # A blow lifts the sensor at once, which braking and steering do not.
        time, up = staged.sensors["imu_time_s"], staged.sensors["imu_accel_mps2"][:, 2]
        usual = up[(time > contact_s - 0.1) & (time < contact_s - 0.04)].mean()
        pulse_s = time[(time > contact_s - 0.1) & (np.abs(up - usual) > 2.0)][0]
        frames = staged.truth["frame_time_s"]
        angles = np.stack([staged.truth[f"camera_{angle}_rad"] for angle in ("pitch", "roll")])
        last_calm = np.flatnonzero(frames < contact_s)[-1]
        shaken = np.abs(angles - angles[:, last_calm, None]).max(axis=0) > np.radians(0.1)
        picture_s = frames[last_calm:][shaken[last_calm:]][0]
        assert abs(pulse_s - contact_s) < 0.04
        assert 0 <= picture_s - contact_s < 1 / 30 + 0.005
        checked += 1
    assert checked >= 4


def test_gps_reports_the_true_speed_with_noise(families: list[Family]):
    errors = []
    for family, k, _ in played(families, *CLASSES):
        staged = stage(SETTINGS, family, k)
        time = staged.sensors["gps_time_s"]
        assert time.tolist() == list(range(7))
        true = np.interp(time, staged.truth["frame_time_s"], staged.truth["ego_speed_mps"])
        errors += (staged.sensors["gps_speed_mps"] - true).tolist()
    assert np.std(errors) == pytest.approx(0.15, rel=0.5)


def test_a_rough_unit_still_reads_g_and_its_tilt_can_be_found():
    for seed in range(8):
        unit = SensorUnit.rough(np.random.default_rng(seed))
        at_rest = measure(steady(), replace(unit, slope=0.0))["imu_accel_mps2"].mean(axis=0)
        assert np.linalg.norm(at_rest) == pytest.approx(G_MPS2, abs=np.sqrt(3) * 0.15 + 0.05)
        # The direction of gravity gives tilt about the two level axes, up to the bias; yaw it cannot give.
        up = unit.mount.inv().apply([0, 0, 1])
        assert np.degrees(np.arccos(up @ at_rest / np.linalg.norm(at_rest))) < np.degrees(0.15 * np.sqrt(2) / 9.6) + 0.3
        turning = measure(steady(), unit)["imu_gyro_radps"].mean(axis=0)
        np.testing.assert_allclose(turning, unit.gyro_bias_radps, atol=0.003)


def test_a_slope_leans_on_the_forward_axis():
    unit = replace(EXACT, slope=0.05, slope_wave_m=400.0, slope_phase_rad=np.pi / 2)
    uphill = measure(steady(), unit)["imu_accel_mps2"].mean(axis=0)
    np.testing.assert_allclose(
        uphill, G_MPS2 * np.array([np.sin(np.arctan(0.05)), 0, np.cos(np.arctan(0.05))]), atol=1e-4
    )


def test_rough_units_clip_and_their_gps_is_late_and_sometimes_missing():
    unit = SensorUnit.rough(np.random.default_rng(1))
    assert np.abs(measure(steady(accel_mps2=60.0), unit)["imu_accel_mps2"]).max() == pytest.approx(4 * G_MPS2)
    late = measure(steady(10.0, 1.5), replace(EXACT, gps_delay_s=0.7))
    np.testing.assert_allclose(late["gps_speed_mps"], 10 + 1.5 * (RUN_UP_S + late["gps_time_s"] - 0.7), atol=1e-5)
    fixes = [record(steady(), unit, np.random.default_rng(seed))["gps_time_s"] for seed in range(60)]
    assert all(times[0] == 0 and times[-1] == 4 for times in fixes)
    assert np.mean([5 - len(times) for times in fixes]) == pytest.approx(0.3, abs=0.25)


def test_siblings_have_the_same_sensors_and_nothing_names_the_class(families: list[Family]):
    rough = replace(SETTINGS, sensors="rough")
    for family in families[:4]:
        for settings in (SETTINGS, rough):
            staged = [stage(settings, family, k) for k in range(len(CLASSES))]
            arrays = [_outline(one, settings is rough) for one in staged]
            assert arrays[0] == arrays[1] == arrays[2]
        # Before the onset, siblings differ by noise alone: they have one tilt and one bias.
        early = [one.sensors["imu_accel_mps2"][one.sensors["imu_time_s"] < -family.window.start_s] for one in staged]
        if len(early[0]) > 50:
            assert np.ptp([np.median(part, axis=0) for part in early], axis=0).max() < 0.25


def _outline(staged: Staged, rough: bool) -> list[tuple]:
    """Names, kinds and sizes of all arrays in their order, but for how many fixes a rough receiver has."""
    of_jolts = {"jolt_time_s", "jolt_pitch_deg"}
    return [
        (name, array.dtype.kind, () if name in of_jolts or (rough and name.startswith("gps")) else array.shape)
        for name, array in (*staged.sensors.items(), *staged.truth.items())
    ]


def test_the_drive_up_is_shared_and_ends_at_the_onset(families: list[Family]):
    for family in families:
        before = family.siblings[0].play.time_s <= 0
        for sibling in family.siblings:
            play = sibling.play
            assert np.ptp([s.play.ego_speed_mps[before] for s in family.siblings], axis=0).max(initial=0.0) == 0.0
            gained = np.diff(play.ego_x_m[before]) * RATE_HZ
            np.testing.assert_allclose(gained, play.ego_speed_mps[before][1:], atol=0.1)
            if family.scene.scenario == "lead_brake":
                assert np.ptp((play.other_x_m - play.ego_x_m)[before]) < 1e-6


def test_long_drives_hold_events_of_either_kind_now_and_then():
    slowed, sped = 0, 0
    for seed in range(40):
        scene = draw_scene("cut_in", "day", np.random.default_rng(seed))
        drive = drive_up(scene, -60.0)
        acceleration = np.gradient(drive.gain_mps, drive.time_s)
        assert (scene.ego_speed_mps + drive.gain_mps).min() > 5.9
        assert (scene.ego_speed_mps + drive.gain_mps).max() < 21.1
        assert drive.gain_mps[-1] == drive.shift_m[-1] == 0.0
        slowed += np.sum(np.diff((acceleration < -3.0).astype(int)) == 1)
        sped += np.sum(np.diff((acceleration > 3.0).astype(int)) == 1)
    assert 0.5 < slowed / 40 < 4
    assert 0.5 < sped / 40 < 4


def test_events_are_found_where_the_motion_passes_their_thresholds():
    time = np.arange(-RUN_UP_S, 4.0 + 1e-9, 1 / RATE_HZ)
    braking = np.where((time > 1.0) & (time < 2.0), -6.0, 0.0) + np.where((time > 3.0) & (time < 3.1), 9.0, 0.0)
    road = Road.through([Bend(0.0, 4.0, 20.0, 1 / 40)], (-40.0, 200.0))
    found = find_driving_events(steady(10.0, ego_accel_mps2=braking), 0.0, 4.0)
    assert [(e.kind, e.severity) for e in found] == [("harsh_braking", 6.0)]  # a tenth of a second does not count
    assert (found[0].start_s, found[0].end_s) == pytest.approx((1.0, 2.0), abs=0.02)
    (cut,) = find_driving_events(steady(10.0, ego_accel_mps2=braking), 1.5, 4.0)
    assert (cut.start_s, cut.end_s) == pytest.approx((0.0, 0.5), abs=0.02)
    fast = find_driving_events(steady(13.0, road=road), -2.0, 4.0)
    assert {(e.kind, e.severity) for e in fast} == {("harsh_cornering", 4.23), ("excess_speed_in_turn", 4.23)}
    assert find_driving_events(steady(10.0, road=road), -2.0, 4.0) == ()  # 2.5 m/s2
