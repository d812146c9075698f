import pytest
from video_files import write_video

from autodrive.datasets.video_folder import VideoFolderAdapter
from autodrive.errors import InputError


def read(folder, **settings):
    videos, aside = VideoFolderAdapter(str(folder), **settings).videos()
    return {video.id: video for video in videos}, {item.item: item for item in aside}


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"not read here")


def test_classes_come_from_subfolders(tmp_path):
    touch(
        tmp_path,
        "normal/a.mp4",
        "Near-Collision/b.MOV",
        "collision/2024/c.mkv",
        "collision/readme.txt",
        "normal/.d.mp4",
    )
    videos, aside = read(tmp_path)
    assert {name: video.label for name, video in videos.items()} == {
        "normal/a.mp4": "normal",
        "Near-Collision/b.MOV": "near_collision",
        "collision/2024/c.mkv": "collision",
    }
    assert {name: item.reason for name, item in aside.items()} == {"collision/readme.txt": "unknown_suffix"}
    assert all(video.split is None for video in videos.values())


def test_a_flat_folder_has_no_labels(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    videos, _ = read(tmp_path)
    assert {video.label for video in videos.values()} == {None}


def test_a_video_beside_class_folders_is_not_guessed(tmp_path):
    touch(tmp_path, "a.mp4", "normal/b.mp4")
    videos, aside = read(tmp_path)
    assert list(videos) == ["normal/b.mp4"]
    assert aside["a.mp4"].reason == "no_class_folder"


def test_labels_csv_with_all_columns(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4", "d.mp4")
    (tmp_path / "labels.csv").write_text(
        "file,label,event_time_s,split,ego_involved,source_video_id\n"
        "a.mp4,collision,4.35,train,yes,scene1\n"
        "b.mp4,collision,5.5,test,no,\n"
        "c.mp4,normal,,val,no,\n"
        "d.mp4,,,,,\n"
    )
    videos, aside = read(tmp_path)
    a = videos["a.mp4"]
    assert (a.label, a.event_time_s, a.split, a.ego_involved, a.source_video_id) == (
        "collision",
        4.35,
        "train",
        True,
        "scene1",
    )
    assert videos["c.mp4"].ego_involved is False
    assert (videos["d.mp4"].label, videos["d.mp4"].source_video_id) == (None, "d.mp4")
    assert (videos["b.mp4"].ego_involved, aside) == (False, {})


def test_labels_csv_with_two_columns_is_enough(tmp_path):
    touch(tmp_path, "sub/a b=1.mp4")
    (tmp_path / "labels.csv").write_text("file,label\nsub/a b=1.mp4,Near Collision\n")
    assert read(tmp_path)[0]["sub/a b=1.mp4"].label == "near_collision"


def test_bad_rows_are_set_aside_with_their_line(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4", "d.mp4", "extra.mp4")
    (tmp_path / "labels.csv").write_text(
        "file,label,event_time_s,split,ego_involved\n"
        "a.mp4,collision,-3,,\n"
        "b.mp4,collision,1,validation,\n"
        "c.mp4,collision,1,,maybe\n"
        "d.mp4,normal,,,\n"
        "./d.mp4, Normal ,,,\n"
        "gone.mp4,normal,,,\n"
        ",normal,,,\n"
    )
    videos, aside = VideoFolderAdapter(str(tmp_path)).videos()
    assert [video.id for video in videos] == ["d.mp4"]
    assert [(item.reason, item.detail.split("labels.csv:")[1].partition(":")[0]) for item in aside[:-1]] == [
        ("bad_row", "2"),
        ("bad_row", "3"),
        ("bad_row", "4"),
        ("repeated_file", "6"),
        ("missing", "7"),
        ("bad_row", "8"),
    ]
    assert (aside[-1].item, aside[-1].reason) == ("extra.mp4", "not_listed")


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("a.mp4,normal,4,", "label is 'normal' here and 'collision' there"),
        ("link.mp4,collision,4,test", "split is 'test' here and None there"),
        ("s/../a.mp4,collision,5,", "event_time_s is 5.0 here and 4.0 there"),
    ],
)
def test_one_file_with_two_meanings_is_an_error_that_names_both_lines(tmp_path, second, said):
    touch(tmp_path, "a.mp4", "s/b.mp4")
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    (tmp_path / "labels.csv").write_text(
        f"file,label,event_time_s,split\na.mp4,collision,4,\ns/b.mp4,normal,,\n{second}\n"
    )
    with pytest.raises(InputError) as refused:
        VideoFolderAdapter(str(tmp_path)).videos()
    assert f"labels.csv:4: the file of {tmp_path / 'labels.csv'}:2, but {said}" in str(refused.value)


def test_one_file_under_three_names_is_one_video(tmp_path):
    touch(tmp_path, "a.mp4", "s/b.mp4")
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    (tmp_path / "labels.csv").write_text(
        "file,label\nlink.mp4,normal\ns/../a.mp4,Normal\na.mp4,normal\ns/b.mp4,normal\n"
    )
    videos, aside = read(tmp_path)
    assert list(videos) == ["link.mp4", "s/b.mp4"]
    assert {name: item.reason for name, item in aside.items()} == dict.fromkeys(
        ("s/../a.mp4", "a.mp4"), "repeated_file"
    )


def test_a_link_in_a_folder_of_another_class_is_an_error(tmp_path):
    touch(tmp_path, "normal/a.mp4", "collision/b.mp4")
    (tmp_path / "collision" / "link.mp4").symlink_to(tmp_path / "normal" / "a.mp4")
    with pytest.raises(
        InputError, match=r"normal/a\.mp4: the file of .*collision/link\.mp4, but label is 'normal' here"
    ):
        VideoFolderAdapter(str(tmp_path)).videos()


def test_a_listed_file_needs_no_known_ending(tmp_path):
    touch(tmp_path, "a.dat", "b.dat")
    (tmp_path / "labels.csv").write_text("file,label\na.dat,normal\n")
    videos, aside = read(tmp_path)
    assert list(videos) == ["a.dat"]
    assert {name: item.reason for name, item in aside.items()} == {"b.dat": "unknown_suffix"}


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="no video below"):
        VideoFolderAdapter(str(tmp_path)).videos()


def test_real_files_are_found(tmp_path):
    write_video(tmp_path / "normal" / "a.mp4")
    assert VideoFolderAdapter(str(tmp_path)).videos()[0][0].road.path == str(tmp_path / "normal" / "a.mp4")
