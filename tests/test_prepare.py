import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import prepare_settings, run
from video_files import write_copies, write_sound_only, write_video

from autodrive.datasets.manifest import load_clips
from autodrive.datasets.preparing import prepare
from autodrive.datasets.video_folder import VideoFolderAdapter
from autodrive.errors import InputError
from autodrive.schema import Clip, SetAside, SourceVideo, SourceView, read_jsonl
from autodrive.video.decoder import PyAVDecoder
from autodrive.video.frame_grid import FrameGrid

MODULE = [sys.executable, "-m", "autodrive.prepare"]


@pytest.fixture
def mixed(tmp_path):
    """A folder with good videos and one of each kind of trouble."""
    root = tmp_path / "set"
    write_video(root / "long.mp4", num_frames=130, fps=10)
    write_video(root / "short.mp4", num_frames=25, fps=10)
    write_video(root / "late.mp4", num_frames=40, fps=10)
    write_video(root / "untimed_short.mp4", num_frames=40, fps=10)
    write_video(root / "untimed_long.mp4", num_frames=100, fps=10)
    write_video(root / "turned.mp4", rotation=90)
    write_sound_only(root / "sound.mp4")
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_text("no pictures here")
    cut = write_video(root / "cut.mp4", num_frames=60).read_bytes()
    (root / "cut.mp4").write_bytes(cut[: len(cut) // 2])
    (root / "labels.csv").write_text(
        "file,label,event_time_s,split\n"
        "long.mp4,collision,7.0,train\nshort.mp4,normal,,val\nlate.mp4,near_collision,4.5,test\n"
        "untimed_short.mp4,collision,,test\nuntimed_long.mp4,collision,,train\n"
        "turned.mp4,normal,,\nsound.mp4,normal,,\nempty.mp4,normal,,\ntext.mp4,normal,,\ncut.mp4,normal,,\ngone.mp4,normal,,\n"
    )
    return root


REASONS = {
    "late.mp4": "event_after_end",
    "untimed_long.mp4": "event_time_unknown",
    "turned.mp4": "rotated",
    "sound.mp4": "no_video_stream",
    "empty.mp4": "zero_byte",
    "text.mp4": "not_a_video",
    "cut.mp4": "truncated",
    "gone.mp4": "missing",
}


def test_every_video_ends_as_clips_or_in_quarantine_and_the_counts_add_up(mixed, tmp_path):
    out = tmp_path / "out"
    report = prepare(VideoFolderAdapter(str(mixed)), out, prepare_settings(6.0, stride_s=5.0))
    clips = read_jsonl(out / "clips.jsonl", Clip)
    aside = read_jsonl(out / "quarantine.jsonl", SetAside)
    assert {item.item: item.reason for item in aside} == REASONS
    assert all(item.detail for item in aside)
    assert {clip.source_video_id for clip in clips} == {"long.mp4", "short.mp4", "untimed_short.mp4"}
    assert report.num_items == 11 == report.num_used + len(aside)
    assert report.num_windows == len(clips) + sum(report.windows_not_used.values())
    assert report.windows_not_used == {"event_time_unknown": 2, "event_after_end": 1}
    assert sum(sum(counts.values()) for counts in report.clips.values()) == len(clips) == report.num_clips
    assert report.clips["train"] == {"normal": 1, "collision": 2}
    assert report.clips_per_video == (1, pytest.approx(5 / 3), 3)
    saved = json.loads((out / "prepare.json").read_text())
    assert saved["set_aside"] == report.set_aside
    assert saved["settings"]["stride_s"] == 5.0


def test_windows_hold_their_event_and_never_leave_the_video(mixed, tmp_path):
    prepare(VideoFolderAdapter(str(mixed)), tmp_path / "out", prepare_settings(6.0, stride_s=5.0))
    clips = {clip.id: clip for clip in load_clips(tmp_path / "out" / "clips.jsonl")}
    long = [clips[f"long.mp4#{index}"] for index in range(3)]
    assert [(clip.start_s, clip.end_s) for clip in long] == [(0.0, 6.0), (5.0, 11.0), (7.0, 13.0)]
    assert [clip.label for clip in long] == ["normal", "collision", "collision"]
    for clip in long:
        held = clip.start_s <= 7.0 < clip.end_s
        assert (clip.label == "collision") == held
    short = clips["short.mp4#0"]
    assert (short.start_s, short.end_s, short.road.width, short.road.height) == (0.0, 2.5, 80, 48)
    assert clips["untimed_short.mp4#0"].label == "collision"


def test_videos_below_the_manifest_are_written_relative_to_it(mixed, tmp_path):
    out = mixed / "prepared"
    prepare(VideoFolderAdapter(str(mixed)), tmp_path / "elsewhere", prepare_settings(6.0))
    assert all(Path(c.road.path).is_absolute() for c in read_jsonl(tmp_path / "elsewhere" / "clips.jsonl", Clip))
    prepare(VideoFolderAdapter(str(mixed)), mixed, prepare_settings(6.0))
    assert {c.road.path for c in read_jsonl(mixed / "clips.jsonl", Clip)} == {
        "long.mp4",
        "short.mp4",
        "untimed_short.mp4",
    }
    moved = mixed.rename(tmp_path / "moved")
    assert all(Path(c.road.path).parent == moved for c in load_clips(moved / "clips.jsonl"))
    assert not out.exists()


def test_a_data_folder_can_be_moved_with_its_manifests(mixed, tmp_path):
    (tmp_path / "data").mkdir()
    videos = mixed.rename(tmp_path / "data" / "videos")
    prepare(
        VideoFolderAdapter(str(videos)), tmp_path / "data" / "out", prepare_settings(6.0), data_dir=tmp_path / "data"
    )
    moved = (tmp_path / "data").rename(tmp_path / "elsewhere")
    assert {Path(c.road.path).parent for c in load_clips(moved / "out" / "clips.jsonl")} == {moved / "videos"}


def test_a_second_run_scans_only_what_changed(mixed, tmp_path):
    adapter, out = VideoFolderAdapter(str(mixed)), tmp_path / "out"
    assert prepare(adapter, out, prepare_settings(6.0)).num_scans_reused == 0
    before = (out / "clips.jsonl").read_bytes()
    assert prepare(adapter, out, prepare_settings(6.0)).num_scans_reused == 10
    assert (out / "clips.jsonl").read_bytes() == before
    write_video(mixed / "cut.mp4", num_frames=60)
    report = prepare(adapter, out, prepare_settings(6.0))
    assert report.num_scans_reused == 9
    assert "truncated" not in report.set_aside


def test_a_file_replaced_by_one_of_the_same_size_is_scanned_again(mixed, tmp_path):
    adapter, out = VideoFolderAdapter(str(mixed)), tmp_path / "out"
    prepare(adapter, out, prepare_settings(6.0))
    os.utime(mixed / "long.mp4", (1, 1))
    assert prepare(adapter, out, prepare_settings(6.0)).num_scans_reused == 9


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    source, out = tmp_path / "set", tmp_path / "out"
    first = write_video(source / "000.mp4", num_frames=300, fps=30, size=(96, 160))
    write_copies(first, range(1, 500))
    cache = out / "scan_cache.jsonl"
    command = [*MODULE, f"source={source}", f"out={out}", "num_workers=1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (cache.is_file() and cache.read_bytes().count(b"\n") >= 20):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "clips.jsonl").exists()
    done = cache.read_bytes().count(b"\n")
    assert 20 <= done < 500
    with cache.open("ab") as file:
        file.write(b'{"path":"half a li')  # what a kill in the middle of a write leaves
    report = prepare(VideoFolderAdapter(str(source)), out, prepare_settings(6.0))
    assert report.num_scans_reused == done
    assert len({clip.id for clip in load_clips(out / "clips.jsonl")}) == report.num_clips == 1000
    assert prepare(VideoFolderAdapter(str(source)), out, prepare_settings(6.0)).num_scans_reused == 500


def test_two_runs_may_prepare_the_same_data_at_once(tmp_path):
    """As two trainings that are started together do: both succeed, every video is scanned once."""
    source, out = tmp_path / "set", tmp_path / "out"
    first = write_video(source / "000.mp4", num_frames=300, fps=30, size=(96, 160))
    write_copies(first, range(1, 200))
    command = [*MODULE, f"source={source}", f"out={out}", "num_workers=1"]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(3)]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    assert (out / "scan_cache.jsonl").read_bytes().count(b"\n") == 200
    assert len(load_clips(out / "clips.jsonl")) == 400


class TwoCameras:
    name = "two_cameras"

    def __init__(self, folder):
        self.folder = folder

    def videos(self):
        views = {
            "road": SourceView(path=str(self.folder / "road.mp4")),
            "driver": SourceView(path=str(self.folder / "driver.mp4"), offset_s=0.25),
        }
        video = SourceVideo(id="drive", dataset=self.name, source_video_id="drive", views=views, split="train")
        return [video], []


def test_both_cameras_must_be_usable(tmp_path):
    write_video(tmp_path / "road.mp4")
    (tmp_path / "driver.mp4").touch()
    with pytest.raises(InputError, match=r"no video is usable, 1 item set aside \(zero_byte 1\)"):
        prepare(TwoCameras(tmp_path), tmp_path / "out", prepare_settings(6.0))
    assert read_jsonl(tmp_path / "out" / "quarantine.jsonl", SetAside)[0].item == "drive"
    write_video(tmp_path / "driver.mp4", fps=20, size=(64, 96))
    prepare(TwoCameras(tmp_path), tmp_path / "out", prepare_settings(6.0))
    views = load_clips(tmp_path / "out" / "clips.jsonl")[0].views
    assert views["driver"].path == str(tmp_path / "driver.mp4")
    assert {name: (view.native_fps, view.width, view.offset_s) for name, view in views.items()} == {
        "road": (pytest.approx(10), 80, 0.0),
        "driver": (pytest.approx(20), 96, 0.25),
    }
    assert views["driver"].content_hash != views["road"].content_hash


def test_the_command_prints_the_counts(mixed, tmp_path):
    environment = os.environ | {"COLUMNS": "100"}
    command = [*MODULE, f"source={mixed}", f"out={tmp_path / 'out'}"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert run.returncode == 0, run.stderr
    assert "items of the source: 11 = 3 used + 8 set aside" in run.stdout
    assert "  1 truncated: cut.mp4" in run.stdout
    assert "clips per video: 1.7 (1 to 3)" in run.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"set", "out"}
    names = {"clips.jsonl", "quarantine.jsonl", "prepare.json", "scan_cache.jsonl", ".lock"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


def test_the_rendered_world_is_prepared_by_the_command_too(tmp_path):
    """With the keys of train.py: `paths.data_dir` says where the videos are rendered."""
    scenes = ["dataset.num_train_scenes=2", "dataset.num_val_scenes=1", "dataset.num_test_scenes=1"]
    folders = [f"paths.data_dir={tmp_path / 'data'}", f"out={tmp_path / 'out'}"]
    assert run("prepare", "dataset=synthetic", *scenes, "duration_s=2", "dataset.num_workers=1", *folders) == 0
    clips = load_clips(tmp_path / "out" / "clips.jsonl")
    assert len(clips) == 12
    assert all(Path(clip.road.path).is_relative_to(tmp_path / "data") for clip in clips)


def test_copies_under_other_names_count_once_or_not_at_all(tmp_path):
    root = tmp_path / "set"
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        write_video(root / name)
    for name, first in (("a2.mp4", "a.mp4"), ("a3.mp4", "a.mp4"), ("b2.mp4", "b.mp4")):
        shutil.copy(root / first, root / name)
    (root / "labels.csv").write_text(
        "file,label,event_time_s,split\na.mp4,normal,,\na2.mp4,normal,,test\na3.mp4,,,\n"
        "b.mp4,collision,1,train\nb2.mp4,normal,,test\nc.mp4,normal,,\n"
    )
    report = prepare(VideoFolderAdapter(str(root)), tmp_path / "out", prepare_settings(6.0))
    assert {clip.id: clip.split for clip in load_clips(tmp_path / "out" / "clips.jsonl")}["a2.mp4#0"] == "test"
    assert report.num_used == 2
    aside = {item.item: item for item in read_jsonl(tmp_path / "out" / "quarantine.jsonl", SetAside)}
    assert {name: item.reason for name, item in aside.items()} == {
        **dict.fromkeys(("a.mp4", "a3.mp4"), "repeated_content"),
        **dict.fromkeys(("b.mp4", "b2.mp4"), "contradicting_copies"),
    }
    assert "the same bytes as a2.mp4" in aside["a.mp4"].detail
    assert "the same bytes as b.mp4, but label is 'normal' here" in aside["b2.mp4"].detail


def test_the_command_names_what_it_sets_aside_and_labels_that_no_set_knows(tmp_path, capsys):
    for name in ("colision/a.mp4", "colision/b.mp4", "normal/c.mp4"):
        write_video(tmp_path / "set" / name)
    (tmp_path / "set" / "normal" / "notes.txt").write_text("hello")
    shutil.copy(tmp_path / "set" / "normal" / "c.mp4", tmp_path / "set" / "normal" / "d.mp4")
    assert run("prepare", f"source={tmp_path / 'set'}", f"out={tmp_path / 'out'}") == 0
    said = capsys.readouterr().out
    assert "note: label 'colision' (2 videos) is in no label set of conf/labels" in said
    assert "label 'normal'" not in said
    assert "  1 unknown_suffix: normal/notes.txt\n" in said
    assert "  1 repeated_content: normal/d.mp4\n" in said


def test_what_prepare_writes_below_its_source_is_no_item_of_it(mixed):
    adapter = VideoFolderAdapter(str(mixed))
    for _ in range(2):
        assert prepare(adapter, mixed / "prepared", prepare_settings(6.0)).num_items == 11


def test_a_normal_video_with_an_event_after_its_end_is_set_aside(tmp_path):
    write_video(tmp_path / "a.mp4", num_frames=40)
    write_video(tmp_path / "b.mp4", num_frames=40)
    (tmp_path / "labels.csv").write_text("file,label,event_time_s\na.mp4,normal,77\nb.mp4,normal,\n")
    report = prepare(VideoFolderAdapter(str(tmp_path)), tmp_path / "out", prepare_settings(6.0))
    assert report.set_aside == {"event_after_end": 1}


def test_a_file_that_was_made_readable_is_scanned_again(ordinary_user):
    locked = write_video(ordinary_user / "set" / "a.mp4")
    write_video(ordinary_user / "set" / "b.mp4")
    locked.chmod(0)
    adapter, out = VideoFolderAdapter(str(ordinary_user / "set")), ordinary_user / "out"
    assert prepare(adapter, out, prepare_settings(6.0)).set_aside == {"unreadable": 1}
    locked.chmod(0o600)
    assert prepare(adapter, out, prepare_settings(6.0)).set_aside == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["source=nowhere"], "source=nowhere"),
        ([], "source is not set"),
        (["sourc=x"], "sourc"),
        (["dataset=nexar", "source=."], "train/positive"),
        (["source=.", "stride_s=9"], "stride_s=9"),
        (["source=.", "split_fractions.train=2"], "split_fractions"),
        (["source=.", "duration_s=-1"], "duration_s"),
    ],
)
def test_wrong_settings_exit_with_2_and_one_line(tmp_path, arguments, words):
    write_video(tmp_path / "a.mp4", num_frames=100)
    run = subprocess.run([*MODULE, *arguments, "out=out"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.returncode == 2
    errors = [line for line in run.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert words in errors[0]
    assert "Traceback" not in run.stderr


def test_real_clips_from_folder_to_frames(real_videos, tmp_path):
    source = tmp_path / "real"
    shutil.copytree(real_videos, source)
    (source / "labels.csv").write_text(
        "file,label,event_time_s,split,ego_involved\n"
        "collision/ccd_crash_000431.mp4,collision,4.35,train,yes\n"
        "collision/ccd_crash_000838.mp4,collision,2.85,test,yes\n"
        "collision/observed_intersection_crash.mp4,collision,5.5,train,no\n"
        "normal/ccd_normal_000002.mp4,normal,,train,no\n"
        "normal/udacity_solidWhiteRight.mp4,normal,,test,no\n"
        "normal/cosmos_reason1_sample.mp4,normal,,val,no\n"
    )
    report = prepare(VideoFolderAdapter(str(source)), tmp_path / "out", prepare_settings(4.0))
    assert report.set_aside == {"ego_not_involved": 1}
    kept = prepare(VideoFolderAdapter(str(source)), tmp_path / "kept", prepare_settings(4.0, keep_witnessed=True))
    assert (kept.num_used, kept.set_aside) == (report.num_used + 1, {})
    for clip in load_clips(tmp_path / "out" / "clips.jsonl"):
        if clip.event_time_s is not None:
            assert (clip.label == "collision") == (clip.start_s <= clip.event_time_s < clip.end_s)
        requested = FrameGrid(4).timestamps(clip.start_s, clip.end_s, clip.road.native_fps)
        frames = PyAVDecoder().read(Path(clip.road.path), requested, (28, 56))
        assert frames.frames_TCHW.shape == (len(requested), 3, 28, 56)
        assert frames.timestamps_s[-1] < clip.end_s
