"""The world's outcomes come from its physics: contact, evasion, neither; and siblings part only after the onset."""

from dataclasses import replace

import numpy as np
import pytest

from autodrive.world.driver import Drivers, predict_meeting, required_deceleration
from autodrive.world.motion import RATE_HZ
from autodrive.world.physics import FRONT, LEFT, REAR, RIGHT, STEP_S, judge, simulate
from autodrive.world.scenario import EGO, ROAD_USERS, OtherMotion, Scene
from autodrive.world.settings import CLASSES, CONDITIONS, SCENARIOS, WorldSettings
from autodrive.world.siblings import ROLLING_MPS, TAIL_S, WHEELBASE_M, Family, draw_family


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
        look_seed=1,
    )


def braking_lead(scene: Scene, decel_mps2: float, horizon_s: float = 6.0) -> OtherMotion:
    t = np.arange(0, horizon_s, STEP_S)[:, None]
    v = np.maximum(scene.ego_speed_mps - decel_mps2 * t, 0.0)
    x = scene.start_xy_m[0] + np.cumsum(v, axis=0) * STEP_S - v * STEP_S
    zero = np.zeros_like(v)
    return OtherMotion(x, zero, v, zero, np.where(v > 0, decel_mps2, 0.0))


def drive(scene: Scene, other: OtherMotion, reaction_s: float, brake_mps2: float):
    ego = simulate(scene, calm_drivers(np.array([reaction_s]), brake_mps2), other)
    return ego, judge(scene, ego, other, np.array([-1]), np.zeros(1))


def calm_drivers(reaction_s: np.ndarray, brake_mps2: float, **changes) -> Drivers:
    """Drivers who brake as they must and keep their line."""
    num = len(reaction_s)
    drivers = Drivers(
        reaction_s=reaction_s,
        brake_limit_mps2=np.full(num, brake_mps2),
        margin_m=np.full(num, 1.5),
        startle_s=np.full(num, np.inf),
        startle_speed_mps=np.zeros(num),
        swerve_m=np.zeros(num),
        swerve_lasts_s=np.ones(num),
        swerve_early_s=np.full(num, np.inf),
        return_share=np.zeros(num),
    )
    return replace(drivers, **changes)


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
        "sensors": "clean",
    }
    return WorldSettings(**(values | changes))


@pytest.fixture(scope="module")
def families() -> list[Family]:
    return [draw_family(settings(), 0, index) for index in range(15)]


@pytest.fixture(scope="module")
def many_families() -> list[Family]:
    return [draw_family(settings(seed=9), 0, index) for index in range(120)]


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
    many = simulate(scene, calm_drivers(reactions, 8.0), wide)
    one = simulate(scene, calm_drivers(reactions[3:4], 8.0), other)
    np.testing.assert_array_equal(many.x_m[:, 3], one.x_m[:, 0])


def test_meeting_is_predicted_from_velocities():
    arrays = (np.array([20.0]), np.array([10.0]))
    for offset_m, lateral_mps, miss_m in ((0.0, 0.0, -1.8), (3.5, 0.0, 1.7), (3.5, -1.0, -1.18), (3.5, -1.5, -1.8)):
        meet_s, missed = predict_meeting(*arrays, np.array([offset_m]), np.array([lateral_mps]), 1.8, 8.8)
        assert meet_s[0] == pytest.approx(2.0)
        assert missed[0] == pytest.approx(miss_m)
    apart, _ = predict_meeting(np.array([20.0]), np.array([-1.0]), np.zeros(1), np.zeros(1), 1.8, 8.8)
    assert np.isinf(apart[0])


def test_required_deceleration_is_kinematic():
    need = required_deceleration(np.array([11.5]), np.array([10.0]), np.array([0.0]), margin_m=1.5)
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


def test_event_lies_inside_the_window_with_a_tail(many_families):
    tails = np.array([f.window.end_s - s.event_s for f in many_families for s in f.siblings])
    assert tails.min() >= TAIL_S[0] - 1e-6
    assert tails.min() < 0.4
    assert tails.max() > 2.5
    assert min(s.event_s - f.window.start_s for f in many_families for s in f.siblings) > 0.5


def test_every_side_of_the_ego_is_struck_and_pushed_away_from_the_blow(many_families):
    pushes: dict[str, list[float]] = {FRONT: [], REAR: [], LEFT: [], RIGHT: []}
    for family in many_families:
        for hit in (s for s in family.siblings if s.contact is not None):
            assert hit.label == "collision"
            k = int(np.searchsorted(hit.play.time_s, hit.event_s))
            along = hit.play.ego_speed_mps[k + 15] - hit.play.ego_speed_mps[k - 1]
            across = (np.diff(hit.play.ego_y_m[[k + 10, k + 15]]) - np.diff(hit.play.ego_y_m[[k - 6, k - 1]]))[0] / 0.05
            pushes[hit.contact.side].append(along if hit.contact.side in (FRONT, REAR) else across)
    assert all(len(values) >= 3 for values in pushes.values()), pushes
    assert max(pushes[FRONT]) < 0
    assert min(pushes[REAR]) > 0
    assert np.mean(np.array(pushes[LEFT]) < 0) > 0.9
    assert np.mean(np.array(pushes[RIGHT]) > 0) > 0.9


def test_momentum_is_kept_along_a_frontal_contact(many_families):
    """What one loses the other gains, but for what tyres take of either during the pulse."""
    losses, gains = [], []
    for family in many_families:
        hit = next(s for s in family.siblings if s.label == "collision")
        other, motion = family.scene.other, hit.play
        if hit.contact is None or hit.contact.side != FRONT or family.scene.scenario not in ("lead_brake", "cut_in"):
            continue
        k = int(np.searchsorted(motion.time_s, hit.event_s))
        ego_mps, other_mps = (np.gradient(x, 1 / RATE_HZ) for x in (motion.ego_x_m, motion.other_x_m))
        # A pulse lasts 0.16 s at most; until then the other is held at the ego's bumper.
        losses.append(EGO.mass_kg * (ego_mps[k - 2] - ego_mps[k + 18]))
        gains.append(other.mass_kg * (other_mps[k + 18] - other_mps[k - 2]))
    assert len(gains) >= 4
    assert min(gains) > 0
    np.testing.assert_allclose(np.array(gains), losses, rtol=0.35, atol=1500)


def test_nuisances_are_found_in_every_class(many_families):
    """Hard braking, close passes, jolts: none of them is the mark of a class."""
    of_class = {label: [s for f in many_families for s in f.siblings if s.label == label] for label in CLASSES}
    for label, siblings in of_class.items():
        hard = np.mean([s.facts["peak_decel_mps2"] > 5 for s in siblings])
        assert 0.2 < hard < 0.9, label
        assert np.mean([s.facts["peak_decel_mps2"] < 4 for s in siblings]) > 0.1, label
        assert np.mean([s.facts["min_gap_m"] < 2.0 for s in siblings]) > 0.3, label
        assert 0.3 < np.mean([len(s.jolts) > 0 for s in siblings]) < 0.9, label
        assert any(abs(np.degrees(j.pitch_rad)) > 2 for s in siblings for j in s.jolts), label


def test_siblings_end_alike(many_families):
    """The other is in view at the end about as often, and the ego about as fast, whatever happened before."""
    seen, speed = {}, {}
    for label in CLASSES:
        plays = [s.play for f in many_families for s in f.siblings if s.label == label]
        offsets = [(p.other_x_m[-1] - p.ego_x_m[-1], abs(p.other_y_m[-1] - p.ego_y_m[-1])) for p in plays]
        seen[label] = np.mean([ahead > 2 and aside < 0.75 * ahead for ahead, aside in offsets])
        speed[label] = np.mean([p.ego_speed_mps[-1] for p in plays])
    assert max(seen.values()) - min(seen.values()) < 0.4, seen
    assert max(speed.values()) - min(speed.values()) < 4.5, speed


def test_a_pothole_strikes_both_axles_and_no_car_at_rest(many_families):
    for sibling in (s for f in many_families for s in f.siblings):
        for front, rear in zip(sibling.jolts[::2], sibling.jolts[1::2], strict=True):
            k = min(np.searchsorted(sibling.play.time_s, front.time_s), len(sibling.play.time_s) - 1)
            assert rear.time_s - front.time_s < WHEELBASE_M / ROLLING_MPS
            assert np.sign(rear.pitch_rad) == -np.sign(front.pitch_rad)
            if sibling.contact is None:
                assert sibling.play.ego_speed_mps[k] > ROLLING_MPS - 0.5


@pytest.mark.parametrize("index", [2, 14])
def test_longer_video_shows_the_same_event_with_more_lead_in(index):
    short, long = draw_family(settings(seed=4), 1, index), draw_family(settings(seed=4, duration_s=6.0), 1, index)
    assert long.window.end_s == short.window.end_s
    assert long.window.end_s - long.window.start_s == pytest.approx(6.0)
    assert [(s.event_s, s.jolts) for s in long.siblings] == [(s.event_s, s.jolts) for s in short.siblings]
    for a, b in zip(short.siblings, long.siblings, strict=True):
        np.testing.assert_allclose(b.play.ego_x_m[2 * RATE_HZ :], a.play.ego_x_m, atol=1e-9)


def test_long_videos_spread_their_event():
    found = [draw_family(settings(duration_s=40.0, event_anywhere=True), 0, i) for i in range(6)]
    at = [f.siblings[0].event_s - f.window.start_s for f in found]
    jolts_s = [j.time_s - s.event_s for f in found for s in f.siblings for j in s.jolts]
    assert min(np.abs(jolts_s)) < 0.6
    assert max(np.abs(jolts_s)) < 4.0, "potholes lie about the event, wherever it is"
    assert max(at) - min(at) > 8.0
    assert all(0 < t < 40 for t in at)
