from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodrive.datasets.splits import assign_splits
from autodrive.errors import InputError
from autodrive.schema import SourceVideo, SourceView

FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}


def video(number, source, split=None):
    return SourceVideo(
        id=f"v{number}", dataset="d", source_video_id=source, views={"road": SourceView(path="x.mp4")}, split=split
    )


shares = st.tuples(st.integers(0, 10), st.integers(0, 10), st.integers(1, 10)).map(
    lambda parts: {name: part / sum(parts) for name, part in zip(("train", "val", "test"), parts, strict=True)}
)


@settings(deadline=None)
@given(
    sources=st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=60),
    given_splits=st.lists(st.sampled_from(["train", "val", "test", None]), min_size=21, max_size=21),
    fractions=shares,
    seed=st.integers(0, 1000),
)
def test_no_source_video_crosses_splits(sources, given_splits, fractions, seed):
    # Every source video has several files; the source says the split of some of them only.
    videos = [video(n, f"s{s}", given_splits[s] if said else None) for n, (s, said) in enumerate(sources)]
    splits = assign_splits(videos, fractions, seed)
    used = defaultdict(set)
    for item in videos:
        used[item.source_video_id].add(splits[item.source_video_id])
    assert all(len(found) == 1 for found in used.values())
    for item in videos:
        if item.split in ("val", "test"):
            assert splits[item.source_video_id] == item.split
        if item.split == "train":
            assert splits[item.source_video_id] in ("train", "val")
    assert all(fractions[split] > 0 or any(v.split == split for v in videos) for split in splits.values())


def test_shares_are_kept_and_seeds_differ():
    videos = [video(n, f"s{n}") for n in range(3000)]
    splits = assign_splits(videos, FRACTIONS, seed=0)
    counts = {name: sum(split == name for split in splits.values()) / 3000 for name in FRACTIONS}
    assert counts == pytest.approx(FRACTIONS, abs=0.02)
    assert splits == assign_splits(videos[::-1], FRACTIONS, seed=0)
    assert splits != assign_splits(videos, FRACTIONS, seed=1)


def test_adding_videos_moves_no_other():
    videos = [video(n, f"s{n}") for n in range(200)]
    few, many = assign_splits(videos[:100], FRACTIONS, 0), assign_splits(videos, FRACTIONS, 0)
    assert few == {name: many[name] for name in few}


def test_validation_is_taken_out_of_train_where_the_source_has_none():
    videos = [video(n, f"s{n}", "train" if n < 1000 else "test") for n in range(1200)]
    splits = assign_splits(videos, FRACTIONS, 0)
    assert {splits[f"s{n}"] for n in range(1000, 1200)} == {"test"}
    assert sum(splits[f"s{n}"] == "val" for n in range(1000)) == pytest.approx(100, abs=35)


def test_a_source_with_its_own_validation_is_left_alone():
    videos = [video(n, f"s{n}", ("train", "val", "test")[n % 3]) for n in range(300)]
    assert assign_splits(videos, FRACTIONS, 0) == {v.source_video_id: v.split for v in videos}


def test_contradictions_are_refused():
    with pytest.raises(InputError, match=r"'scene' is in test and train"):
        assign_splits([video(0, "scene", "train"), video(1, "scene", "test")], FRACTIONS, 0)


@pytest.mark.parametrize("bad", [{"train": 0.5}, {"train": 1.2, "val": -0.2}, {"training": 1.0}])
def test_wrong_fractions_are_refused(bad):
    with pytest.raises(InputError, match="split_fractions"):
        assign_splits([], bad, 0)
