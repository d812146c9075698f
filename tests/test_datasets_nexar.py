import csv

import pytest
from running import prepare_settings
from video_files import write_video

from autodrive.datasets.nexar import NexarAdapter
from autodrive.datasets.preparing import prepare
from autodrive.errors import InputError
from autodrive.schema import Clip, SetAside, read_jsonl

COLUMNS = ["file_name", "time_of_event", "time_of_alert", "light_conditions", "weather", "scene", "time_to_accident"]


def write_table(folder, rows, columns=COLUMNS):
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            writer.writerow({column: row.get(column, "") for column in columns})


@pytest.fixture
def nexar(tmp_path):
    """A small copy of the published layout: 28.9 fps train videos, test videos that end before their event."""
    root = tmp_path / "nexar"
    scene = {"light_conditions": "Normal", "weather": "Cloudy", "scene": "Urban"}
    write_table(
        root / "train" / "positive",
        [
            {"file_name": "00822.mp4", "time_of_event": "7.367", "time_of_alert": "6.299", **scene},
            {"file_name": "12.mp4", "time_of_event": "2.5", "time_of_alert": "1.5", **scene, "weather": ""},
        ],
        columns=COLUMNS[:-1],
    )
    write_video(root / "train" / "positive" / "00822.mp4", num_frames=260, fps=28.9)
    write_video(root / "train" / "positive" / "00012.mp4", num_frames=145, fps=28.9)
    write_table(root / "train" / "negative", [{"file_name": "00001.mp4", **scene}])
    write_video(root / "train" / "negative" / "00001.mp4", num_frames=145, fps=28.9)
    for folder, number in (("test-public", 2000), ("test-private", 2010)):
        row = {"time_to_accident": "0.5", **scene}
        write_table(
            root / folder / "positive",
            [{"file_name": f"0{number}.mp4", "time_of_event": "3.5", "time_of_alert": "2.0", **row}],
        )
        write_table(root / folder / "negative", [{"file_name": f"0{number + 1}.mp4", **row}])
        write_video(root / folder / "positive" / f"0{number}.mp4", num_frames=90, fps=30)
        write_video(root / folder / "negative" / f"0{number + 1}.mp4", num_frames=90, fps=30)
    return root


def test_the_published_layout_is_read_whole(nexar):
    videos, aside = NexarAdapter(str(nexar)).videos()
    assert aside == []
    by_id = {video.id: video for video in videos}
    assert sorted(by_id) == ["00001", "00012", "00822", "02000", "02001", "02010", "02011"]
    positive = by_id["00822"]
    assert (positive.label, positive.event_time_s, positive.alert_time_s, positive.split) == (
        "event",
        7.367,
        6.299,
        "train",
    )
    assert positive.metadata == {"folder": "train/positive", "light": "Normal", "weather": "Cloudy", "scene": "Urban"}
    assert "weather" not in by_id["00012"].metadata
    negative = by_id["02011"]
    assert (negative.label, negative.event_time_s, negative.split) == ("normal", None, "test")
    assert negative.metadata["time_to_accident_s"] == 0.5


def test_clips_have_the_measured_rate_and_the_event_only_where_it_is(nexar, tmp_path):
    report = prepare(NexarAdapter(str(nexar)), tmp_path / "out", prepare_settings(6.0))
    clips = {clip.id: clip for clip in read_jsonl(tmp_path / "out" / "clips.jsonl", Clip)}
    assert clips["00822#0"].road.native_fps == pytest.approx(28.9, rel=1e-3)
    assert [clips[f"00822#{index}"].label for index in range(2)] == ["normal", "event"]
    assert clips["00012#0"].label == "event"
    assert clips["00012#0"].end_s == pytest.approx(145 / 28.9, rel=1e-3)
    aside = read_jsonl(tmp_path / "out" / "quarantine.jsonl", SetAside)
    assert [(item.item, item.reason) for item in aside] == [("02000", "event_after_end"), ("02010", "event_after_end")]
    assert report.num_items == 7 == report.num_used + 2
    assert report.windows_not_used == {"event_after_end": 2}


def test_positives_that_end_before_their_event_can_be_kept_without_a_label(nexar, tmp_path):
    report = prepare(NexarAdapter(str(nexar), keep_for_anticipation=True), tmp_path / "out", prepare_settings(6.0))
    clips = {clip.id: clip for clip in read_jsonl(tmp_path / "out" / "clips.jsonl", Clip)}
    assert report.set_aside == {}
    assert clips["02000#0"].label is None
    assert clips["02000#0"].event_time_s == 3.5
    assert clips["02001#0"].label == "normal"


def test_bad_rows_and_unlisted_files_are_set_aside_with_their_line(nexar):
    table = nexar / "train" / "positive" / "metadata.csv"
    with table.open("a") as file:
        file.write("822,7.367,6.299,Normal,Cloudy,Urban\n00099.mp4,1,1,,,\n00100.mp4,soon,1,,,\n,1,1,,,\n")
    write_video(nexar / "train" / "positive" / "00100.mp4")
    write_video(nexar / "train" / "positive" / "00555.mp4")
    videos, aside = NexarAdapter(str(nexar)).videos()
    found = {item.item: item for item in aside}
    assert {name: item.reason for name, item in found.items()} == {
        "train/positive/822": "repeated_file",
        "train/positive/00099.mp4": "missing",
        "train/positive/00100.mp4": "bad_row",
        "train/positive/": "bad_row",
        "train/positive/00555.mp4": "not_listed",
    }
    assert "metadata.csv:6: time_of_event 'soon'" in found["train/positive/00100.mp4"].detail
    assert len(videos) == 7


def test_two_rows_that_contradict_each_other_are_named(nexar):
    with (nexar / "train" / "positive" / "metadata.csv").open("a") as file:
        file.write("822,7.367,5,Normal,Cloudy,Urban\n")
    with pytest.raises(
        InputError, match=r"metadata\.csv:4: the file of line 2, but time_of_alert is '5' here and '6\.299'"
    ):
        NexarAdapter(str(nexar)).videos()


def test_what_lies_outside_the_layout_is_named(nexar):
    write_video(nexar / "extra" / "00001.mp4")
    write_video(nexar / "train" / "00002.mp4")
    (nexar / "README.md").write_text("read me")
    videos, aside = NexarAdapter(str(nexar)).videos()
    assert len(videos) == 7
    assert {item.item: item.reason for item in aside} == {
        "extra/00001.mp4": "outside_layout",
        "train/00002.mp4": "outside_layout",
        "README.md": "unknown_suffix",
    }


def test_a_number_used_in_two_folders_stays_two_videos(nexar):
    write_table(nexar / "test-public" / "negative", [{"file_name": "00822.mp4"}])
    (nexar / "test-public" / "negative" / "02001.mp4").rename(nexar / "test-public" / "negative" / "00822.mp4")
    videos, _ = NexarAdapter(str(nexar)).videos()
    assert {"train/positive/00822", "test-public/negative/00822"} <= {video.id for video in videos}
    assert len({video.source_video_id for video in videos}) == 7


def test_wrong_folders_and_tables_are_refused_in_one_line(nexar, tmp_path):
    for source, words in (
        (None, "source=<folder>"),
        (str(tmp_path / "none"), "no such folder"),
        (str(tmp_path), "root"),
    ):
        with pytest.raises(InputError, match=words):
            NexarAdapter(source).videos()  # type: ignore[arg-type]
    (nexar / "train" / "negative" / "metadata.csv").write_text("file,time\n")
    with pytest.raises(InputError, match=r"metadata.csv:1: no column 'file_name'"):
        NexarAdapter(str(nexar)).videos()
    (nexar / "train" / "negative" / "metadata.csv").unlink()
    with pytest.raises(InputError, match=r"metadata.csv: missing"):
        NexarAdapter(str(nexar)).videos()
