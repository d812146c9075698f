"""The leak probes read from boxes what happened, and find what there is to be found."""

from dataclasses import replace
from itertools import product

import numpy as np

from autodrive.world.film import stage
from autodrive.world.settings import CONDITIONS, WorldSettings
from autodrive.world.siblings import draw_family
from experiments.leakage.ceiling import VIEW
from experiments.leakage.examples import Example, cut
from experiments.leakage.scoring import Limit, score
from experiments.leakage.telemetry import threshold_guess
from experiments.leakage.tracks import FAR_M, LENS_TO_BUMPER_M, read_tracks

SETTINGS = WorldSettings(
    seed=7,
    duration_s=4.0,
    event_anywhere=False,
    fps=30,
    width=112,
    height=56,
    scenarios=("lead_brake", "crossing_vehicle"),
    conditions=CONDITIONS,
    sensors="clean",
)


def test_boxes_tell_distance_and_closing_speed() -> None:
    errors_m, errors_mps = [], []
    families = [draw_family(SETTINGS, 0, index) for index in range(3)]
    for family, k in product(families, range(3)):
        staged = stage(SETTINGS, family, k)
        truth = {name: values[::2] for name, values in staged.truth.items() if name in (*VIEW, "object_boxes_px")}
        view_T4 = np.stack([truth[name].astype(float) for name in VIEW], axis=1)
        boxes_TO4 = truth["object_boxes_px"].astype(float)
        names = staged.truth["object_class"].tolist()
        size_px = SETTINGS.height, SETTINGS.width
        tracks = read_tracks(boxes_TO4, names, view_T4, staged.camera.lens, size_px, 1 / 15)
        actor, camera = staged.actors[0], staged.camera
        true_m = (actor.x_m - camera.x_m)[::2] - family.scene.footprint_m[0] / 2 - LENS_TO_BUMPER_M
        near = tracks.shown[:, 0] & (boxes_TO4[:, 0, 3] < SETTINGS.height) & (true_m < 20)
        near &= np.abs(actor.y_m - camera.y_m)[::2] < 4.0
        errors_m += (tracks.ahead_m[:, 0] - true_m)[near].tolist()
        errors_mps += (tracks.closing_mps[:, 0] + np.gradient(true_m, 1 / 15))[near].tolist()
        assert (tracks.gap_m[~tracks.seen] == FAR_M).all()
    assert len(errors_m) > 100
    assert abs(np.median(errors_m)) < 0.4
    assert np.quantile(np.abs(errors_m), 0.8) < 0.7
    assert np.median(np.abs(errors_mps)) < 0.8


def test_two_thresholds_find_any_order_of_the_classes() -> None:
    blank = Example("normal", "s", {}, {}, {}, {}, 4.0, 30.0, (56, 112), None)
    values, labels = np.array([5.0, 5.5, 6.0, 1.0, 1.5, 2.0, 9.0, 9.5, 10.0]), np.repeat([0, 1, 2], 3)
    examples = [replace(blank, sensors={"value": np.array([value])}) for value in values]
    guess = threshold_guess(lambda e: float(e.sensors["value"][0]), examples, labels, examples)
    assert guess.tolist() == labels.tolist()


def test_a_window_holds_its_own_frames_and_counts_from_its_start() -> None:
    arrays = {
        "frame_time_s": np.arange(10) / 2,
        "ego_speed_mps": np.arange(10.0),
        "gps_time_s": np.arange(5.0),
        "gps_speed_mps": np.arange(5.0),
    }
    kept = cut(arrays, 1.0, 3.0)
    assert kept["frame_time_s"].tolist() == [0.0, 0.5, 1.0, 1.5]
    assert kept["gps_time_s"].tolist() == [0.0, 1.0, 2.0]
    assert kept["gps_speed_mps"].tolist() == [1.0, 2.0, 3.0]


def test_a_bound_is_met_or_not() -> None:
    truth, scenes = np.array([0, 1, 2, 0]), ["a", "a", "b", "b"]
    result = score("probe", np.array([0, 1, 2, 1]), truth, scenes, Limit(most=0.6))
    assert (result.accuracy, result.met, result.limit) == (0.75, False, "<= 60%")
    assert score("probe", truth, truth, scenes, Limit(least=0.95)).met
