import os
import shutil
import socket
from pathlib import Path

import pytest
from video_files import write_video

from autodrive.datasets.source_folder import read_folder, require_folder
from autodrive.errors import InputError
from autodrive.video.preflight import scan


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not read here")
    return path


def read(folder: Path, *own: Path) -> tuple[list[str], dict[str, str]]:
    videos, aside = read_folder(folder, own)
    assert all(item.detail for item in aside)
    return [path.relative_to(folder).as_posix() for path in videos], {item.item: item.reason for item in aside}


def test_links_to_folders_and_files_are_followed(tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    touch(elsewhere / "sub" / "a.mp4")
    touch(tmp_path / "set" / "normal" / "b.mp4")
    (tmp_path / "set" / "collision").symlink_to(elsewhere)
    (tmp_path / "set" / "normal" / "c.mp4").symlink_to(elsewhere / "sub" / "a.mp4")
    assert read(tmp_path / "set") == (["collision/sub/a.mp4", "normal/b.mp4", "normal/c.mp4"], {})


def test_every_entry_is_a_video_or_a_line_or_hidden(tmp_path: Path):
    for name in ("a.mp4", ".hidden.mp4", ".git/b.mp4", "normal/c.MTS", "normal/notes.txt", "normal/noending"):
        touch(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "device.mp4").symlink_to("/dev/zero")
    (tmp_path / "gone.mp4").symlink_to("nowhere.mp4")
    (tmp_path / "self.mp4").symlink_to("self.mp4")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xff.mp4")).touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "normal" / "socket.mp4"))
    videos, aside = read(tmp_path)
    assert videos == ["a.mp4", "normal/c.MTS"]
    assert aside == {
        "normal/notes.txt": "unknown_suffix",
        "normal/noending": "unknown_suffix",
        "pipe.mp4": "not_a_file",
        "device.mp4": "not_a_file",
        "normal/socket.mp4": "not_a_file",
        "gone.mp4": "dangling_link",
        "self.mp4": "dangling_link",
        "f\\xff.mp4": "bad_name",
    }


def test_links_that_go_in_circles_end(tmp_path: Path):
    touch(tmp_path / "normal" / "a.mp4")
    touch(tmp_path / "collision" / "deep" / "b.mp4")
    (tmp_path / "normal" / "up").symlink_to("..")
    (tmp_path / "normal" / "self").symlink_to(".")
    (tmp_path / "collision" / "again").symlink_to("deep")
    (tmp_path / "collision" / "deep" / "back").symlink_to(tmp_path / "collision")
    videos, aside = read(tmp_path)
    assert videos == ["collision/deep/b.mp4", "normal/a.mp4"]
    circles = ("normal/up", "normal/self", "collision/again", "collision/deep/back")
    assert aside == dict.fromkeys(circles, "repeated_folder")


def test_folders_that_link_to_each_other_stay_few(tmp_path: Path):
    """Ten folders with a link to each other: 10! ways through them, a hundred folders to enter."""
    for one in range(10):
        touch(tmp_path / f"f{one}" / "a.mp4")
        for other in set(range(10)) - {one}:
            (tmp_path / f"f{one}" / f"to{other}").symlink_to(f"../f{other}")
    assert len(read_folder(tmp_path)[0]) == 100


def test_files_of_the_caller_are_in_neither_list_whatever_their_name(tmp_path: Path):
    table = touch(tmp_path / "labels.csv")
    touch(tmp_path / "sub" / "labels.csv")
    touch(tmp_path / "clips.jsonl")
    (tmp_path / "link.mp4").symlink_to(table)
    assert read(tmp_path, table) == ([], {"sub/labels.csv": "unknown_suffix"})


def test_a_closed_folder_is_named(ordinary_user: Path):
    source = ordinary_user / "set"
    touch(source / "a.mp4")
    closed = touch(source / "closed" / "b.mp4").parent
    closed.chmod(0)
    try:
        assert read(source) == (["a.mp4"], {"closed": "unreadable_folder"})
        with pytest.raises(InputError, match=r"source=.*closed: cannot be read \(Permission denied\)"):
            read_folder(closed)
    finally:
        closed.chmod(0o700)


def test_a_source_that_is_none(tmp_path: Path):
    for source, said in ((None, "source is not set"), (str(tmp_path / "none"), "no such folder")):
        with pytest.raises(InputError, match=said):
            require_folder(source, "video_folder")


@pytest.mark.parametrize("suffix", [".mts", ".m2ts", ".m2t", ".asf", ".f4v", ".3g2", ".insv"])
def test_endings_of_cameras_are_read(tmp_path: Path, suffix: str):
    codecs = {".asf": "msmpeg4", ".3g2": "mpeg4"}
    path = write_video(tmp_path / f"a{suffix if suffix != '.insv' else '.mp4'}", codec=codecs.get(suffix, "libx264"))
    if suffix == ".insv":
        path = Path(shutil.move(path, tmp_path / "a.insv"))
    assert read(tmp_path)[0] == [path.name]
    assert scan(path).num_frames == 30
