"""One process, the threads and memory it takes, and what several would be told."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from running import composed, run

from autodrive.errors import InputError
from autodrive.runs.machine import TORCH_THREADS, check_one_process, device_of, share_cores


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


ONE_DEVICE = "only one device works so far"


@pytest.mark.parametrize(
    ("devices", "said"),
    [(devices, ONE_DEVICE) for devices in ("2", "auto", "-1", "[0,1]")] + [("'2'", "must be a valid integer")],
)
@pytest.mark.parametrize("verb", ["train", "eval"])
def test_several_devices_end_in_one_line(
    verb: str, devices: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = [f"trainer.devices={devices}", f"hydra.run.dir={tmp_path}", f"paths.data_dir={tmp_path}"]
    assert run(verb, *arguments, *(["ckpt=null"] if verb == "eval" else [])) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: trainer.devices=")
    assert said in captured.err
    assert not list(tmp_path.glob("synthetic-*"))  # before anything is rendered


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, "WORLD_SIZE=2"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "OMPI_COMM_WORLD_SIZE=4"),
        ({"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "sweep"}, "SLURM_NTASKS=8"),
    ],
)
def test_several_processes_of_a_launcher_end_in_one_line(
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
    assert captured.err.startswith(f"error: {said}: a launcher has started several processes")


def test_one_process_is_what_the_default_starts(monkeypatch: pytest.MonkeyPatch):
    trainer = composed("train").trainer
    check_one_process(trainer)
    for devices in ([3], "1"):
        check_one_process(OmegaConf.merge(trainer, {"devices": devices}))  # type: ignore[arg-type]
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")  # a shell in an allocation starts one process
    check_one_process(trainer)
    with pytest.raises(InputError, match=r"trainer\.num_nodes=2"):
        check_one_process(OmegaConf.merge(trainer, {"num_nodes": 2}))  # type: ignore[arg-type]


def test_the_device_follows_the_trainer_s_accelerator():
    assert device_of("cpu") == torch.device("cpu")
    assert device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
