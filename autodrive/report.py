"""Makes the ablation table of finished runs.

python -m autodrive.report runs=outputs/sweeps/2026-11-21_10-00-00 out=tables/fps
python -m autodrive.report runs=[runs/a,runs/b] table=autodrive/table3_fps out=tables/fps
python -m autodrive.report runs=outputs/sweeps/<sweep> out=tables/fps wandb=vlm-autodrive
"""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, ListConfig
from rich.console import Console

from autodrive.ablation.files import print_ablation, write_tables
from autodrive.ablation.table import AblationSummary
from autodrive.config import ReportConfig, check_config
from autodrive.entry_point import run_with_hydra
from autodrive.errors import InputError
from autodrive.runs.folder import RunFolder, find_runs
from autodrive.tracking.wandb_mode import check_account


def report(config: DictConfig) -> AblationSummary:
    """Write `ablation.{md,csv,html}` of `config.runs` into `config.out` and print the table.

    Raises:
        InputError: A key is missing, a folder holds no run, or there is no such published table.
    """
    check_config(config, ReportConfig)
    for key in ("runs", "out"):
        if config.get(key) is None:
            raise InputError(f"{key}= is missing; for example runs=outputs/sweeps/<sweep> out=tables/<name>")
    if config.wandb is not None:
        check_account()
    folders = config.runs if isinstance(config.runs, ListConfig) else [config.runs]
    runs = find_runs([Path(str(folder)) for folder in folders])
    summary = write_tables(runs, Path(config.out), config.table)
    console = Console()
    print_ablation(summary, console)
    if config.wandb is not None:
        from autodrive.ablation.wandb_table import log_ablation  # imported here: it takes seconds, and few ask for it

        log_ablation(summary, runs, Path(config.out), sweep_name(runs, Path(config.out)), config.wandb)
    console.print(f"written: {Path(config.out) / 'ablation.html'} (and .md, .csv)", highlight=False)
    return summary


def sweep_name(runs: Sequence[RunFolder], out: Path) -> str:
    """The sweep that all runs are jobs of, whose W&B group the table joins; the report's own folder for others."""
    above = {run.path.resolve().parent for run in runs}
    return above.pop().name if len(above) == 1 and len(runs) > 1 else out.resolve().name


def main() -> None:
    """Read the command line and report."""
    run_with_hydra(report, "report")


if __name__ == "__main__":
    main()
