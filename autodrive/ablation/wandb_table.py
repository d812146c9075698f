"""An ablation table in Weights & Biases: one run in the sweep's group, offline unless the user is logged in."""

from pathlib import Path

import wandb

from autodrive.ablation.files import csv_rows
from autodrive.ablation.table import AblationSummary
from autodrive.reporting.wandb_run import wandb_mode


def log_ablation(summary: AblationSummary, sweep_dir: Path, project: str = "vlm-autodrive") -> None:
    """Log the table as one run of kind `ablation`, in the group that the sweep's runs share (its folder's name).

    Args:
        summary: The table to log.
        sweep_dir: The sweep's folder; W&B keeps its own files there.
        project: Name of the W&B project.
    """
    rows = csv_rows(summary)
    group = sweep_dir.resolve().name
    run = wandb.init(
        project=project,
        group=group,
        job_type="ablation",
        name=f"{group} ablation",
        dir=str(sweep_dir),
        reinit="finish_previous",
        mode=wandb_mode(),  # pyright: ignore[reportArgumentType] - a user's WANDB_MODE is checked by wandb
        settings=wandb.Settings(silent=True),
    )
    run.log({"ablation": wandb.Table(columns=list(rows[0]), data=[list(map(_cell, row.values())) for row in rows])})
    if summary.verdict:
        run.summary["verdict"] = summary.verdict.outcome
        run.summary["verdict_sentence"] = summary.verdict.sentence
    run.summary["num_failed"] = summary.num_failed
    run.finish()


def _cell(value: object) -> str | float | None:
    """W&B wants one type a column: numbers stay numbers, everything else becomes text."""
    return value if value is None or isinstance(value, int | float) else str(value)
