"""Forty-second videos with one event each: the chunker on what it was made for."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from autodrive.datasets.manifest import load_clips
from autodrive.datasets.synthetic import SyntheticDataset
from autodrive.prepare import prepare
from autodrive.schema import Clip


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    root = tmp_path_factory.mktemp("long")
    world = SyntheticDataset(
        str(root), video_duration_s=40.0, num_train_scenes=1, num_val_scenes=0, num_test_scenes=0, num_workers=1
    )
    prepare(world, root / "out", duration_s=6.0)
    return load_clips(root / "out" / "clips.jsonl")


def test_seven_windows_cover_every_video(clips: list[Clip]):
    by_video: dict[str, list[Clip]] = {}
    for clip in clips:
        by_video.setdefault(Path(clip.road.path).stem, []).append(clip)
    assert len(by_video) == 3
    for windows in by_video.values():
        assert len(windows) == 7
        assert windows[0].start_s == 0
        assert windows[-1].end_s == pytest.approx(40, abs=0.05)
        assert all(left.end_s > right.start_s for left, right in pairwise(windows))


def test_only_windows_that_hold_the_event_take_its_label(clips: list[Clip]):
    labelled = [c for c in clips if c.label != "normal"]
    assert {c.label for c in labelled} == {"near_collision", "collision"}
    for clip in clips:
        holds = clip.event_time_s is not None and clip.start_s <= clip.event_time_s < clip.end_s
        assert holds == (clip.label != "normal")
    assert max(Counter(c.road.path for c in labelled).values()) <= 2  # windows overlap a little


def test_a_window_without_the_event_says_nothing_about_it(clips: list[Clip]):
    inside = [c for c in clips if "hazard_time_s" in c.metadata]
    outside = [c for c in clips if "hazard_time_s" not in c.metadata]
    assert len(inside) >= 3
    assert len(outside) >= 15
    for clip in inside:
        assert clip.start_s <= clip.metadata["hazard_time_s"] < clip.end_s
        assert {"blame", "impact_side", "weather", "light"} <= clip.metadata.keys()
    for clip in outside:
        assert clip.metadata.keys() == {"weather", "light"}
        assert clip.label == "normal"
