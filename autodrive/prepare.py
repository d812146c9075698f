"""Turns a source of videos into clips.

    python -m autodrive.prepare dataset=nexar source=<folder> out=<folder> [duration_s=6] [stride_s=5]

Writes into `out`: clips.jsonl (one Clip per line), quarantine.jsonl (one line for each video or row that is not used,
with the reason), prepare.json (settings and counts) and scan_cache.jsonl (so that an interrupted run continues where it
was). Everything below the source that is not hidden ends as clips or as a line of quarantine.jsonl.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from autodrive.config import PrepareConfig, check_config
from autodrive.counted import counted
from autodrive.datasets.preparing import PrepareReport, PrepareSettings, prepare
from autodrive.entry_point import run_with_hydra
from autodrive.label_sets import sets_that_know, shipped_label_sets
from autodrive.labels import LabelSet
from autodrive.schema import SPLITS


def print_report(report: PrepareReport, label_sets: Sequence[LabelSet], console: Console) -> None:
    """Show the counts: clips by split and class, and what is not used, with sums; and what looks like a slip."""
    labels = list(dict.fromkeys(label for counts in report.clips.values() for label in counts))
    table = Table(title=f"{report.dataset}: clips by split and class")
    for column in ("split", "source videos", *labels, "clips"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split, counts in report.clips.items():
        cells = [counts.get(label, 0) for label in labels]
        table.add_row(split, *(str(value) for value in (report.videos[split], *cells, sum(cells))))
    totals = [sum(counts.get(label, 0) for counts in report.clips.values()) for label in labels]
    sums = (sum(report.videos.values()), *totals, report.num_clips)
    table.add_row("all", *(str(value) for value in sums), style="bold")
    console.print(table)
    least, mean, most = report.clips_per_video
    num_aside = sum(report.set_aside.values())
    console.print(f"items of the source: {report.num_items} = {report.num_used} used + {num_aside} set aside")
    for reason, count in report.set_aside.items():
        more = ", …" if count > len(report.examples[reason]) else ""
        line = f"  {count} {reason}: {', '.join(report.examples[reason])}{more}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    unused = sum(report.windows_not_used.values())
    console.print(f"windows: {report.num_windows} = {counted(report.num_clips, 'clip')} + {unused} not used")
    for reason, count in report.windows_not_used.items():
        console.print(f"  {count} {reason}")
    console.print(f"clips per video: {mean:.1f} ({least} to {most})")
    for split in SPLITS:
        if not report.videos[split]:
            console.print(f"note: {split} is empty; change split_fractions or seed, or give a split in labels.csv")
    for label, count in report.labels.items():
        if not sets_that_know(label, label_sets):
            note = f"note: label {label!r} ({counted(count, 'video')}) is in no label set of conf/labels"
            console.print(f"{note}; correct it, or add it to one", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{report.out}/clips.jsonl", soft_wrap=True)


def job(config: DictConfig) -> PrepareReport:
    """Prepare what the configuration names and show the counts."""
    check_config(config, PrepareConfig)
    fractions: Any = OmegaConf.to_container(config.split_fractions)
    settings = PrepareSettings(config.duration_s, config.stride_s, fractions, config.seed, config.keep_witnessed)
    out, data_dir = Path(config.out).absolute(), Path(config.paths.data_dir).absolute()
    report = prepare(
        instantiate(config.dataset),
        out,
        settings,
        config.num_workers,
        data_dir if out.is_relative_to(data_dir) else None,
    )
    print_report(report, shipped_label_sets(), Console())
    return report


def main() -> None:
    """Read the command line and prepare."""
    run_with_hydra(job, "prepare")


if __name__ == "__main__":
    main()
