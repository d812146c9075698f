"""Whole runs in two processes: a sweep whose second job loses a process, what it leaves behind, and how it goes on."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from running import run
from wandb_files import offline_runs

from autodrive.errors import InputError
from autodrive.runs.checkpoints import read_checkpoint
from autodrive.schema import Prediction, read_jsonl

VALIDATE_EVERY, NUM_STEPS = 2, 8
CLOSE = 1e-4  # relative: rounding of eight steps
LONGEST_S = 60.0
# Of other moments or machines, or of weights that rounding has changed.
DIFFERING = {"latency_s", "weights_digest", "option_log_probs"}

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are found in /proc")


@pytest.fixture(scope="module")
def arguments(manifest: Path) -> list[str]:
    """A short training, with nine test clips in batches of two: 5 batches for two processes."""
    small = ["experiment=smoke", f"num_steps={NUM_STEPS}", "batch_size=2", "fps=5", "duration_s=2"]
    small += [f"trainer.val_check_interval={VALIDATE_EVERY}", "trainer.log_every_n_steps=1"]
    small += [f"prompts.tasks.{task}.max_new_tokens.reasoning=12" for task in ("mcq", "closed_qa")]
    return [*small, "logger=csv_wandb", f"clips={manifest}"]


@dataclass
class Sweep:
    """A sweep of two jobs in two processes each, which compute the same; a process of the second one was killed."""

    jobs: list[Path]
    code: int
    output: str
    ended_s: float


@pytest.fixture(scope="module")
def sweep(arguments: list[str], repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    folder = tmp_path_factory.mktemp("ranks") / "sweep"
    jobs = [folder / "strips-0", folder / "strips-1"]
    command = [sys.executable, str(repository / "train.py"), "-m", "strategy=ddp", "trainer.devices=2"]
    command += [*arguments, "evaluation.num_strips=0,1"]  # nothing that changes what is found: one run is beside both
    command += [f"hydra.sweep.dir={folder}", "hydra.sweep.subdir=strips-${evaluation.num_strips}"]
    output = folder.with_suffix(".txt")
    environment = os.environ | {"WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    with output.open("w") as text:
        process = subprocess.Popen(command, env=environment, stdout=text, stderr=subprocess.STDOUT)
        try:
            _wait_for(jobs[1] / "checkpoints" / "last.ckpt", process)
            os.kill(ranks_of(process.pid)[1], signal.SIGKILL)
            killed = time.monotonic()
            code = process.wait(LONGEST_S)
        finally:
            process.kill()
    return Sweep(jobs, code, output.read_text(), time.monotonic() - killed)


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    while not path.is_file():
        assert process.poll() is None, "the sweep has ended before"
        time.sleep(0.01)


def ranks_of(parent: int) -> list[int]:
    """Process ids of the processes that a run has started, in the order of their start."""
    numbers = [
        int(n) for task in Path(f"/proc/{parent}/task").iterdir() for n in (task / "children").read_text().split()
    ]
    return sorted(n for n in numbers if b"spawn_main" in Path(f"/proc/{n}/cmdline").read_bytes())


@pytest.fixture(scope="module")
def alone(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first job in one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    command = [*arguments, "evaluation.num_strips=0", "strategy=single", f"hydra.run.dir={folder}"]
    assert run("train", *command, wandb="offline") == 0
    return folder


def files_of(folder: Path) -> set[str]:
    """Names of all files of a run, but those of W&B's own."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith("wandb/")}


def check_same_results(ours: Path, theirs: Path) -> None:
    """Two runs found the same but for rounding."""
    pairs = list(zip(*(read_jsonl(folder / "predictions.jsonl", Prediction) for folder in (ours, theirs)), strict=True))
    assert len(pairs) > 50
    for one, other in pairs:
        assert one.model_dump(exclude=DIFFERING) == other.model_dump(exclude=DIFFERING)
        assert one.option_log_probs == pytest.approx(other.option_log_probs, rel=CLOSE, abs=CLOSE)
    assert (ours / "metrics.json").read_text() == (theirs / "metrics.json").read_text()
    for name in ("annotations.jsonl", "dropped.jsonl"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def curve(folder: Path, key: str) -> list[float]:
    with (folder / "metrics.csv").open() as lines:
        return [float(row[key]) for row in csv.DictReader(lines) if row[key]]


def test_two_processes_leave_what_one_leaves(sweep: Sweep, alone: Path):
    ours, theirs = sweep.jobs[0], alone
    assert files_of(ours) == files_of(theirs)
    check_same_results(ours, theirs)
    for key in ("train/loss", "train/gradient_norm", "val/accuracy", "train/annotations_per_step", "train/lr"):
        assert curve(ours, key) == pytest.approx(curve(theirs, key), rel=CLOSE), key
    assert len(offline_runs(ours)) == 1


def test_counts_are_those_of_all_processes(sweep: Sweep, alone: Path):
    ours, theirs = (json.loads((folder / "provenance.json").read_text()) for folder in (sweep.jobs[0], alone))
    for key in ("clips_by_split_and_class", "clips_dropped", "mixture", "num_parameters", "parameters", "config_hash"):
        assert ours[key] == theirs[key]
    assert (ours["num_processes"], theirs["num_processes"]) == (2, 1)
    tokens = [facts["throughput"]["rows_per_step"] * facts["throughput"]["tokens_per_row"] for facts in (ours, theirs)]
    assert tokens[0] == pytest.approx(tokens[1], rel=1e-3)
    assert ours["peak_memory_mb"] > 600, "of both, each of which has loaded torch and more"


def test_a_killed_process_ends_its_job_with_one_line(sweep: Sweep):
    said = "process 1 of 2 was killed (SIGKILL), as the system does where memory runs out"
    assert sweep.ended_s < LONGEST_S
    assert sweep.code == 1
    error = json.loads((sweep.jobs[1] / "error.json").read_text())
    assert error["message"] == said
    assert f"strips-1 failed: {said}" in sweep.output
    assert "Traceback" not in sweep.output
    with (sweep.jobs[0].parent / "ablation.csv").open() as lines:
        assert [row["status"] for row in csv.DictReader(lines)] == ["done", "failed"], "one table of both jobs"


def test_it_goes_on_cut_up_among_processes_as_if_nothing_had_been(
    sweep: Sweep, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    how = ["strategy=fsdp", "strategy.one_file_up_to=0", "trainer.devices=2", "logger=csv"]
    assert run("train", f"resume={sweep.jobs[1]}", *how, f"hydra.run.dir={tmp_path}") == 0
    check_same_results(tmp_path, alone)
    assert len(list(tmp_path.glob("checkpoints/last-*.parts"))) == 1, "written in parts"
    losses = curve(tmp_path, "train/loss")
    assert VALIDATE_EVERY <= NUM_STEPS - len(losses) < NUM_STEPS
    assert losses == pytest.approx(curve(alone, "train/loss")[-len(losses) :], rel=CLOSE)
    shutil.rmtree(next(tmp_path.glob("checkpoints/last-*.parts")))
    with pytest.raises(InputError, match=r"last\.ckpt: its parts, .*last-\d+\.parts, are not there; restore it"):
        read_checkpoint(tmp_path / "checkpoints" / "last.ckpt", mapped=True)
