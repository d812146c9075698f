"""Writes an ablation table as Markdown, CSV, values clip by clip and one self-contained web page, and prints it."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from autodrive.ablation.published import Metric, load_published
from autodrive.ablation.rows import AblationRow
from autodrive.ablation.table import ACCURACY, AblationSummary, summarise
from autodrive.ablation.wording import (
    PAIR_HEADER,
    STEP_HEADER,
    caption,
    header,
    pair_cells,
    remarks,
    row_cells,
    step_cells,
)
from autodrive.reporting import figures, pages, terminal
from autodrive.runs.folder import RunFolder

CSV_CLASS_SCORES = ("precision", "recall", "f1")


def write_tables(runs: Sequence[RunFolder], out: Path, table: str | None = None) -> AblationSummary:
    """Write `ablation.{md,csv,html}` of any runs into any folder, and `ablation_items.csv` if rows can be paired.

    Args:
        runs: All jobs, finished or not.
        out: The folder to write into.
        table: Id of the published table to stand beside; found by the swept keys and values if None.

    Raises:
        InputError: There is no such table, or the runs use different label sets or splits.
    """
    summary = summarise(runs, load_published(), table, np.random.default_rng(0))
    out.mkdir(parents=True, exist_ok=True)
    (out / "ablation.md").write_text(to_markdown(summary), encoding="utf-8")
    _write_csv(csv_rows(summary), out / "ablation.csv")
    items = item_rows(summary)
    if items:
        _write_csv(items, out / "ablation_items.csv")
    (out / "ablation.html").write_text(_to_html(summary), encoding="utf-8")
    return summary


def print_ablation(summary: AblationSummary, console: Console) -> None:
    """Print the table, the verdict and the remarks."""
    terminal.print_table(caption(summary), header(summary), [row_cells(summary, row) for row in summary.rows], console)
    for remark in remarks(summary):
        console.print(remark, highlight=False, markup=False)


def to_markdown(summary: AblationSummary) -> str:
    """The whole report as Markdown."""
    parts = [f"# {caption(summary)}", _markdown_table(header(summary), [row_cells(summary, r) for r in summary.rows])]
    if step_cells(summary):
        parts += ["## Verdicts", _markdown_table(STEP_HEADER, step_cells(summary))]
    if summary.comparisons:
        parts += ["## All pairs of our rows", _markdown_table(PAIR_HEADER, pair_cells(summary))]
    parts += ["## How to read this", _markdown_remarks(remarks(summary))]
    return "\n\n".join(parts) + "\n"


def csv_rows(summary: AblationSummary) -> list[dict[str, Any]]:
    """The table as plain values: our scores as fractions with bounds, published columns as printed.

    A column is named as the key of `metrics.json`, without the split.
    """
    names = ["accuracy", "binary_accuracy", "macro_f1"]
    classes = reversed(summary.labels.names) if summary.labels else ()
    names += [f"{name}_{score}" for name in classes for score in CSV_CLASS_SCORES]
    keys = [f"{summary.split}/{name}" for name in names] + [
        metric.ours for metric in summary.metrics.values() if metric.ours
    ]
    return [_csv_row(summary, row, tuple(dict.fromkeys(keys))) for row in summary.rows]


def item_rows(summary: AblationSummary) -> list[dict[str, Any]]:
    """The values that the paired tests rest on: a line per metric and clip, a column per row and seed."""
    lines = []
    for key, values in summary.values.items():
        for index, (clip, video) in enumerate(zip(values.clips, values.source_videos, strict=True)):
            line: dict[str, Any] = {"metric": key, "clip": clip, "source_video": video}
            for name, row in values.rows.items():
                for seed, value in zip(values.seeds[name], row.values_SN[:, index], strict=True):
                    line[f"{name}; seed {seed}"] = f"{value:.4g}"
            lines.append(line)
    return lines


def drawn_metrics(summary: AblationSummary) -> list[tuple[Metric, Figure]]:
    """The judged metrics of all rows, ours with intervals and the published ones beside them; accuracy if none is."""
    drawn = []
    for column in summary.table.judged if summary.table else [ACCURACY.name]:
        metric = summary.metrics[column]
        scores = [(row.scores or {}).get(metric.ours or "") for row in summary.rows]
        ours = [
            None if s is None else tuple(metric.scale * part for part in (s.value, s.interval.low, s.interval.high))
            for s in scores
        ]
        published = [(row.published or {}).get(column) for row in summary.rows]
        if any(value is not None for value in (*ours, *published)):
            names = [row.name for row in summary.rows]
            drawn.append((metric, figures.metric_figure(names, ours, published, metric.title, metric.unit)))
    return drawn


def _csv_row(summary: AblationSummary, row: AblationRow, keys: Sequence[str]) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for key in summary.axis:
        cells[key] = row.values.get(key)
        cells[f"paper_{key}"] = row.paper_values.get(key)
    status = "done" if row.scores else "failed" if row.errors else "not run"
    cells |= {"split": summary.split, "status": status, "n": row.num_clips * row.num_seeds, "num_clips": row.num_clips}
    cells |= {"num_seeds": row.num_seeds, "parse_failure_count": row.num_unread if row.scores else None}
    for key in keys:
        score, name = (row.scores or {}).get(key), key.removeprefix(f"{summary.split}/")
        cells[name] = score.value if score else None
        cells[f"{name}_ci_low"] = score.interval.low if score else None
        cells[f"{name}_ci_high"] = score.interval.high if score else None
    main = (row.scores or {}).get(f"{summary.split}/accuracy")
    cells["seed_accuracies"] = " ".join(f"{value:.4f}" for value in main.by_seed) if main else ""
    if summary.table:
        cells |= {f"published_{column}": (row.published or {}).get(column) for column in summary.table.metrics}
    return cells | {"error": "; ".join(row.errors)}


def _write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)


def _to_html(summary: AblationSummary) -> str:
    drawn = [(metric.name, pages.inline_png(figures.to_png(figure))) for metric, figure in drawn_metrics(summary)]
    return pages.render(
        "ablation.html.j2",
        title=caption(summary),
        tables=[
            ("", header(summary), [row_cells(summary, row) for row in summary.rows]),
            ("Verdicts", STEP_HEADER, step_cells(summary)),
            ("All pairs of our rows", PAIR_HEADER, pair_cells(summary)),
        ],
        remarks=remarks(summary)[1 if summary.verdict else 0 :],
        verdict=summary.verdict,
        pictures=drawn,
    )


def _markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [_markdown_line(titles), "|" + " --- |" * len(titles)]
    return "\n".join(lines + [_markdown_line(row) for row in rows])


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _markdown_remarks(lines: Sequence[str]) -> str:
    """Paragraphs, with list items kept together under the line before them."""
    text = ""
    for line in lines:
        text += ("\n" if line.startswith("- ") else "\n\n") + line.replace("* ", "\\* ", 1 if line[:2] == "* " else 0)
    return text.strip()
