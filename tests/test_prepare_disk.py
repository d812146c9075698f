"""Disks that are full and folders that may not be written, for real: the file size of this process is limited."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from running import prepare_settings, run
from video_files import write_video

from autodrive.datasets.manifest import load_clips
from autodrive.datasets.preparing import prepare
from autodrive.datasets.video_folder import VideoFolderAdapter
from autodrive.entry_point import explain
from autodrive.errors import InputError, is_about_storage


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def the_line(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [text for text in capsys.readouterr().err.splitlines() if not text.startswith("checking videos")]
    assert line.startswith("error: "), line
    return line


def test_wherever_the_disk_is_full_prepare_ends_with_one_line_and_goes_on_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        write_video(tmp_path / "set" / name)
    (tmp_path / "set" / "notes.txt").touch()
    out = tmp_path / "out"
    command = ["prepare", f"source={tmp_path / 'set'}", f"out={out}", "num_workers=1"]
    with largest_file(100):
        assert run(*command) == 2
    assert f"error: {out / 'scan_cache.jsonl'}: File too large; make room" in the_line(capsys)
    assert run(*command) == 0
    written = ["quarantine.jsonl", "prepare.json", "clips.jsonl"]
    sizes = {name: (out / name).stat().st_size for name in written}
    assert list(sizes.values()) == sorted(sizes.values())
    for name in written:
        for file in written:
            (out / file).unlink(missing_ok=True)
        capsys.readouterr()
        with largest_file(sizes[name] - 1):
            assert run(*command) == 2
        assert f"error: {out / name}: File too large; make room" in the_line(capsys)
        assert {path.name for path in out.iterdir()} == {*written[: written.index(name)], "scan_cache.jsonl", ".lock"}
    assert run(*command) == 0
    assert len(load_clips(out / "clips.jsonl")) == 3


def test_a_world_that_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    scenes = [f"dataset.num_{split}_scenes=1" for split in ("train", "val", "test")]
    folders = [f"paths.data_dir={tmp_path / 'data'}", f"out={tmp_path / 'out'}"]
    for limit in (100, 2000):
        with largest_file(limit):
            assert run("prepare", "dataset=synthetic", *scenes, "duration_s=2", "dataset.num_workers=1", *folders) == 2
        line = the_line(capsys)
        assert str(tmp_path / "data") in line
        assert "File too large" in line


def test_folders_that_may_not_be_written(ordinary_user: Path):
    write_video(ordinary_user / "set" / "a.mp4")
    closed, prepared = ordinary_user / "closed", ordinary_user / "prepared"
    closed.mkdir(mode=0o500)
    (ordinary_user / "file").touch()
    (prepared / "scan_cache.jsonl").mkdir(parents=True)
    for out in (closed, closed / "deeper", ordinary_user / "file", ordinary_user / "file" / "deeper", prepared):
        with pytest.raises((InputError, OSError)) as refused:
            prepare(VideoFolderAdapter(str(ordinary_user / "set")), out, prepare_settings(6.0))
        assert isinstance(refused.value, InputError) or is_about_storage(refused.value)
        assert str(out) in explain(refused.value, "prepare")
    assert os.listdir(closed) == []
