"""The threads and memory that a process takes, and how many processes there are."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from running import composed, run

from autodrive.errors import InputError
from autodrive.ranks.launching import Place
from autodrive.runs.machine import TORCH_THREADS, device_of, share_cores
from autodrive.runs.processes import place_from_launcher, ranks_wanted


@pytest.fixture(autouse=True)
def _restore():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_torch_takes_what_the_workers_leave(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for workers, expected in ((0, TORCH_THREADS), (1, max(1, TORCH_THREADS - 1)), (1000, 1), (0, TORCH_THREADS)):
        share_cores(workers)
        assert torch.get_num_threads() == expected


def test_the_environment_has_the_last_word(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    torch.set_num_threads(2)
    share_cores(1000)
    assert torch.get_num_threads() == 2


FAULTS = """
import resource, torch
from autodrive.runs.machine import keep_freed_memory

def faults():
    for step in range(15):
        torch.ones(2_000_000).add(1)
        if step == 4:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(), keep_freed_memory(), faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc takes the setting")
def test_a_step_finds_the_memory_of_the_last_one():
    """Page faults of 10 steps that allocate 16 MB each, without glibc's own adaptation and then with ours."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    without, was_set, with_ours = done.stdout.split()
    assert was_set == "True"
    assert int(with_ours) < 0.1 * int(without)


PROCESSES = "strategy=single is for one device"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(f"trainer.devices={devices}", PROCESSES) for devices in ("2", "auto", "-1", "[0,1]")]
    + [
        ("trainer.num_nodes=2", PROCESSES),
        ("trainer.devices='2'", "must be a valid integer"),
        ("trainer.devices=1 strategy=ddp", "this strategy shares steps among several"),
        ("trainer.devices=2 strategy=fsdp +trainer.strategy=ddp", "give strategy=ddp, fsdp or another one"),
        ("trainer.num_nodes=2 strategy=ddp", "use torchrun, srun or hydra/launcher=slurm"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "eval"])
def test_a_number_of_devices_that_the_strategy_is_not_for_ends_in_one_line(
    verb: str, arguments: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    places = [f"hydra.run.dir={tmp_path}", f"paths.data_dir={tmp_path}"]
    assert run(verb, *arguments.split(), *places, *(["ckpt=null"] if verb == "eval" else [])) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: trainer.")
    assert said in captured.err
    assert not list(tmp_path.glob("synthetic-*"))  # before anything is rendered


LAUNCHED = {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (
            {"WORLD_SIZE": "2", "RANK": "0"},
            "WORLD_SIZE=2: a launcher has started several processes without MASTER_ADDR",
        ),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "OMPI_COMM_WORLD_SIZE=4: mpirun does not say where processes meet"),
        (
            {"WORLD_SIZE": "3", "RANK": "2", **LAUNCHED},
            "trainer.devices=1 x trainer.num_nodes=1: a launcher has started 3",
        ),
    ],
)
def test_a_launcher_with_another_number_of_processes_ends_in_one_line(
    environment: dict[str, str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert run("train", f"hydra.run.dir={tmp_path}", f"paths.data_dir={tmp_path}") == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"error: {said}")


TORCHRUN = {"WORLD_SIZE": "2", "RANK": "0", **LAUNCHED}
SRUN = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "0"}
SRUN |= {"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_ID": "77", "SLURM_NODELIST": "localhost"}


@pytest.mark.parametrize("environment", [TORCHRUN, SRUN], ids=["torchrun", "srun"])
def test_a_sweep_in_each_process_of_a_launcher_is_refused(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name in LAUNCHED:  # are set on the way, and taken back with the rest
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    command = ["-m", "seed=0", "strategy=ddp", "trainer.devices=2", "logger=csv", f"hydra.sweep.dir={tmp_path}"]
    assert run("train", *command) == 2
    assert (
        "-m: each of the processes that a launcher has started would begin the whole sweep" in capsys.readouterr().err
    )


def test_launchers_say_which_process_this_is(monkeypatch: pytest.MonkeyPatch):
    assert place_from_launcher() is None
    slurm = {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_JOB_ID": "77"}
    slurm |= {"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "training", "SLURM_NODELIST": "node[7-8]"}
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    assert place_from_launcher() is None, "a shell in an allocation starts one process"
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    with pytest.raises(InputError, match=r"srun: .*ntasks-per-node"):
        place_from_launcher()
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "4")
    assert place_from_launcher() == Place(rank=5, size=8, local_rank=1)
    assert os.environ.pop("MASTER_ADDR") == "node7"
    assert int(os.environ.pop("MASTER_PORT")) > 1024
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS")
    submitit = {"SUBMITIT_LOCAL_NTASKS": "2", "SUBMITIT_LOCAL_GLOBALID": "1", "SUBMITIT_LOCAL_LOCALID": "1"}
    for name, value in (submitit | {"SUBMITIT_LOCAL_JOB_ID": "77"}).items():
        monkeypatch.setenv(name, value)
    assert place_from_launcher() == Place(rank=1, size=2, local_rank=1)
    assert int(os.environ.pop("MASTER_PORT")) > 1024
    assert os.environ.pop("MASTER_ADDR") == "localhost"
    for name, value in {"WORLD_SIZE": "16", "RANK": "3", **LAUNCHED}.items():  # of a pod that is one process
        monkeypatch.setenv(name, value)
    assert place_from_launcher() == Place(rank=3, size=16, local_rank=0)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", (1, 1)),
        ("trainer.devices=[3]", (1, 1)),
        ("strategy=ddp trainer.devices=4", (4, 1)),
        ("strategy=fsdp trainer.devices=[0,2]", (2, 1)),
        ("strategy=deepspeed_zero3 trainer.devices=8 trainer.num_nodes=4", (8, 4)),
        ("strategy=ddp trainer.devices=1 trainer.num_nodes=2", (1, 2)),
    ],
)
def test_a_run_has_a_process_for_every_device(arguments: str, expected: tuple[int, int]):
    assert tuple(ranks_wanted(composed("train", arguments.split()))) == expected


def test_more_gpus_than_there_are_end_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    arguments = ["strategy=fsdp", "trainer.devices=8", "trainer.accelerator=gpu", f"hydra.run.dir={tmp_path}"]
    assert run("train", *arguments) == 2
    said = "trainer.devices=8: 4 GPUs found; give as many or fewer, or trainer.accelerator=cpu for processes without"
    assert capsys.readouterr().err == f"error: {said}\n"


def test_the_device_follows_the_trainer_s_accelerator():
    assert device_of("cpu") == torch.device("cpu")
    assert device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
