import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import run
from video_files import write_video

from autodrive.inference.timeline import window_clips
from autodrive.video.preflight import scan


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 6 s whose name needs quoting."""
    return write_video(tmp_path_factory.mktemp("drives") / "my drive=1.mp4", num_frames=60, fps=10, size=(56, 112))


@pytest.fixture(scope="module")
def predicted(smoke_run: Path, drive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("timeline")
    assert run("predict", f'video="{drive}"', f"ckpt={smoke_run}", f"out={out}", "stride_s=0.8") == 0
    return out


def test_timeline_json(predicted: Path, drive: Path, smoke_run: Path):
    record = json.loads((predicted / "timeline.json").read_text())
    windows = record["windows"]
    assert windows[0]["start_s"] == 0
    assert windows[-1]["end_s"] == pytest.approx(6.0, abs=0.02)
    assert [w["end_s"] - w["start_s"] for w in windows] == pytest.approx([2.0] * len(windows))
    assert len(windows) == 6  # starts at 0, 0.8, 1.6, 2.4, 3.2 and, flush with the end, 4
    for window in windows:
        assert list(window["probabilities"]) == ["normal", "near_collision", "collision"]
        assert sum(window["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    incident = [1 - w["probabilities"]["normal"] for w in windows]
    assert record["best_window"] == windows[int(np.argmax(incident))]
    assert (record["video"], record["ckpt"]) == (str(drive), str(smoke_run))
    assert (record["fps"], record["native_fps"]) == (5, pytest.approx(10))


def test_timeline_picture(predicted: Path):
    with Image.open(predicted / "timeline.png") as picture:
        assert picture.size[0] > 800
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50
    assert sorted(path.name for path in predicted.iterdir()) == ["timeline.json", "timeline.png"]


def test_a_question_of_ones_own_is_asked_about_the_window_shown(
    smoke_run: Path, drive: Path, predicted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = [f'video="{drive}"', f"ckpt={smoke_run}", f"out={tmp_path}", "stride_s=0.8", "logger=none"]
    assert run("predict", *arguments, "question=Who could have avoided it?") == 0
    said = " ".join(capsys.readouterr().out.split())
    record = json.loads((tmp_path / "timeline.json").read_text())
    asked = record.pop("question")
    assert {name: asked[name] for name in ("task", "mode", "question")} == {
        "task": "vqa",
        "mode": "direct",
        "question": "Who could have avoided it?",
    }
    assert f"about it: Who could have avoided it? {asked['reply']}".strip() in said
    assert "the run was taught no such questions" in said.replace("this run", "the run")
    assert record == json.loads((predicted / "timeline.json").read_text())  # asking changes nothing else


@pytest.mark.parametrize(
    ("task", "said"),
    [("mcq", "its answers are chosen from options; choose from caption, vqa"), ("poem", "the run knows no such task")],
)
def test_a_question_of_ones_own_needs_a_task_with_free_answers(
    task: str, said: str, smoke_run: Path, drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = [f'video="{drive}"', f"ckpt={smoke_run}", f"out={tmp_path}", "logger=none"]
    assert run("predict", *arguments, "question=Who?", f"ask_as={task}") == 2
    assert f"ask_as={task}: {said}" in capsys.readouterr().err


def test_a_frame_rate_above_the_video_s_can_be_lowered(
    smoke_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    video = write_video(tmp_path / "slow.mp4", num_frames=12, fps=4, size=(56, 112))
    arguments = [f"video={video}", f"ckpt={smoke_run}", f"out={tmp_path / 'out'}"]
    assert run("predict", *arguments) == 2
    assert "the highest usable value is fps=4.2" in capsys.readouterr().err
    assert run("predict", *arguments, "fps=4") == 0
    assert json.loads((tmp_path / "out" / "timeline.json").read_text())["fps"] == 4


def test_a_video_shorter_than_a_window_is_one_window(drive: Path):
    clips = window_clips(drive, scan(drive), window_s=60.0, stride_s=0.5)
    assert [(clip.start_s, clip.end_s) for clip in clips] == [(0.0, pytest.approx(6.0))]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["video=nowhere.mp4"], "video=nowhere.mp4: missing"),
        (["video={broken}"], "not_a_video"),
        ([], "video= is missing"),
    ],
)
def test_unusable_videos_end_in_one_line(
    arguments: list[str], said: str, smoke_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    broken = tmp_path / "broken.mp4"
    broken.write_text("not a video")
    filled = [argument.format(broken=broken) for argument in arguments]
    assert run("predict", *filled, f"ckpt={smoke_run}", f"out={tmp_path / 'out'}") == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error
    assert not (tmp_path / "out").exists()
