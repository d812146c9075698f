"""The frame around a run, the same for training and evaluation: what comes before its work and what it ends with."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig

from autodrive.config import config_hash
from autodrive.errors import InputError
from autodrive.runs.folder import RunFiles, save_config
from autodrive.runs.machine import check_one_process, keep_freed_memory, quiet_libraries, share_cores
from autodrive.runs.provenance import cpu_seconds, write_provenance


class Run:
    """A run while it is at work.

    Attributes:
        files: The files of the run folder.
        finished: The metrics that the folder held when it was opened; None for a run that has yet to be done.
        facts: What `provenance.json` says of the run beside its machine and its time.
    """

    def __init__(self, files: RunFiles, finished: Mapping[str, float] | None) -> None:
        self.files = files
        self.finished = None if finished is None else dict(finished)
        self.facts: dict[str, Any] = {}
        self._laps: dict[str, float] = {}
        self._began, self._cpu_began = time.monotonic(), cpu_seconds()

    def lap(self, name: str) -> None:
        """Note under this name how many seconds the run has taken so far."""
        self._laps[name] = time.monotonic() - self._began

    def times(self) -> dict[str, float]:
        """The noted times, the time since the run was opened, and the processor time since then, in seconds."""
        total = {"total_s": time.monotonic() - self._began, "cpu_s": cpu_seconds() - self._cpu_began}
        return {name: round(value, 1) for name, value in (self._laps | total).items()}


@contextmanager
def open_run(config: DictConfig, run_dir: Path) -> Iterator[Run]:
    """Prepare the machine, check and keep the configuration, seed, and write `provenance.json` at the end.

    A run whose folder holds it already has `finished`; there is nothing to do and nothing is written for it.

    Raises:
        InputError: More than one process is asked for, or the folder holds another finished
            run.
    """
    quiet_libraries()
    share_cores(config.num_workers)
    keep_freed_memory()
    check_one_process(config.trainer)
    files = RunFiles(run_dir)
    run = Run(files, _finished_metrics(config, files))
    save_config(config, run_dir)
    L.seed_everything(config.seed, verbose=False)
    yield run
    if run.finished is None:
        write_provenance(run_dir, run.facts | {"config_hash": config_hash(config), "time": run.times()})


def _finished_metrics(config: DictConfig, files: RunFiles) -> dict[str, float] | None:
    if not (files.metrics.is_file() and files.provenance.is_file()):
        return None
    if json.loads(files.provenance.read_text())["config_hash"] != config_hash(config):
        raise InputError(f"{files.folder}: holds a finished run of another configuration; choose another folder")
    return json.loads(files.metrics.read_text())
