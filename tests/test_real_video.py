"""Real dashcam clips and the public Nexar layout, from a folder to a prediction, by the commands a user types."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from running import run
from video_files import write_video

from autodrive.schema import Clip, Prediction, SetAside, read_jsonl

SPLITS = {
    "collision/ccd_crash_000431.mp4": "train",
    "collision/ccd_crash_000838.mp4": "test",
    "collision/observed_intersection_crash.mp4": "test",
    "normal/ccd_normal_000002.mp4": "train",
    "normal/udacity_solidWhiteRight.mp4": "val",
    "normal/cosmos_reason1_sample.mp4": "test",
}
SMALL = ["labels=event2", "experiment=smoke", "logger=csv", "num_steps=3", "batch_size=2", "evaluation.num_strips=1"]


@pytest.fixture(scope="module")
def folder(real_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real clips with a labels.csv written from the hand-made labels that came with them."""
    root = tmp_path_factory.mktemp("real clips=6")
    with (real_videos.parent / "labels.csv").open(newline="") as lines:
        known = {row["file"].removeprefix("video/"): row for row in csv.DictReader(lines)}
    with (root / "labels.csv").open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["file", "label", "event_time_s", "split", "ego_involved"])
        for name, split in SPLITS.items():
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).symlink_to(real_videos / name)
            row = known[name]
            ego = row["ego_involved"] if row["event_class"] == "collision" else ""
            writer.writerow([name, row["event_class"], row["t_event_s"], split, ego])
    return root


@pytest.fixture(scope="module")
def prepared(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared")
    assert run("prepare", "dataset=video_folder", f'source="{folder}"', f"out={out}", "duration_s=2") == 0
    return out


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real") / "run"
    assert run("train", f"clips={prepared / 'clips.jsonl'}", *SMALL, "fps=4", f"hydra.run.dir={out}") == 0
    return out


def test_windows_are_labelled_by_the_event_they_hold(prepared: Path):
    clips = read_jsonl(prepared / "clips.jsonl", Clip)
    assert {clip.id.rpartition("#")[0] for clip in clips} == {name for name in SPLITS if "intersection" not in name}
    for clip in clips:
        holds = clip.event_time_s is not None and clip.start_s <= clip.event_time_s < clip.end_s
        assert clip.label == ("collision" if holds else "normal"), clip.id
        assert clip.split == SPLITS[clip.id.rpartition("#")[0]]
    assert Counter(clip.label for clip in clips)["collision"] >= 2
    rates = {clip.id.split("#")[0]: clip.road.native_fps for clip in clips}
    assert rates["normal/cosmos_reason1_sample.mp4"] == pytest.approx(4, abs=0.1)
    assert rates["collision/ccd_crash_000431.mp4"] == pytest.approx(10, abs=0.1)
    assert rates["normal/udacity_solidWhiteRight.mp4"] == pytest.approx(25, abs=0.1)


def test_a_collision_of_others_is_set_aside(prepared: Path):
    (aside,) = read_jsonl(prepared / "quarantine.jsonl", SetAside)
    assert aside.item == "collision/observed_intersection_crash.mp4"
    assert aside.reason == "ego_not_involved"


def test_training_and_evaluation_on_real_clips(trained: Path, prepared: Path):
    found = read_jsonl(trained / "predictions.jsonl", Prediction)
    tested = {clip.id for clip in read_jsonl(prepared / "clips.jsonl", Clip) if clip.split == "test"}
    assert {p.clip_id for p in found if p.task == "mcq"} == tested
    assert any(clip.startswith("normal/cosmos") for clip in tested)
    assert {p.answer for p in found if p.task == "mcq"} == {"normal", "event"}
    assert read_jsonl(trained / "dropped.jsonl", SetAside) == []
    assert (trained / "report.html").stat().st_size > 10_000


def test_a_trained_student_is_evaluated_at_another_rate(trained: Path, prepared: Path, tmp_path: Path):
    """At 10 fps the clip with 4 frames per second is set aside, never resampled."""
    assert run("eval", f"ckpt={trained}", "fps=10", f"hydra.run.dir={tmp_path}") == 0
    dropped = read_jsonl(tmp_path / "dropped.jsonl", SetAside)
    slow = {clip.id for clip in read_jsonl(prepared / "clips.jsonl", Clip) if "cosmos" in clip.id}
    assert {item.item for item in dropped} == slow
    assert {item.reason for item in dropped} == {"frame_rate_too_high"}
    answered = {p.clip_id for p in read_jsonl(tmp_path / "predictions.jsonl", Prediction)}
    assert answered
    assert not answered & slow


@pytest.mark.parametrize("name", ["collision/observed_intersection_crash.mp4", "normal/udacity_solidWhiteRight.mp4"])
def test_a_timeline_over_a_real_video(name: str, trained: Path, real_videos: Path, tmp_path: Path):
    arguments = [f"video={real_videos / name}", f"ckpt={trained}", f"out={tmp_path}", "stride_s=1"]
    assert run("predict", *arguments) == 0
    record = json.loads((tmp_path / "timeline.json").read_text())
    assert (tmp_path / "timeline.png").stat().st_size > 20_000
    assert 0 <= record["best_window"]["start_s"] < record["best_window"]["end_s"] <= record["duration_s"] + 1e-6
    for window in record["windows"]:
        assert sum(window["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_a_folder_without_labels_serves_prediction_only(
    real_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = tmp_path / "videos"
    root.mkdir()
    (root / "a.mp4").symlink_to(real_videos / "normal" / "ccd_normal_000002.mp4")
    folders = [f"source={root}", f"paths.data_dir={tmp_path}", f"hydra.run.dir={tmp_path / 'run'}"]
    assert run("train", "dataset=video_folder", "labels=event2", "fps=4", *folders) == 2
    assert "no_label" in capsys.readouterr().err


@pytest.fixture(scope="module")
def nexar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The public layout with six metadata.csv files; test videos end before their event."""
    root = tmp_path_factory.mktemp("nexar")
    columns = ["file_name", "time_of_event", "time_of_alert", "light_conditions", "weather", "scene"]
    number = 0
    for split, count in (("train", 6), ("test-public", 1), ("test-private", 1)):
        for side in ("positive", "negative"):
            rows = []
            for _ in range(count):
                number += 1
                duration_s = 4 if split == "train" else 2
                event_s = {"train": 2.1, "test-public": 2.5, "test-private": 3.0}[split]
                times = [str(event_s), str(event_s - 1)] if side == "positive" else ["", ""]
                rows.append([f"{number:05d}.mp4", *times, "Normal", "Clear", "Urban"])
                path = root / split / side / f"{number:05d}.mp4"
                write_video(path, num_frames=round(9.7 * duration_s), fps=9.7, size=(56, 112))
            with (root / split / side / "metadata.csv").open("w", newline="") as lines:
                csv.writer(lines).writerows([columns, *rows])
    return root


def test_a_nexar_folder_is_prepared_and_trained_on(nexar: Path, tmp_path: Path):
    prepared, out = tmp_path / "prepared", tmp_path / "run"
    assert run("prepare", "dataset=nexar", f"source={nexar}", f"out={prepared}", "duration_s=2") == 0
    aside = Counter(item.reason for item in read_jsonl(prepared / "quarantine.jsonl", SetAside))
    assert aside == {"event_after_end": 2}
    assert run("train", f"clips={prepared / 'clips.jsonl'}", *SMALL, "fps=5", f"hydra.run.dir={out}") == 0
    facts = json.loads((out / "provenance.json").read_text())
    assert set(facts["clips_by_split_and_class"]["train"]) == {"normal", "event"}
    assert facts["clips_by_split_and_class"]["test"] == {"normal": 2}


def test_train_prepares_a_source_itself_and_notices_changes(nexar: Path, tmp_path: Path):
    """`dataset=nexar source=…` without a manifest; what changed in the folder since is seen by the next run."""
    source = tmp_path / "nexar"
    source.symlink_to(nexar)
    arguments = ["dataset=nexar", f"source={source}", f"paths.data_dir={tmp_path / 'data'}", "fps=5", "duration_s=2"]
    small = ["labels=event2", "logger=csv", "num_steps=1", "batch_size=2", "num_workers=0", "evaluation.num_strips=0"]
    first, second = tmp_path / "first", tmp_path / "second"
    assert run("train", *arguments, *small, f"hydra.run.dir={first}") == 0
    table = nexar / "train" / "negative" / "metadata.csv"
    before = table.read_text()
    table.write_text("".join(before.splitlines(keepends=True)[:-1]))
    try:
        assert run("train", *arguments, *small, f"hydra.run.dir={second}") == 0
    finally:
        table.write_text(before)
    counts = [
        sum(
            json.loads((run_dir / "provenance.json").read_text())["clips_by_split_and_class"][split].get("normal", 0)
            for split in ("train", "val")
        )
        for run_dir in (first, second)
    ]
    assert counts[1] < counts[0]
