"""The frame around a run, the same for training and evaluation: what comes before its work and what it ends with."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

import lightning as L
from filelock import FileLock, Timeout
from omegaconf import DictConfig

from autodrive.config_identity import config_hash
from autodrive.entry_point import quoted
from autodrive.errors import Interrupted, RefusedFolderError
from autodrive.ranks.group import Group, this_group
from autodrive.runs.folder import RunFiles, read_json, save_config
from autodrive.runs.inputs import ELSEWHERE, RunInputs, check_configuration, check_inputs, is_finished
from autodrive.runs.machine import keep_freed_memory, quiet_libraries, share_cores
from autodrive.runs.provenance import cpu_seconds, peak_memory_mb, write_provenance


class Run:
    """A run while it is at work; where several processes are, the first one writes for all.

    Attributes:
        group: The processes.
        files: The files of the run folder.
        inputs: What the run computes with, once that is known.
        facts: What `provenance.json` says of the run beside its inputs, its machine and its time.
    """

    def __init__(self, config: DictConfig, files: RunFiles, group: Group) -> None:
        self.files, self.group = files, group
        self.inputs: RunInputs | None = None
        self.facts: dict[str, Any] = {}
        self._config = config
        self._log = MemoryHandler(10**6, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
        self._laps: dict[str, float] = {}
        self._began, self._cpu_began = time.monotonic(), cpu_seconds()

    def begin(self, data_fingerprint: str, student_digest: str | None) -> dict[str, float] | None:
        """Take possession of the folder, in which nothing has been written so far, for a run with these inputs.

        Args:
            data_fingerprint: Identifies the clips and what is asked about them; see `RunInputs`.
            student_digest: Identifies the weights that were taken over, if any; see `RunInputs`.

        Returns:
            None for a run that has yet to be done; else the metrics that the folder holds, which are said to be there.

        Raises:
            RefusedFolderError: It holds a finished run with other inputs.
        """
        inputs = RunInputs(config_hash(self._config), data_fingerprint, student_digest)
        done = self.group.from_first(self._done(inputs) if self.group.leads else None)
        if done is not None:
            return done
        self.inputs = inputs
        if self.group.leads:
            self._take_folder()
        self.group.wait()
        return None

    def _done(self, inputs: RunInputs) -> dict[str, float] | None:
        if not is_finished(self.files):
            return None
        check_inputs(inputs, self.files)
        metrics = read_json(self.files.metrics)
        accuracy = metrics.get(f"{self._config.get('split', 'test')}/accuracy")
        score = "" if accuracy is None else f", accuracy {100 * accuracy:.1f} %"
        print(f"done already: {self.files.folder}{score}")
        return metrics

    def _take_folder(self) -> None:
        save_config(self._config, self.files.folder)
        target = logging.FileHandler(self.files.log, encoding="utf-8")
        target.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"))
        self._log.setTarget(target)
        self._log.flush()
        self._log.capacity = 1  # what was said so far is in the file; the rest goes there at once

    def lap(self, name: str) -> None:
        """Note under this name how many seconds the run has taken so far."""
        self._laps[name] = time.monotonic() - self._began

    def cost(self) -> dict[str, Any]:
        """What `provenance.json` says of time and memory: processor time and memory of all processes together.

        Times are in seconds, those that were noted and the total since the run was opened.
        """
        cpu_s, memory_mb = self.group.sums([cpu_seconds() - self._cpu_began, peak_memory_mb()])
        times = self._laps | {"total_s": time.monotonic() - self._began, "cpu_s": cpu_s}
        return {
            "time": {name: round(value, 1) for name, value in times.items()},
            "peak_memory_mb": round(memory_mb, 1),
            "num_processes": self.group.size,
        }

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Keep what is logged meanwhile for the folder's log, and write it once the run has begun."""
        root = logging.getLogger()
        root.addHandler(self._log)
        try:
            yield
        finally:
            root.removeHandler(self._log)
            if self._log.target is not None:
                self._log.target.close()


@contextmanager
def open_run(config: DictConfig, run_dir: Path) -> Iterator[Run]:
    """Prepare the machine, check the configuration and the folder, seed, and write `provenance.json` at the end.

    Until the run begins (`Run.begin`) nothing is written to the folder, so that a run that is refused leaves what lies
    there as it was.

    Raises:
        InputError: The folder holds what another configuration made, or another run is at work in it.
        Interrupted: The user stopped a training that `resume=` can continue.
    """
    quiet_libraries()
    share_cores(config.num_workers)
    keep_freed_memory()
    files, group = RunFiles(run_dir), this_group()
    with _alone(files) if group.leads else nullcontext():
        if group.leads:
            check_configuration(config, files)
        run = Run(config, files, group)
        L.seed_everything(config.seed, verbose=False)
        try:
            with run.logging():
                yield run
        except KeyboardInterrupt:
            if run.inputs is None or not (files.last_checkpoint.is_file() or files.best_checkpoint.is_file()):
                raise
            raise Interrupted([quoted("resume", str(run_dir))]) from None
        if run.inputs is not None:
            cost = run.cost()
            if group.leads:
                write_provenance(run_dir, run.facts | asdict(run.inputs) | cost)


@contextmanager
def _alone(files: RunFiles) -> Iterator[None]:
    """Keep other processes out of a folder; the system releases the lock of one that dies.

    Nothing is written to the folder of a finished run, not even a lock.
    """
    if is_finished(files):
        yield
        return
    files.folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(files.lock, timeout=0):
            yield
    except Timeout:
        raise RefusedFolderError(
            f"{files.folder}: another process is at work in it; wait for it, or {ELSEWHERE}"
        ) from None
