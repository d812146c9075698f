"""The frame around a run, the same for training and evaluation: what comes before its work and what it ends with."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
from autodrive.runs.folder import RunFiles, read_json, save_config
from autodrive.runs.inputs import ELSEWHERE, RunInputs, check_configuration, check_inputs, is_finished
from autodrive.runs.machine import check_one_process, keep_freed_memory, quiet_libraries, share_cores
from autodrive.runs.provenance import cpu_seconds, write_provenance


class Run:
    """A run while it is at work.

    Attributes:
        files: The files of the run folder.
        inputs: What the run computes with, once that is known.
        facts: What `provenance.json` says of the run beside its inputs, its machine and its time.
    """

    def __init__(self, config: DictConfig, files: RunFiles) -> None:
        self.files = files
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
        if is_finished(self.files):
            check_inputs(inputs, self.files)
            metrics = read_json(self.files.metrics)
            accuracy = metrics.get(f"{self._config.get('split', 'test')}/accuracy")
            score = "" if accuracy is None else f", accuracy {100 * accuracy:.1f} %"
            print(f"done already: {self.files.folder}{score}")
            return metrics
        save_config(self._config, self.files.folder)
        target = logging.FileHandler(self.files.log, encoding="utf-8")
        target.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"))
        self._log.setTarget(target)
        self._log.flush()
        self._log.capacity = 1  # what was said so far is in the file; the rest goes there at once
        self.inputs = inputs
        return None

    def lap(self, name: str) -> None:
        """Note under this name how many seconds the run has taken so far."""
        self._laps[name] = time.monotonic() - self._began

    def times(self) -> dict[str, float]:
        """The noted times, the time since the run was opened, and the processor time since then, in seconds."""
        total = {"total_s": time.monotonic() - self._began, "cpu_s": cpu_seconds() - self._cpu_began}
        return {name: round(value, 1) for name, value in (self._laps | total).items()}

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
        InputError: More than one process is asked for, or the folder holds what another configuration made, or belongs
            to another process.
        Interrupted: The user stopped a training that `resume=` can continue.
    """
    quiet_libraries()
    share_cores(config.num_workers)
    keep_freed_memory()
    check_one_process(config.trainer)
    files = RunFiles(run_dir)
    with _alone(files):
        check_configuration(config, files)
        run = Run(config, files)
        L.seed_everything(config.seed, verbose=False)
        try:
            with run.logging():
                yield run
        except KeyboardInterrupt:
            if run.inputs is None or not (files.last_checkpoint.is_file() or files.best_checkpoint.is_file()):
                raise
            raise Interrupted([quoted("resume", str(run_dir))]) from None
        if run.inputs is not None:
            write_provenance(run_dir, run.facts | asdict(run.inputs) | {"time": run.times()})


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
