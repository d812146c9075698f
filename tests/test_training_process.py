import os
import platform
import subprocess
import sys

import pytest
import torch

from autodrive.training.process import TORCH_THREADS, share_cores


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
from autodrive.training.process import keep_freed_memory
kept = {keep} and keep_freed_memory()
for step in range(30):
    torch.ones(2_000_000).add(1)
    if step == 4:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc takes the setting")
def test_a_step_finds_the_memory_of_the_last_one():
    """Page faults of 25 steps that allocate 16 MB each, without glibc's own adaptation and with ours."""
    faults = {}
    for keep in (False, True):
        environment = {"MALLOC_MMAP_THRESHOLD_": "131072"} if not keep else {}
        command = [sys.executable, "-c", FAULTS.format(keep=keep)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
        faults[keep] = int(done.stdout)
    assert faults[True] < 0.1 * faults[False]
