"""The world's outcomes come from its physics: contact, evasion, neither; and siblings part only after the onset."""

from collections import Counter

import numpy as np
import pytest

from autodrive.world.driver import Drivers, required_deceleration, time_to_conflict
from autodrive.world.motion import RATE_HZ
from autodrive.world.physics import STEP_S, judge, simulate
from autodrive.world.scenario import EGO, ROAD_USERS, OtherMotion, Scene
from autodrive.world.settings import CLASSES, CONDITIONS, SCENARIOS, WorldSettings
from autodrive.world.siblings import Family, draw_family


def lead_scene(gap_m: float, speed_mps: float = 15.0) -> Scene:
    car = ROAD_USERS["car"]
    return Scene(
        scenario="lead_brake",
        light="day",
        weather="clear",
        ego_speed_mps=speed_mps,
        other=car,
        side=0,
        start_xy_m=((EGO.length_m + car.length_m) / 2 + gap_m, 0.0),
        start_velocity_mps=(speed_mps, 0.0),
        heading_rad=0.0,
        lanes_left=1,
        lanes_right=0,
        oncoming_from_lane=1,
        curvature_per_m=0.0,
        look_seed=1,
    )


def braking_lead(scene: Scene, decel_mps2: float, horizon_s: float = 6.0) -> OtherMotion:
    t = np.arange(0, horizon_s, STEP_S)[:, None]
    v = np.maximum(scene.ego_speed_mps - decel_mps2 * t, 0.0)
    x = scene.start_xy_m[0] + np.cumsum(v, axis=0) * STEP_S - v * STEP_S
    zero = np.zeros_like(v)
    return OtherMotion(x, zero, v, zero, np.where(v > 0, decel_mps2, 0.0))


def drive(scene: Scene, other: OtherMotion, reaction_s: float, brake_mps2: float):
    drivers = Drivers(np.array([reaction_s]), np.array([brake_mps2]), np.zeros(1))
    ego = simulate(scene, drivers, other)
    return ego, judge(scene, ego, other)


def settings(**changes) -> WorldSettings:
    values = {
        "seed": 5,
        "duration_s": 4.0,
        "event_anywhere": False,
        "fps": 30,
        "width": 112,
        "height": 56,
        "scenarios": SCENARIOS,
        "conditions": CONDITIONS,
    }
    return WorldSettings(**(values | changes))


@pytest.fixture(scope="module")
def families() -> list[Family]:
    return [draw_family(settings(), 0, index) for index in range(15)]


def test_the_shortest_videos_hold_their_events():
    for index in range(31):
        family = draw_family(settings(duration_s=2.0, seed=2), 0, index)
        assert all(family.window.start_s < sibling.event_s < family.window.end_s for sibling in family.siblings), index


def test_driver_who_never_reacts_hits_a_braking_lead():
    scene = lead_scene(gap_m=10.0)
    ego, outcome = drive(scene, braking_lead(scene, 8.0), reaction_s=20.0, brake_mps2=8.0)
    assert outcome.label[0] == "collision"
    # Without braking the gap of 10 m closes when 8 t^2 / 2 = 10 m.
    assert outcome.event_s[0] == pytest.approx(np.sqrt(2 * 10.0 / 8.0), abs=2 * STEP_S)
    assert ego.acceleration_mps2.min() == 0.0


def test_attentive_driver_with_room_stays_normal():
    scene = lead_scene(gap_m=30.0)
    _, outcome = drive(scene, braking_lead(scene, 2.5), reaction_s=0.4, brake_mps2=8.0)
    assert outcome.label[0] == "normal"
    assert outcome.peak_decel_mps2[0] < 4.0


def test_late_hard_braking_that_just_suffices_is_a_near_collision():
    scene = lead_scene(gap_m=12.0)
    labels = []
    for reaction_s in np.arange(0.3, 2.0, 0.05):
        _, outcome = drive(scene, braking_lead(scene, 7.0), float(reaction_s), 9.0)
        labels.append(str(outcome.label[0]))
    assert "near_collision" in labels
    assert labels.index("near_collision") < labels.index("collision")


def test_reaction_time_delays_braking_by_exactly_itself():
    scene = lead_scene(gap_m=20.0)
    onset = []
    for reaction_s in (0.4, 1.2):
        ego, _ = drive(scene, braking_lead(scene, 6.0), reaction_s, 8.0)
        onset.append(np.flatnonzero(ego.acceleration_mps2[:, 0] < -0.1)[0] * STEP_S)
    assert onset[1] - onset[0] == pytest.approx(0.8, abs=2 * STEP_S)


def test_braking_respects_limit_and_jerk():
    scene = lead_scene(gap_m=8.0)
    ego, _ = drive(scene, braking_lead(scene, 8.0), 0.3, 6.5)
    assert -6.5 - 1e-9 <= ego.acceleration_mps2.min() < -6.0
    assert np.abs(np.diff(ego.acceleration_mps2[:-1, 0]))[ego.speed_mps[1:-1, 0] > 0.2].max() <= 25.0 * STEP_S + 1e-9


def test_result_of_a_candidate_does_not_depend_on_its_batch():
    scene = lead_scene(gap_m=12.0)
    other = braking_lead(scene, 7.0)
    wide = OtherMotion(*(np.repeat(a, 7, axis=1) for a in vars(other).values()))
    reactions = np.linspace(0.3, 1.5, 7)
    many = simulate(scene, Drivers(reactions, np.full(7, 8.0), np.zeros(7)), wide)
    one = simulate(scene, Drivers(reactions[3:4], np.full(1, 8.0), np.zeros(1)), other)
    np.testing.assert_array_equal(many.x_m[:, 3], one.x_m[:, 0])


def test_time_to_conflict_needs_paths_that_meet():
    arrays = (np.array([20.0]), np.array([10.0]))
    straight = time_to_conflict(*arrays, np.array([0.0]), np.array([0.0]), 1.8, 8.8)
    beside = time_to_conflict(*arrays, np.array([3.5]), np.array([0.0]), 1.8, 8.8)
    drifting = time_to_conflict(*arrays, np.array([3.5]), np.array([-1.0]), 1.8, 8.8)
    assert straight[0] == pytest.approx(2.0)
    assert np.isinf(beside[0])
    assert drifting[0] == pytest.approx(2.0)


def test_required_deceleration_is_kinematic():
    need = required_deceleration(np.array([11.5]), np.array([10.0]), np.array([0.0]))
    assert need[0] == pytest.approx(10.0**2 / (2 * 10.0))


def test_every_family_has_each_class_once_in_varied_order(families):
    assert all(sorted(s.label for s in family.siblings) == sorted(CLASSES) for family in families)
    assert len({tuple(s.label for s in family.siblings) for family in families}) > 2


def test_siblings_are_identical_until_the_onset(families):
    for family in families:
        before = family.siblings[0].play.time_s <= 0
        assert before.any()
        for name in ("ego_x_m", "ego_y_m", "ego_speed_mps", "other_x_m", "other_y_m"):
            reference = getattr(family.siblings[0].play, name)[before]
            for sibling in family.siblings[1:]:
                np.testing.assert_array_equal(getattr(sibling.play, name)[before], reference)


def test_event_lies_inside_the_window_with_a_tail(families):
    tails = [family.window.end_s - s.event_s for family in families for s in family.siblings]
    assert min(tails) >= 0.35 - 1e-6
    assert np.std([s.event_s - f.window.start_s for f in families for s in f.siblings]) > 0.15


def test_contact_gives_a_short_deceleration_pulse_and_pushes_the_other(families):
    for family in families:
        if family.scene.other.name == "pedestrian":
            continue
        hit = next(s for s in family.siblings if s.label == "collision")
        k = int(np.searchsorted(hit.play.time_s, hit.event_s))
        lost = hit.play.ego_speed_mps[k] - hit.play.ego_speed_mps[min(k + 30, len(hit.play.time_s) - 1)]
        assert lost > 1.0
        assert hit.play.ego_accel_mps2[k : k + 30].min() < -9.0
        pushed = np.diff(hit.play.other_x_m[[k + 20, k + 30]])[0] - np.diff(hit.play.other_x_m[[k - 11, k - 1]])[0]
        assert pushed > 0


def test_jolt_alone_does_not_mean_collision():
    rates: Counter[str] = Counter()
    strong: Counter[str] = Counter()
    for index in range(40):
        for sibling in draw_family(settings(seed=9), 0, index).siblings:
            rates[sibling.label] += len(sibling.jolts)
            strong[sibling.label] += sum(abs(np.degrees(j.pitch_rad)) > 2 for j in sibling.jolts)
    assert set(strong) == set(CLASSES)
    assert min(strong.values()) > 8
    # 40 scenes with two draws at 0.45 each: 36 expected, standard deviation 4.4.
    assert all(36 - 18 < count < 36 + 18 for count in rates.values())


def test_longer_video_shows_the_same_event_with_more_lead_in():
    short, long = draw_family(settings(), 2, 3), draw_family(settings(duration_s=6.0), 2, 3)
    assert long.window.end_s == short.window.end_s
    assert long.window.end_s - long.window.start_s == pytest.approx(6.0)
    assert [s.event_s for s in long.siblings] == [s.event_s for s in short.siblings]
    for a, b in zip(short.siblings, long.siblings, strict=True):
        np.testing.assert_allclose(b.play.ego_x_m[2 * RATE_HZ :], a.play.ego_x_m, atol=1e-9)


def test_long_videos_spread_their_event():
    found = [draw_family(settings(duration_s=40.0, event_anywhere=True), 0, i) for i in range(6)]
    at = [f.siblings[0].event_s - f.window.start_s for f in found]
    assert max(at) - min(at) > 8.0
    assert all(0 < t < 40 for t in at)
