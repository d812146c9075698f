"""What loaders read, and the errors of their processes, which are real ones here."""

import errno
import json
import os
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import pytest
import torch
from patch_student import PatchVisual, build_patch_student
from records import make_clip, make_view
from run_samples import label_set, task_book
from running import run
from student_samples import FAMILIES
from torch.utils.data import Dataset
from video_files import write_video

from autodrive.datasets.manifest import load_clips
from autodrive.errors import InputError
from autodrive.mixture.clip_batches import BranchWriter, ClipReader, TrainingTrees
from autodrive.mixture.loader import InputLoader
from autodrive.mixture.mixture import Visit
from autodrive.trees.packing import TreeSize
from autodrive.video.container import UnusableVideo, check_native_fps
from autodrive.video.decoder import PyAVDecoder
from autodrive.video.frame_grid import EvenFrames, FrameGrid, FrameRateUnavailable
from autodrive.video.preflight import scan

ERRORS = [
    UnusableVideo(Path("a.mp4"), "truncated", "it was cut off"),
    FrameRateUnavailable(45, 30),
    InputError("fps=0: must be above 0"),
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "entries/00/frames"),
    PermissionError(errno.EACCES, os.strerror(errno.EACCES), "a.mp4"),
]


class Items(Dataset):
    """Numbers up to 2, and then one error after the other."""

    def __getitem__(self, index: int) -> int:
        if index >= 2:
            raise ERRORS[index - 2]
        return index

    def __len__(self) -> int:
        return 2 + len(ERRORS)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_travel_between_processes_whatever_they_are_made_of(error: Exception):
    received = pickle.loads(pickle.dumps(error))
    assert (type(received), str(received), received.__dict__) == (type(error), str(error), error.__dict__)


@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_the_error_of_a_loader_process_arrives_as_it_is(number: int):
    """Forked, since a new interpreter would import for seconds."""
    order: Any = [0, 1, 2 + number]
    loader = InputLoader(Items(), order, num_workers=1, multiprocessing_context="fork")
    read = iter(loader)
    assert [next(read), next(read)] == [0, 1]
    with pytest.raises(type(ERRORS[number])) as raised:
        next(read)
    assert str(raised.value) == str(ERRORS[number])


def test_a_bad_clip_ends_an_evaluation_with_one_line(
    smoke_run: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    clip = next(clip for clip in load_clips(manifest) if clip.split == "test")
    late = json.loads(clip.model_copy(update={"start_s": 50.0, "end_s": 52.0}).model_dump_json())
    (tmp_path / "clips.jsonl").write_text(json.dumps(late) + "\n")
    where = [f"clips={tmp_path / 'clips.jsonl'}", f"hydra.run.dir={tmp_path / 'run'}"]
    assert run("eval", f"ckpt={smoke_run}", *where, "num_workers=1") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: {clip.road.path}: truncated: the last frame is at")


def test_the_phase_of_a_visit_moves_the_frames_that_are_taught(tmp_path: Path):
    view = make_view(str(write_video(tmp_path / "a.mp4", num_frames=60, fps=30)), native_fps=30)
    reader = ClipReader(PyAVDecoder(), build_patch_student(["words"], seed=0).processor, FrameGrid(2))
    trees = TrainingTrees(reader, BranchWriter(task_book(), label_set()))
    clip = make_clip(view, end_s=2.0)
    seen = [cast(PatchVisual, trees[Visit(clip, (), 0, phase)].visual).patches for phase in (0.0, 0.5)]
    assert not torch.equal(*seen)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tree_is_as_large_as_it_is_measured_without_decoding(family: str, tmp_path: Path):
    """Several processes deal rows by these sizes. Times in thousandths make stamps of time differ from the grid's."""
    view = make_view(str(write_video(tmp_path / "a.mkv", num_frames=400, fps=30)), native_fps=30)
    processor = FAMILIES[family]().processor
    for frames in (FrameGrid(7), EvenFrames(9)):
        trees = TrainingTrees(ClipReader(PyAVDecoder(), processor, frames), BranchWriter(task_book(), label_set()))
        for phase, start_s in ((0.0, 0.0), (0.7, 1.0)):
            visit = Visit(make_clip(view, start_s=start_s, end_s=start_s + 12.0), (), 0, phase)
            assert trees.measure(visit)[0] == TreeSize.of(trees[visit])


def test_a_manifest_with_a_wrong_frame_rate_is_refused_at_the_first_read(tmp_path: Path):
    path = write_video(tmp_path / "a.mp4", num_frames=60, fps=30)
    reader = ClipReader(PyAVDecoder(), build_patch_student(["words"], seed=0).processor, FrameGrid(45))
    clip = make_clip(make_view(str(path), native_fps=60), end_s=2.0)
    with pytest.raises(UnusableVideo, match="wrong_frame_rate: the manifest says native_fps=60, the file has 30"):
        reader.read(clip)


def test_a_header_that_differs_from_the_frames_does_not_matter(tmp_path: Path):
    """The rate in the header is a hint; a Matroska of 10 frames per second may say 30."""
    pts = range(0, 60 * 100, 100)
    path = write_video(tmp_path / "a.mkv", num_frames=60, fps=30, pts=pts, time_base=Fraction(1, 1000))
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 30
    check_native_fps(path, scan(path).native_fps)
