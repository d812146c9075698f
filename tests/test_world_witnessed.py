"""Collisions of two others: they happen where the truth says, spare the ego, and are set aside unless asked for."""

from dataclasses import replace

import numpy as np
import pytest
from running import composed, prepare_settings

from autodrive.config import PrepareConfig, check_config
from autodrive.datasets.preparing import prepare
from autodrive.datasets.synthetic import SyntheticDataset
from autodrive.world.film import film_scene
from autodrive.world.physics import STEP_S
from autodrive.world.scenario import EGO, ROAD_USERS
from autodrive.world.settings import CONDITIONS, SCENARIOS, WorldSettings
from autodrive.world.witnessed import KINDS, PULSE_S, draw_witnessed

SETTINGS = WorldSettings(3, 3.0, False, 10, 64, 32, SCENARIOS, CONDITIONS, "clean", witnessed_every=1)


@pytest.fixture(scope="module")
def families():
    return [draw_witnessed(SETTINGS, 0, index) for index in range(12)]


def test_every_kind_is_drawn(families):
    assert {family.scene.scenario for family in families} == set(KINDS)


def test_two_others_touch_at_the_event_and_not_before(families):
    for family in families:
        (sibling,), partner = family.siblings, family.partner
        first, second = sibling.play, partner.play
        apart = np.abs(first.other_x_m - second.other_x_m), np.abs(first.other_y_m - second.other_y_m)
        reach = (np.array(family.scene.footprint_m) + partner.scene.footprint_m) / 2
        touching = (apart[0] < reach[0]) & (apart[1] < reach[1])
        before = first.time_s < sibling.event_s - STEP_S
        assert not touching[before].any()
        assert touching[(first.time_s > sibling.event_s) & (first.time_s < sibling.event_s + 0.06)].any()


def test_the_blow_keeps_momentum_along_the_way_of_who_strikes(families):
    for family in families:
        sibling, partner = family.siblings[0], family.partner
        pair = ((family.scene.other, sibling.play), (partner.scene.other, partner.play))
        momentum, speeds = np.zeros(len(sibling.play.time_s)), []
        for user, play in pair:
            speed_mps = np.gradient(play.other_x_m, play.time_s)
            speeds.append(speed_mps)
            momentum = momentum + user.mass_kg * speed_mps
        # The rest is what their own brakes take meanwhile.
        k = np.searchsorted(sibling.play.time_s, sibling.event_s + np.array([-STEP_S, PULSE_S]))
        lost = abs(momentum[k[1]] - momentum[k[0]]) / sum(user.mass_kg for user, _ in pair)
        assert lost < (STEP_S + PULSE_S + 0.01) * 8.5
        assert max(abs(speed[k[1]] - speed[k[0]]) for speed in speeds) > 1.0


def test_the_ego_touches_nobody_and_has_the_collision_in_view(families):
    for family in families:
        sibling, partner = family.siblings[0], family.partner
        for scene, play in ((family.scene, sibling.play), (partner.scene, partner.play)):
            reach = (np.array([EGO.length_m, EGO.width_m]) + scene.footprint_m) / 2
            apart = np.abs(play.other_x_m - play.ego_x_m), np.abs(play.other_y_m - play.ego_y_m)
            assert not ((apart[0] < reach[0]) & (apart[1] < reach[1])).any()
        k = np.searchsorted(sibling.play.time_s, sibling.event_s)
        ahead = partner.place_m[0] - sibling.play.ego_x_m[k]
        assert 4 < ahead < 26
        assert abs(partner.place_m[1] - sibling.play.ego_y_m[k]) < 0.75 * ahead + ROAD_USERS["truck"].length_m / 2


def test_it_is_a_video_more_and_changes_no_sibling(tmp_path):
    for name in ("with", "without"):
        for part in ("videos", "sensors", "truth"):
            (tmp_path / name / part).mkdir(parents=True)
    *siblings, extra = film_scene(SETTINGS, "train", 2, tmp_path / "with")
    assert siblings == film_scene(replace(SETTINGS, witnessed_every=0), "train", 2, tmp_path / "without")
    assert (extra.label, extra.ego_involved, extra.event_metadata["ego_role"]) == ("collision", False, "witness")
    assert extra.source_video_id not in {video.source_video_id for video in siblings}
    assert len({(tmp_path / "with" / video.road.path).stat().st_size for video in (*siblings, extra)}) == 1


def test_none_may_be_asked_for():
    check_config(composed("prepare", ["dataset=synthetic", "dataset.witnessed_every=0"]), PrepareConfig)


def test_it_is_set_aside_and_counted_unless_asked_for(tmp_path):
    world = SyntheticDataset(
        root=str(tmp_path / "world"),
        num_train_scenes=2,
        num_val_scenes=0,
        num_test_scenes=0,
        duration_s=3.0,
        native_fps=5,
        width=32,
        height=16,
        num_workers=1,
        witnessed_every=2,
    )
    report = prepare(world, tmp_path / "out", prepare_settings(3.0))
    assert report.set_aside == {"ego_not_involved": 1}
    assert report.clips["train"] == {"normal": 2, "near_collision": 2, "collision": 2}
    kept = prepare(world, tmp_path / "kept", prepare_settings(3.0, keep_witnessed=True))
    assert (kept.set_aside, kept.clips["train"]["collision"]) == ({}, 3)
