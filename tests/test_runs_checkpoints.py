"""Checkpoints: written whole or not at all, read without trust, continued from wherever their folder lies."""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from running import run, tiny

from autodrive.errors import InputError
from autodrive.runs.checkpoints import WholeCheckpoints, checkpoint_to_continue, read_checkpoint
from autodrive.runs.folder import RunFiles
from autodrive.runs.inputs import RunInputs
from autodrive.whole_files import whole


@pytest.fixture
def stopped(smoke_run: Path, tmp_path: Path) -> RunFiles:
    """A copy of a run's checkpoints at another place; the run's own are not the ones that are meant."""
    shutil.copytree(smoke_run / "checkpoints", tmp_path / "moved" / "checkpoints")
    return RunFiles(tmp_path / "moved")


def what_continues(files: RunFiles, **changes: Any) -> Path:
    """The checkpoint that a run like the smoke run would continue from."""
    state = torch.load(files.best_checkpoint, weights_only=True)
    inputs = replace(RunInputs(**state["inputs"]), **changes)
    return checkpoint_to_continue(str(files.folder), inputs, state["state_dict"])


def rewrite(path: Path, **changes: Any) -> None:
    torch.save(torch.load(path, weights_only=True) | changes, path)


def test_the_newest_checkpoint_is_continued_from(stopped: RunFiles):
    assert what_continues(stopped) == stopped.last_checkpoint
    last = torch.load(stopped.last_checkpoint, weights_only=True)
    rewrite(stopped.best_checkpoint, global_step=last["global_step"] + 12)  # stopped between writing the two
    assert what_continues(stopped) == stopped.best_checkpoint
    stopped.last_checkpoint.unlink()  # at the first validation
    assert what_continues(stopped) == stopped.best_checkpoint


class Shell:
    """What a pickle of a stranger does."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def damage(files: RunFiles, how: str) -> None:
    last = files.last_checkpoint
    if how == "cut":
        last.write_bytes(last.read_bytes()[:100_000])
    elif how == "empty":
        last.write_bytes(b"")
    elif how == "text":
        last.write_text("weights")
    elif how == "code":
        torch.save({"state_dict": Shell()}, last)
    elif how == "not ours":
        torch.save({"state_dict": {}}, last)
    elif how == "no best":
        files.best_checkpoint.unlink()
    elif how == "other shapes":
        rewrite(last, state_dict={"x": torch.zeros(2)})
    elif how == "another best":
        state = torch.load(files.best_checkpoint, weights_only=True)
        (values,) = [v for v in state["callbacks"].values() if "best_model_score" in v]
        values["best_model_score"] = torch.tensor(0.123)
        rewrite(files.best_checkpoint, callbacks=state["callbacks"])


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("cut", r"last\.ckpt: cannot be read"),
        ("empty", r"last\.ckpt: cannot be read"),
        ("text", r"last\.ckpt: cannot be read"),
        ("code", r"last\.ckpt: cannot be read"),
        ("not ours", r"last\.ckpt: not a checkpoint"),
        ("no best", r"best\.ckpt: there is no such checkpoint"),
        ("other shapes", r"last\.ckpt: its weights do not fit"),
        ("another best", r"best\.ckpt: not the best checkpoint that last\.ckpt knows of"),
    ],
)
def test_a_damaged_checkpoint_is_one_line(how: str, said: str, stopped: RunFiles, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(stopped.folder)
    reference = torch.load(stopped.best_checkpoint, weights_only=True)
    damage(stopped, how)
    with pytest.raises(InputError, match=said) as caught:
        checkpoint_to_continue(str(stopped.folder), RunInputs(**reference["inputs"]), reference["state_dict"])
    assert "\n" not in str(caught.value)
    assert not (stopped.folder / "ran").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data_fingerprint": "x"}, "the clips, labels or splits have changed"),
        ({"student_digest": "x"}, "began with a student of other weights"),
        ({"config_hash": "x"}, "the checkpoint of another configuration"),
    ],
)
def test_another_run_s_checkpoint_is_refused(changes: dict[str, str], said: str, stopped: RunFiles):
    with pytest.raises(InputError, match=said):
        what_continues(stopped, **changes)


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """As if the disk were full after so many bytes of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path):
    writer = WholeCheckpoints(RunInputs("c", "d", None))
    state = {"state_dict": {"w": torch.zeros(10)}, "callbacks": {}, "loops": {}, "global_step": 1}
    state |= {"optimizer_states": [], "lr_schedulers": []}
    writer.save_checkpoint(state, tmp_path / "last.ckpt")
    large = {"w": torch.zeros(1_000_000)}
    with largest_file(1_000_000), pytest.raises(OSError, match=r"File too large: .*/last\.ckpt'"):
        writer.save_checkpoint(state | {"state_dict": large}, tmp_path / "last.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert read_checkpoint(tmp_path / "last.ckpt")["state_dict"]["w"].shape == (10,)


KILLED = """
import os, pathlib, signal, sys
from autodrive.whole_files import whole
with whole(pathlib.Path(sys.argv[1])) as partial:
    partial.mkdir()
    (partial / "half").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_in_nobody_s_way(repository: Path, tmp_path: Path):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "student")], cwd=repository)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.glob(".*/*")] == ["half"]
    (left,) = tmp_path.iterdir()  # a process before this one, which had its number, may have left something as well
    shutil.copytree(left, tmp_path / re.sub(r"-\d+-\d+\.", f"-{os.getpid()}-99.", left.name))
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "old").write_text("x")
    with whole(tmp_path / "student") as partial:
        partial.mkdir()
        (partial / "new").write_text("x")
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["student", "student/new"]


def test_two_that_write_one_file_do_not_write_into_each_other_s(tmp_path: Path):
    file = tmp_path / "clips.jsonl"
    with whole(file) as slow:
        slow.write_text("all of the first")
        with whole(file) as quick:
            assert slow.read_text() == "all of the first"
            quick.write_text("all of the second")
        assert file.read_text() == "all of the second"
    assert file.read_text() == "all of the first"
    assert [path.name for path in tmp_path.iterdir()] == ["clips.jsonl"]


SHORT = {"evaluation.modes": "[direct]", "fps": 2, "batch_size": 2, "trainer.val_check_interval": 1}


def test_a_full_disk_ends_a_training_in_one_line(
    world_dir: Path, smoke_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with largest_file(1_000_000):
        assert run("train", *tiny(world_dir, num_steps=2, **SHORT), f"hydra.run.dir={tmp_path / 'run'}") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("error", "Traceback"))]
    assert line.startswith(f"error: {tmp_path / 'run' / 'checkpoints' / 'best.ckpt'}: File too large; make room")
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_a_diverged_training_stops_at_its_first_bad_step(
    world_dir: Path, smoke_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "run"
    assert run("train", *tiny(world_dir, num_steps=24, lr=1e6, **SHORT), f"hydra.run.dir={folder}") == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("error", "Traceback"))]
    assert line.startswith("error: step 2 of 24: the ")
    assert "is nan at lr=" in line
    assert f"the last good checkpoint is {folder / 'checkpoints' / 'last.ckpt'}; train with a lower lr" in line
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 1
    assert all(bool(weights.isfinite().all()) for weights in last["state_dict"].values())
    assert not (folder / "metrics.json").exists()


@contextmanager
def ctrl_c_once(folder: Path, pattern: str) -> Iterator[None]:
    """Press Ctrl-C as soon as a file is there."""

    def press() -> None:
        while not over.is_set():
            if list(folder.glob(pattern)):
                os.kill(os.getpid(), signal.SIGINT)
                return
            time.sleep(0.01)

    over = threading.Event()
    finger = threading.Thread(target=press)
    finger.start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        over.set()
        finger.join()
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_says_how_to_go_on(world_dir: Path, smoke_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "a run"
    endless = tiny(world_dir, num_steps=10_000, **SHORT)
    with ctrl_c_once(folder, "checkpoints/last.ckpt"):
        assert run("train", *endless, f'hydra.run.dir="{folder}"') == 130
    error = capsys.readouterr().err
    assert error.endswith(f"\nstopped by Ctrl-C\ncontinue with: python train.py 'resume=\"{folder}\"'\n")
    assert "Traceback" not in error
    assert read_checkpoint(folder / "checkpoints" / "last.ckpt")["global_step"] > 0


def test_ctrl_c_in_a_sweep_names_the_sweep_s_folder(
    world_dir: Path, smoke_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "a sweep"
    endless = tiny(world_dir, num_steps=10_000, **SHORT)
    with ctrl_c_once(folder, "*/checkpoints/last.ckpt"):
        assert run("train", "-m", "seed=0,1", *endless, f'hydra.sweep.dir="{folder}"') == 130
    *_, first, second = capsys.readouterr().err.splitlines()
    assert first == "stopped by Ctrl-C"
    assert second.startswith("do the jobs that are missing with: python train.py -m seed=0,1 experiment=smoke")
    assert second.endswith(f" 'hydra.sweep.dir=\"{folder}\"'")
    assert not list(folder.glob("*/error.json"))
