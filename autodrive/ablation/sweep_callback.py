"""What happens when a sweep ends: the table, on the screen, in the sweep's folder and in Weights & Biases."""

import sys
import traceback
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from autodrive.entry_point import exit_with_line
from autodrive.errors import InputError
from autodrive.runs.folder import find_runs


class AblationTable(Callback):
    """Writes `ablation.{md,csv,html}` and `ablation_items.csv` at the sweep's root.

    The exit code is 1 if a job failed, and 2 if wrong input kept every job from running.

    Hydra turns a callback's exceptions into warnings, so whatever must reach the exit code leaves by `sys.exit`.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before a single run, which is stored with the table that it is meant for."""
        self.on_multirun_start(config)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before the first job: a table that does not exist is not noticed hours later."""
        if config.get("table") is None:
            return
        # Every run loads this module, and few need what takes seconds to import.
        from autodrive.ablation.published import load_published

        try:
            load_published().table(config.table)
        except InputError as error:
            exit_with_line(str(error))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra after the last job; dry runs leave nothing to compare."""
        if config.get("dry_run"):
            return
        try:
            failed, all_wrong_input = _report(Path(config.hydra.sweep.dir), config)
        except InputError as error:
            exit_with_line(str(error))
        except Exception:
            traceback.print_exc()
            sys.exit(1)
        if all_wrong_input:
            exit_with_line(f"no job could run: {failed[0]}")
        if failed:
            print(f"error: {len(failed)} job(s) failed; see error.json in their folders", file=sys.stderr)
            sys.exit(1)


def _report(sweep_dir: Path, config: DictConfig) -> tuple[list[str], bool]:
    """Write and show the table; the jobs' errors, and whether wrong input kept every job from running."""
    from rich.console import Console

    from autodrive.ablation.files import print_ablation, write_tables
    from autodrive.ablation.wandb_table import log_ablation

    runs = find_runs([sweep_dir])
    summary = write_tables(runs, sweep_dir, config.get("table"))
    print_ablation(summary, Console())
    node = (config.get("logger") or {}).get("wandb")
    if node is not None:
        log_ablation(summary, runs, sweep_dir, sweep_dir.resolve().name, node.project)
    errors = [run.error for run in runs if run.error is not None]
    wrong_input = [error for error in errors if error.startswith(f"{InputError.__name__}: ")]
    return errors, len(wrong_input) == len(runs)
