"""The adapter: renders what is missing, resumes, is deterministic and refuses bad settings."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from autodrive.datasets.synthetic import SyntheticDataset
from autodrive.errors import InputError


def dataset(root: Path, **changes) -> SyntheticDataset:
    values: dict[str, Any] = {"num_train_scenes": 2, "num_val_scenes": 1, "num_test_scenes": 1, "num_workers": 1}
    return SyntheticDataset(root=str(root), **(values | changes))


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> SyntheticDataset:
    data = dataset(tmp_path_factory.mktemp("world"))
    data.videos()
    return data


def test_every_scene_gives_one_video_of_each_class_in_one_split(rendered):
    videos, set_aside = rendered.videos()
    assert set_aside == []
    assert Counter((v.split, v.label) for v in videos) == {
        (split, label): count
        for split, count in (("train", 2), ("val", 1), ("test", 1))
        for label in ("normal", "near_collision", "collision")
    }
    splits = {v.source_video_id: set() for v in videos}
    for video in videos:
        splits[video.source_video_id].add(video.split)
        assert Path(video.road.path).is_file()
        assert Path(str(video.sensors)).is_file()
        assert Path(str(video.truth)).is_file()
    assert all(len(s) == 1 for s in splits.values())
    assert len({v.id for v in videos}) == len(videos) == 12


def test_files_do_not_depend_on_the_number_of_workers(rendered, tmp_path):
    parallel = dataset(tmp_path, num_workers=2)
    parallel.videos()
    assert digest(parallel.folder) == digest(rendered.folder)


def test_interrupted_rendering_goes_on_without_redoing(rendered, tmp_path):
    data = dataset(tmp_path, num_val_scenes=0, num_test_scenes=0)
    data.videos()
    kept, lost = (data.folder / "scenes" / f"train_0000{i}.json" for i in (0, 1))
    lost.unlink()
    (data.folder / "videos" / "train_000003.mp4").write_bytes(b"half a file")
    before = kept.stat().st_mtime_ns, (data.folder / "videos" / "train_000000.mp4").stat().st_mtime_ns
    videos, _ = data.videos()
    assert len(videos) == 6
    assert before == (kept.stat().st_mtime_ns, (data.folder / "videos" / "train_000000.mp4").stat().st_mtime_ns)
    same = {k: v for k, v in digest(rendered.folder).items() if "train" in k}
    assert {k: v for k, v in digest(data.folder).items() if "train" in k} == same


def test_more_scenes_keep_the_folder_and_other_settings_change_it(tmp_path):
    base = dataset(tmp_path)
    assert dataset(tmp_path, num_train_scenes=9).folder == base.folder
    for change in (
        {"seed": 1},
        {"duration_s": 6.0},
        {"width": 224},
        {"conditions": ["day"]},
        {"video_duration_s": 40.0},
    ):
        assert dataset(tmp_path, **change).folder != base.folder


def test_other_seed_gives_other_videos(rendered, tmp_path):
    other = dataset(tmp_path, seed=1, num_train_scenes=1, num_val_scenes=0, num_test_scenes=0)
    other.videos()
    name = "videos/train_000000.mp4"
    assert (other.folder / name).read_bytes() != (rendered.folder / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scenarios": ["lead_break"]}, "lead_break"),
        ({"conditions": []}, "conditions"),
        ({"width": 111}, "111x56"),
        ({"num_val_scenes": -1}, "num_val_scenes"),
        ({"duration_s": 0.0}, "duration_s"),
    ],
)
def test_bad_settings_are_named_in_one_line(tmp_path, change, words):
    with pytest.raises(InputError, match=words) as caught:
        dataset(tmp_path, **change).videos()
    assert "\n" not in str(caught.value)


def test_root_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"dataset\.root"):
        dataset(tmp_path / "file").videos()
