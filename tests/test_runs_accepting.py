"""Which folder a run may have: a refused one changes nothing in it, a finished one is found done."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from omegaconf import OmegaConf
from running import run, tiny
from safetensors.torch import load_file, save_file

from autodrive.datasets.manifest import load_clips
from autodrive.errors import InputError
from autodrive.runs.folder import group_choices, read_run, run_config
from autodrive.schema import write_jsonl

CHANGES = {"num_steps": 24, "lr": 3e-3, "trainer.val_check_interval": 12}  # of the smoke run


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of a folder with what it holds and when that was written."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def the_line(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("error: ", "Traceback"))]
    return line


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fps": 2}, "fps=5.0 there, 2.0 here"),
        ({"seed": 7}, "seed=0 there, 7 here"),
        ({"labels": "event2"}, "labels.name=event3 there, event2 here"),
        ({"fps": 0}, "fps"),
        ({"optimizer.weight_decay": "x"}, "optimizer"),
    ],
)
def test_a_refused_run_changes_nothing(
    changes: dict[str, object], said: str, smoke_run: Path, world_dir: Path, capsys: pytest.CaptureFixture[str]
):
    before = contents(smoke_run)
    arguments = tiny(world_dir, **CHANGES | changes)
    assert run("train", *arguments, f"hydra.run.dir={smoke_run}") == 2
    assert said in the_line(capsys)
    assert contents(smoke_run) == before


def test_a_finished_run_says_so(smoke_run: Path, world_dir: Path, capsys: pytest.CaptureFixture[str]):
    before = contents(smoke_run)
    assert run("train", *tiny(world_dir, **CHANGES), f"hydra.run.dir={smoke_run}") == 0
    accuracy = json.loads((smoke_run / "metrics.json").read_text())["test/accuracy"]
    assert f"done already: {smoke_run}, accuracy {100 * accuracy:.1f} %" in capsys.readouterr().out
    assert contents(smoke_run) == before


def test_a_finished_run_that_was_killed_before_its_page_gets_it(
    smoke_run: Path, world_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = Path(shutil.copytree(smoke_run, tmp_path / "run"))
    (folder / "report.html").unlink()
    before = contents(folder)
    assert run("train", *tiny(world_dir, **CHANGES), f"hydra.run.dir={folder}") == 0
    out = capsys.readouterr().out
    assert f"done already: {folder}" in out
    assert f"report: {folder / 'report.html'}" in out
    after = contents(folder)
    page = after.pop("report.html")[0].decode()
    assert after == before
    assert page.count("data:image/jpeg") == (smoke_run / "report.html").read_text().count("data:image/jpeg") > 0


@pytest.fixture(scope="module")
def moved_run(smoke_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke run without its checkpoints, at another place."""
    folder = tmp_path_factory.mktemp("moved") / "a run's copy"
    shutil.copytree(smoke_run, folder, ignore=shutil.ignore_patterns("*.ckpt"))
    return folder


def test_an_evaluation_is_reused_only_for_the_same_clips_and_student(
    moved_run: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    clips = load_clips(manifest)
    write_jsonl(tmp_path / "clips.jsonl", clips)
    command = [f'ckpt="{moved_run}"', f"clips={tmp_path / 'clips.jsonl'}", "evaluation.modes=[direct]", "fps=2"]
    command += [f"hydra.run.dir={tmp_path / 'eval'}"]
    assert run("eval", *command) == 0
    before = contents(tmp_path / "eval")
    (tmp_path / "eval" / "report.html").unlink()
    assert run("eval", *command) == 0
    written = contents(tmp_path / "eval").pop("report.html")
    assert written[0] == before["report.html"][0], "the page is what it was"
    before["report.html"] = written
    assert f"done already: {tmp_path / 'eval'}, accuracy" in capsys.readouterr().out

    write_jsonl(tmp_path / "clips.jsonl", clips[:-1])
    assert run("eval", *command) == 2
    assert "clips, videos, labels, splits or annotations have changed since" in the_line(capsys)

    write_jsonl(tmp_path / "clips.jsonl", clips)
    path = moved_run / "checkpoints" / "student" / "model.safetensors"
    weights = load_file(path)
    save_file(weights | {"lm_head.weight": weights["lm_head.weight"] * 2}, path, metadata={"format": "pt"})
    assert run("eval", *command) == 2
    assert "its student has other weights by now" in the_line(capsys)
    assert contents(tmp_path / "eval") == before


HOLD = "import filelock, sys, time\nwith filelock.FileLock(sys.argv[1]):\n print(flush=True)\n time.sleep(99)"


def test_a_folder_belongs_to_one_process_until_that_dies(
    world_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = [*tiny(world_dir, fps=60), f"hydra.run.dir={tmp_path}"]  # a frame rate that no clip has
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / ".lock")], stdout=subprocess.PIPE)
    assert other.stdout is not None
    with other, other.stdout:
        other.stdout.readline()
        assert run("train", *arguments) == 2
        assert f"{tmp_path}: another process is at work in it" in the_line(capsys)
        other.send_signal(signal.SIGKILL)
    assert run("train", *arguments) == 2
    assert "fps=60: no clip has that frame rate" in the_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    with FileLock(tmp_path / ".lock", timeout=0):
        pass


def test_checkpoints_of_another_configuration_are_not_written_over(
    smoke_run: Path, world_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A run that was stopped can still be continued."""
    folder = tmp_path / "stopped"
    shutil.copytree(smoke_run, folder)
    (folder / "metrics.json").unlink()
    before = contents(folder)
    arguments = tiny(world_dir, **CHANGES | {"lr": 0.5})
    assert run("train", *arguments, f"hydra.run.dir={folder}") == 2
    assert "holds checkpoints of another configuration (lr=0.003 there, 0.5 here" in the_line(capsys)
    assert contents(folder) == before


def test_a_sweep_stops_at_a_folder_that_is_another_run_s(
    smoke_run: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "job"
    shutil.copytree(smoke_run, folder)
    before = contents(folder)
    command = ["-m", "fps=1,2", f"clips={manifest}", f"hydra.sweep.dir={tmp_path}", "hydra.sweep.subdir=job"]
    assert run("train", *command) == 2
    assert "holds a finished run of another configuration" in the_line(capsys)
    assert contents(folder) == before


def test_a_job_that_fails_before_it_begins_is_in_the_table(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["-m", "fps=70", "experiment=smoke", f"clips={manifest}", f"hydra.sweep.dir={tmp_path}"]
    assert run("train", *command) == 2
    assert "no job could run: InputError: fps=70" in the_line(capsys)
    (config,) = tmp_path.glob("*/.hydra/config.yaml")
    assert OmegaConf.load(config).fps == 70


@pytest.mark.parametrize(
    ("name", "read"), [("config.yaml", run_config), ("hydra.yaml", group_choices), ("overrides.yaml", read_run)]
)
@pytest.mark.parametrize("text", ["{", "a: [\n", "1", "hydra: {runtime: {choices: 3}}", "\x00"])
def test_a_damaged_file_of_a_configuration_is_one_line(
    name: str, read: Callable[[Path], Any], text: str, smoke_run: Path, tmp_path: Path
):
    shutil.copytree(smoke_run / ".hydra", tmp_path / ".hydra")
    (tmp_path / ".hydra" / name).write_text(text)
    with pytest.raises(InputError, match=re.escape(str(tmp_path))) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)
