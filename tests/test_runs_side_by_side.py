"""Jobs side by side: what each is dealt, and what becomes of one that is killed. Whole sweeps: test_sweep.py."""

import json
import os
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from running import composed, run

from autodrive.errors import InputError
from autodrive.runs.side_by_side import Seat, Seats, checked_number, gpus_wanted, on_cores
from autodrive.workers import End, Worker, end_now, wait_for_any


def test_no_two_jobs_have_the_same_devices():
    seats = Seats(cores=range(8), gpus=["4", "5", "6"], num_jobs=3)
    first, second = seats.take(2), seats.take(1)
    assert (first, second) == (Seat(range(0, 2), ["4", "5"]), Seat(range(2, 5), ["6"]))
    assert seats.take(1) is None, "no GPU is left"
    assert seats.take(0) == Seat(range(5, 8), [])
    assert seats.take(0) is None, "three jobs at once"
    assert first is not None
    seats.give_back(first)
    assert seats.take(1) == Seat(range(0, 2), ["4"])


def test_more_jobs_than_processors_share_them():
    seats = Seats(cores=[0, 1], gpus=[], num_jobs=4)
    assert [list(seat.cores) for seat in (seats.take(0), seats.take(0), seats.take(0), seats.take(0)) if seat] == [
        [0],
        [0],
        [1],
        [1],
    ]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([], 1),
        (["strategy=ddp", "trainer.devices=2"], 2),
        (["strategy=fsdp", "trainer.devices=8"], 4),  # all: the job says that there are 4
        (["trainer.devices=2"], 1),  # as the job says, too: strategy=single is for one device
        (["trainer.accelerator=cpu", "strategy=ddp", "trainer.devices=2"], 0),
    ],
)
def test_a_job_is_dealt_a_gpu_for_each_of_its_processes(arguments: list[str], wanted: int):
    assert gpus_wanted(composed("train", arguments), num_gpus=4) == wanted
    assert gpus_wanted(composed("train", arguments), num_gpus=0) == 0


def test_gpus_cannot_be_asked_for_by_number():
    config = composed("train", ["strategy=ddp", "trainer.devices=[2,3]"])
    with pytest.raises(InputError, match=r"^trainer\.devices=\[2, 3\]: .*choose among GPUs by CUDA_VISIBLE_DEVICES$"):
        gpus_wanted(config, num_gpus=4)


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "two"])
def test_a_number_of_jobs_that_is_none_is_refused(number: object):
    with pytest.raises(InputError, match=r"^hydra\.launcher\.n_jobs="):
        checked_number(number)


def test_what_a_script_defines_is_itself_in_a_job_and_can_be_sent_on(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "import pickle\n"
        "from autodrive.runs.side_by_side import pickled\n"
        "def task(): pass\n"
        "def closure():\n"
        "    return lambda: task\n"
        "again = pickle.loads(pickled(closure()))\n"
        "assert again() is task\n"
        "pickle.dumps(again())\n"
    )
    subprocess.run([sys.executable, str(script)], check=True)


def tell_cores(reports: Connection) -> None:
    reports.send(End.now(os.sched_getaffinity(0)))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processors are dealt out on Linux")
def test_a_process_has_the_processors_of_its_seat_and_this_one_keeps_all():
    before = os.sched_getaffinity(0)
    with on_cores([min(before)]):
        worker = Worker.start(tell_cores)
    try:
        wait_for_any([worker])
        assert worker.end is not None
        assert worker.end.value == {min(before)}
        assert os.sched_getaffinity(0) == before
    finally:
        end_now([worker])


def test_a_job_that_is_killed_has_failed_with_the_reason(manifest: Path, tmp_path: Path):
    small = ["experiment=smoke", "num_steps=2", "logger=csv", f"clips={manifest}"]
    how = ["hydra/launcher=local_processes", "schedule._target_=run_samples.schedule_that_is_killed"]
    assert run("train", "-m", *small, *how, f"hydra.sweep.dir={tmp_path}") == 1
    (error,) = tmp_path.glob("*/error.json")
    assert "was killed (SIGKILL)" in json.loads(error.read_text())["message"]
    assert "was killed (SIGKILL)" in (tmp_path / "ablation.csv").read_text()
