"""Jobs of a sweep side by side on one machine, each in a process with devices of its own.

Launchers that there are for this either know no GPUs and end all jobs when a process is killed (joblib's), or begin all
jobs at once, and all on the same GPUs (submitit's local one).
"""

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple, cast

import cloudpickle
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, ListConfig, open_dict

from autodrive.config import register
from autodrive.errors import InputError, LostRankError
from autodrive.runs.folder import RunFiles, read_json
from autodrive.runs.inputs import is_finished
from autodrive.runs.job import record_failure
from autodrive.runs.processes import ranks_wanted
from autodrive.workers import End, Worker, deaf_to_ctrl_c, end_now, end_with_parent, wait_for_any

log = logging.getLogger(__name__)

OUTPUT = "output"  # folder of a sweep for what its jobs print


@dataclass(frozen=True)
class Launch:
    """What Hydra hands to a launcher: where configurations come from, what a job does, and what jobs have in common."""

    context: HydraContext
    task: TaskFunction
    config: DictConfig

    def job(self, overrides: Sequence[str], number: int) -> DictConfig:
        """The composed configuration of a job, with Hydra's settings."""
        config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        return config


class Seat(NamedTuple):
    """What a job has for itself while it is at work.

    Attributes:
        cores: Numbers of the processors that it may use.
        gpus: Its GPUs, as CUDA_VISIBLE_DEVICES names them.
    """

    cores: Sequence[int]
    gpus: Sequence[str]


class Seats:
    """What of a machine is free.

    Args:
        cores: Processors, which are divided by the number of jobs at once.
        gpus: GPUs, which jobs are dealt as they ask for them.
        num_jobs: Most jobs at once.
    """

    def __init__(self, cores: Sequence[int], gpus: Sequence[str], num_jobs: int) -> None:
        bounds = [len(cores) * number // num_jobs for number in range(num_jobs + 1)]
        self._cores = [cores[start:end] or [cores[start % len(cores)]] for start, end in pairwise(bounds)]
        self._gpus = list(gpus)

    def take(self, num_gpus: int) -> Seat | None:
        """A seat with so many GPUs, which nobody else has; None as long as there is none."""
        if not self._cores or len(self._gpus) < num_gpus:
            return None
        taken, self._gpus = self._gpus[:num_gpus], self._gpus[num_gpus:]
        return Seat(self._cores.pop(0), taken)

    def give_back(self, seat: Seat) -> None:
        """Free a seat."""
        self._cores.append(seat.cores)
        self._gpus += seat.gpus


def checked_number(n_jobs: Any) -> int | None:
    """The most jobs at once; raises InputError where that is no number of jobs."""
    if n_jobs is not None and (isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or n_jobs < 1):
        raise InputError(f"hydra.launcher.n_jobs={n_jobs}: must be a number of jobs at once, from 1, or null")
    return n_jobs


def run_side_by_side(
    launch: Launch, job_overrides: Sequence[Sequence[str]], first: int, most: int | None
) -> list[JobReturn]:
    """Do the jobs of a sweep; what they print goes to `output/<number>.txt` in the sweep's folder.

    Args:
        launch: What the jobs are made of.
        job_overrides: The overrides of each.
        first: Number of the first one.
        most: Most jobs at once; None for as many as there are devices for.

    Returns:
        What Hydra makes of each job, in their order. One that was killed has failed: the reason is in its `error.json`.

    Raises:
        InputError: A job asks for GPUs by their numbers.
        SystemExit: After all others: a job could not even record why it failed, as where its folder holds another run.
    """
    setup_globals()
    configure_log(launch.config.hydra.hydra_logging, launch.config.hydra.verbose)
    configs = [launch.job(overrides, first + place) for place, overrides in enumerate(job_overrides)]
    gpus = _visible_gpus()
    wanted = [gpus_wanted(config, len(gpus)) for config in configs]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    num_jobs = min(most or _most_jobs(configs, wanted, len(gpus), len(cores)), len(configs))
    seats, waiting, running = Seats(cores, gpus, num_jobs), deque(range(len(configs))), list[_Job]()
    returns: dict[int, JobReturn | int] = {}
    log.info("Launching %d jobs, %d at once; they print to %s", len(configs), num_jobs, _output(configs[0]).parent)
    try:
        while waiting or running:
            while waiting and (seat := seats.take(wanted[waiting[0]])) is not None:
                place = waiting.popleft()
                running.append(_Job.started(launch, configs[place], list(job_overrides[place]), place, seat))
            wait_for_any([job.worker for job in running])
            for job in [job for job in running if not job.worker.process.is_alive()]:
                returns[job.place] = job.outcome()
                seats.give_back(job.seat)
                running.remove(job)
    finally:
        end_now([job.worker for job in running])
    codes = [found for found in returns.values() if isinstance(found, int)]
    if codes:
        sys.exit(max(codes))
    return [cast(JobReturn, returns[place]) for place in range(len(configs))]


def gpus_wanted(config: DictConfig, num_gpus: int) -> int:
    """GPUs that a job is dealt: one for each of its processes on a machine.

    Args:
        config: The job's configuration.
        num_gpus: How many there are; a job that asks for more gets all, and says itself what is wrong.

    Raises:
        InputError: It asks for GPUs by their numbers.
    """
    trainer: Any = config.get("trainer") or {}
    if num_gpus == 0 or trainer.get("accelerator", config.get("accelerator", "auto")) == "cpu":
        return 0
    if not trainer:
        return 1
    if isinstance(trainer.devices, ListConfig):
        message = f"trainer.devices={trainer.devices}: hydra/launcher=local_processes deals out GPUs by itself"
        raise InputError(f"{message}; give their number, and choose among GPUs by CUDA_VISIBLE_DEVICES")
    return min(_num_ranks(config), num_gpus)


def _num_ranks(config: DictConfig) -> int:
    try:
        return ranks_wanted(config).local
    except Exception:  # whatever a wrong value makes it raise: the job says what is wrong with it
        return 1


def _most_jobs(configs: Sequence[DictConfig], wanted: Sequence[int], num_gpus: int, num_cores: int) -> int:
    if all(wanted):
        return num_gpus // min(wanted)
    return max(1, num_cores // min(_num_ranks(config) if "trainer" in config else 1 for config in configs))


def _visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    numbers = [str(number) for number in range(torch.cuda.device_count())]
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return named.split(",")[: len(numbers)] if named else numbers


@dataclass
class _Job:
    """A job at work.

    Attributes:
        place: Its place among those that were launched together.
        config: Its composed configuration.
        seat: Its devices.
        worker: Its process.
        began_s: When it began, on a monotonic clock.
    """

    place: int
    config: DictConfig
    seat: Seat
    worker: Worker
    began_s: float

    @classmethod
    def started(cls, launch: Launch, config: DictConfig, overrides: list[str], place: int, seat: Seat) -> "_Job":
        number = config.hydra.job.num
        on = f" on GPU {', '.join(seat.gpus)}" if seat.gpus else ""
        log.info("\t#%d%s : %s", number, on, " ".join(filter_overrides(overrides)))
        work = pickled((launch, overrides, number, Singleton.get_state()))
        output = _output(config)
        output.parent.mkdir(parents=True, exist_ok=True)
        with deaf_to_ctrl_c(), on_cores(seat.cores):
            worker = Worker.start(_be_job, str(output), list(seat.gpus), work)
        return cls(place, config, seat, worker, time.monotonic())

    def outcome(self) -> JobReturn | int:
        """What the job has returned or why it has failed, said in a line; its exit code if it could not record that."""
        number, code = self.config.hydra.job.num, self.worker.process.exitcode or 0
        if self.worker.is_lost() and code > 0:
            said = _output(self.config).read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
            log.error("\t#%d ended with exit code %d: %s", number, code, said)
            return code
        with _settings_of(self.config) as folder:
            files = RunFiles(folder)
            if self.worker.is_lost() and not is_finished(files):
                record_failure(self._task_config(), files, LostRankError(0, 1, self.worker.how_it_ended()))
            failure = read_json(files.error).get("message")
        if failure is None:
            log.info("\t#%d done after %.1f min", number, (time.monotonic() - self.began_s) / 60)
        else:
            log.error("\t#%d failed: %s", number, failure)
        found = JobReturn(self.config.hydra.overrides.task, self._task_config(), status=JobStatus.COMPLETED)
        found.return_value = None if self.worker.end is None else self.worker.end.value
        return found

    def _task_config(self) -> DictConfig:
        config = self.config.copy()
        with open_dict(config):
            del config["hydra"]
        return config


class _Pickler(cloudpickle.Pickler):
    """As cloudpickle's, which takes closures, but functions of the main module go by their names.

    A copy of one would not be what its name stands for in the job's process, and could not be sent on to the processes
    that the job starts.
    """

    def reducer_override(self, obj: Any) -> Any:
        main = sys.modules["__main__"]
        if isinstance(obj, FunctionType) and getattr(main, obj.__qualname__, None) is obj:
            return _of_main, (obj.__qualname__,)
        return super().reducer_override(obj)


def pickled(value: Any) -> bytes:
    """Bytes for another process that runs the same script."""
    file = BytesIO()
    _Pickler(file).dump(value)
    return file.getvalue()


def _of_main(name: str) -> Any:
    return getattr(sys.modules["__main__"], name)


def _output(config: DictConfig) -> Path:
    """What a job prints."""
    return Path(config.hydra.sweep.dir, OUTPUT, f"{config.hydra.job.num}.txt")


@contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """What is started meanwhile, and whatever that starts, has these processors, and as many threads."""
    if not hasattr(os, "sched_setaffinity"):  # Linux has it
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _settings_of(config: DictConfig) -> Iterator[Path]:
    """Hydra's settings are those of a job meanwhile; gives its folder."""
    hydra = HydraConfig.instance()
    before = hydra.cfg
    hydra.set_config(config)
    try:
        yield Path(config.hydra.sweep.dir, config.hydra.sweep.subdir)
    finally:
        hydra.cfg = before


def _be_job(reports: Connection, output: str, gpus: Sequence[str], work: bytes) -> None:
    """What the process of a job does from its first line to its last."""
    end_with_parent()
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    with open(output, "ab", buffering=0) as file:
        for stream in (sys.stdout, sys.stderr):  # processes and libraries that it starts write there as well
            os.dup2(file.fileno(), stream.fileno())
            cast(TextIOWrapper, stream).reconfigure(line_buffering=True)
    launch, overrides, number, state = cloudpickle.loads(work)
    Singleton.set_state(state)
    register()
    setup_globals()
    done = run_job(
        hydra_context=launch.context,
        task_function=launch.task,
        config=launch.job(overrides, number),
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    reports.send(End.now(done.return_value))  # which raises what the job could not record
