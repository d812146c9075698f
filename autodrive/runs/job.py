"""One job of a run or a sweep: in a sweep it must not stop the others, so its failure becomes a file."""

import json
import logging
import traceback
from collections.abc import Callable
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from autodrive.config import check_config
from autodrive.entry_point import WRONG_CONFIGURATION, explain
from autodrive.errors import InputError, RefusedFolderError
from autodrive.runs.folder import RunFiles, save_config
from autodrive.runs.inputs import is_finished
from autodrive.runs.processes import in_processes

log = logging.getLogger(__name__)

Metrics = dict[str, float]


def run_job(task: Callable[[DictConfig, Path], Metrics], config: DictConfig, keys: type) -> Metrics | None:
    """Check the configuration and do a task in Hydra's run folder.

    As a job of a sweep, an exception is written to `error.json` and swallowed; success removes a stale one.

    Args:
        task: What is done; gets the configuration and the run folder.
        config: The completed configuration of this job.
        keys: Dataclass that declares the keys at its root.

    Returns:
        What the task returns; None after a swallowed failure.

    Raises:
        RefusedFolderError: The job's folder holds what another run made, which ends the sweep. As any other exception
            about a folder that holds a finished run.
    """
    hydra = HydraConfig.get()
    run_dir = Path(hydra.runtime.output_dir)
    if hydra.mode != RunMode.MULTIRUN:
        check_config(config, keys)
        metrics = _done(task, config, run_dir)
        _leave_no_empty_folder(config, run_dir)
        return metrics
    files = RunFiles(run_dir)
    try:
        check_config(config, keys)
        metrics = _done(task, config, run_dir)
    except Exception as error:
        if isinstance(error, RefusedFolderError) or is_finished(files):
            raise  # not even the reason may be written to a folder that holds a run
        log.error("%s failed: %s", run_dir.name, record_failure(config, files, error))
        return None
    files.error.unlink(missing_ok=True)
    _leave_no_empty_folder(config, run_dir)
    return metrics


def record_failure(config: DictConfig, files: RunFiles, error: BaseException) -> str:
    """Write to `error.json` why a job of a sweep failed, where the sweep's table finds it; returns that in one line.

    Args:
        config: The job's configuration.
        files: The files of its folder.
        error: Why.
    """
    if not files.config.is_file():  # it failed before it began; the table shows it nevertheless
        save_config(config, files.folder)
    message = explain(error, HydraConfig.get().job.name)
    kind = InputError if isinstance(error, WRONG_CONFIGURATION) else type(error)
    facts = {"type": kind.__name__, "message": message, "traceback": "".join(traceback.format_exception(error))}
    files.error.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return message


def _done(task: Callable[[DictConfig, Path], Metrics], config: DictConfig, run_dir: Path) -> Metrics:
    return task(config, run_dir) if config.dry_run else in_processes(task, config, run_dir)  # which takes one


def _leave_no_empty_folder(config: DictConfig, run_dir: Path) -> None:
    """Remove the folder of a dry run, which Hydra makes before it asks us; not one that holds anything."""
    if config.dry_run and not any(run_dir.iterdir()):
        run_dir.rmdir()
