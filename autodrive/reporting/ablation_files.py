"""Writes an ablation table as Markdown, CSV and one self-contained web page, and prints it."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from autodrive.evaluation.intervals import PairedComparison, wilson_interval
from autodrive.reporting import figures, pages, terminal
from autodrive.reporting.ablation import AblationSummary, summarise
from autodrive.reporting.published import PublishedTable, load_published, same_value
from autodrive.reporting.rows import AblationRow, format_value
from autodrive.runs.folder import RunFolder, find_runs

CSV_SCORES = ("precision", "recall", "f1")
DASH = "–"  # noqa: RUF001 - a dash for people: no value


def write_ablation(sweep_dir: Path, table: str | None = None) -> AblationSummary:
    """Write `ablation.md`, `ablation.csv` and `ablation.html` into a sweep folder.

    Args:
        sweep_dir: holds one run folder a job.
        table: id of the published table to stand beside; found by the swept keys and values if None.

    Raises:
        InputError: the folder holds no run, there is no such table, or the runs use different label sets.
    """
    return write_tables(find_runs([sweep_dir]), sweep_dir, table)


def write_tables(runs: Sequence[RunFolder], out: Path, table: str | None = None) -> AblationSummary:
    """As `write_ablation`, for any runs, into any folder."""
    summary = summarise(runs, load_published(), table, np.random.default_rng(0))
    out.mkdir(parents=True, exist_ok=True)
    (out / "ablation.md").write_text(to_markdown(summary), encoding="utf-8")
    _write_csv(summary, out / "ablation.csv")
    (out / "ablation.html").write_text(_to_html(summary), encoding="utf-8")
    return summary


def print_ablation(summary: AblationSummary, console: Console) -> None:
    """Print the table, the paired tests and the remarks."""
    terminal.print_table(summary.title, header(summary), [row_cells(summary, row) for row in summary.rows], console)
    for remark in remarks(summary):
        console.print(remark, highlight=False, markup=False)


def header(summary: AblationSummary) -> list[str]:
    """Column titles of the table for people."""
    titles = list(summary.axis)
    titles += [f"{short} F1" for short in summary.class_names.values()] + ["accuracy, %", "N"]
    if summary.table is None:
        return titles
    shorts = " / ".join(summary.class_names.values())
    return [*titles, f"published F1 ({shorts})" if shorts else "published F1", "published accuracy, %"]


def row_cells(summary: AblationSummary, row: AblationRow) -> list[str]:
    """One row of the table for people, as text."""
    cells = [_axis_cell(row, key) for key in summary.axis]
    if row.scores:
        cells += [_score_text(row, f"{name}_f1", 1, 2) for name in summary.class_names]
        cells += [_accuracy_text(row), _n_text(row)]
    else:
        reason = f"failed ({row.errors[0]})" if row.errors else "not run"
        cells += [DASH] * len(summary.class_names) + [reason, "0"]
    return cells + (_published_cells(summary, row) if summary.table else [])


def comparison_cells(summary: AblationSummary) -> list[list[str]]:
    """Paired tests as text: rows, difference with interval, clips that differ, p, smallest detectable difference."""
    return [
        [
            f"{c.a} → {c.b}",
            _points_text(c.result),
            f"{c.result.num_a_better} / {c.result.num_b_better}",
            f"{c.result.p_value:.2g}",
            f"{100 * c.result.smallest_detectable:.1f}",
        ]
        for c in summary.comparisons
    ]


COMPARISON_HEADER = (
    "rows",
    "change of accuracy, points",
    "clips where first / second is better",
    "p, sign test",
    "smallest difference found with 80 % power, points",
)


def remarks(summary: AblationSummary) -> list[str]:
    """What a reader must know before comparing: verdict, N, clips left out, failures, what is not comparable."""
    lines = [summary.verdict.sentence] if summary.verdict else []
    if not summary.table:
        lines.append("No published table sweeps these keys; the rows are ours only.")
    lines.append(_basis(summary))
    for reason, count in summary.left_out.items():
        lines.append(f"Left out of the comparison: {count} clips ({reason}).")
    if summary.num_failed:
        lines.append(f"{summary.num_failed} of {summary.num_runs} jobs failed:")
        lines += [f"- {row.name}: {error}" for row in summary.rows for error in row.errors]
    if summary.not_comparable:
        lines.append("Not comparable with the published numbers:")
        lines += [f"- {reason}" for reason in summary.not_comparable]
    return lines + (_published_remarks(summary, summary.table) if summary.table else [])


def to_markdown(summary: AblationSummary) -> str:
    """The whole report as Markdown."""
    parts = [f"# {summary.title}", _markdown_table(header(summary), [row_cells(summary, r) for r in summary.rows])]
    if summary.comparisons:
        parts += ["## Paired tests", _markdown_table(COMPARISON_HEADER, comparison_cells(summary))]
    parts += ["## How to read this", _markdown_remarks(remarks(summary))]
    return "\n\n".join(parts) + "\n"


def csv_rows(summary: AblationSummary) -> list[dict[str, Any]]:
    """The table as plain values: our scores as fractions with bounds, published columns as printed."""
    return [_csv_row(summary, row) for row in summary.rows]


def _csv_row(summary: AblationSummary, row: AblationRow) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for key in summary.axis:
        cells[key] = row.values.get(key)
        cells[f"paper_{key}"] = row.paper_values.get(key)
    status = "done" if row.scores else "failed" if row.errors else "not run"
    cells |= {"status": status, "n": row.num_clips * row.num_seeds, "num_clips": row.num_clips}
    cells |= {"num_seeds": row.num_seeds, "parse_failure_count": row.num_unread if row.scores else None}
    names = ["accuracy", "binary_accuracy", "macro_f1"]
    names += [f"{name}_{score}" for name in summary.class_names for score in CSV_SCORES]
    for name in names:
        score = row.scores[name] if row.scores else None
        cells[name] = score.value if score else None
        cells[f"{name}_ci_low"] = score.interval.low if score else None
        cells[f"{name}_ci_high"] = score.interval.high if score else None
    cells["seed_accuracies"] = " ".join(f"{value:.4f}" for value in row.seed_accuracies)
    if summary.table:
        columns = dict.fromkeys(
            key for printed in summary.table.rows for key in printed if key not in summary.table.axis
        )
        cells |= {f"published_{column}": (row.published or {}).get(column) for column in columns}
    return cells | {"error": "; ".join(row.errors)}


def _write_csv(summary: AblationSummary, path: Path) -> None:
    rows = csv_rows(summary)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _to_html(summary: AblationSummary) -> str:
    column = summary.table.accuracy_column if summary.table else "accuracy"
    accuracies = [row.scores["accuracy"] if row.scores else None for row in summary.rows]
    figure = figures.accuracy_figure(
        [row.name for row in summary.rows],
        [(s.value, s.interval.low, s.interval.high) if s else None for s in accuracies],
        [(row.published or {}).get(column) for row in summary.rows],
    )
    return pages.render(
        "ablation.html.j2",
        title=summary.title,
        header=header(summary),
        rows=[row_cells(summary, row) for row in summary.rows],
        comparison_header=COMPARISON_HEADER,
        comparisons=comparison_cells(summary),
        remarks=remarks(summary),
        verdict=summary.verdict,
        picture=pages.inline_png(figures.to_png(figure)),
    )


def _points_text(result: PairedComparison) -> str:
    low, high = 100 * result.interval.low, 100 * result.interval.high
    return f"{100 * result.difference:+.1f} [{low:+.1f}, {high:+.1f}]"


def _axis_cell(row: AblationRow, key: str) -> str:
    value, paper = row.values.get(key), row.paper_values.get(key)
    if same_value(value, paper):
        return format_value(value)
    return f"{format_value(value)} (paper {format_value(paper)})"


def _score_text(row: AblationRow, name: str, factor: float, bound_decimals: int) -> str:
    score = (row.scores or {})[name]
    low, high = factor * score.interval.low, factor * score.interval.high
    return f"{factor * score.value:.{bound_decimals + 1}f} [{low:.{bound_decimals}f}, {high:.{bound_decimals}f}]"


def _accuracy_text(row: AblationRow) -> str:
    text = _score_text(row, "accuracy", 100, 1)
    if row.num_seeds > 1:
        text += f"; seeds {100 * min(row.seed_accuracies):.1f} to {100 * max(row.seed_accuracies):.1f}"
    return text


def _n_text(row: AblationRow) -> str:
    seeds = f"{row.num_seeds} seeds" if row.num_seeds > 1 else "1 seed"
    return f"{row.num_clips * row.num_seeds} ({row.num_clips} x {seeds})"


def _published_cells(summary: AblationSummary, row: AblationRow) -> list[str]:
    if row.published is None or summary.table is None:
        return [DASH, DASH]
    f1_values = [row.published.get(f"{name}_f1") for name in summary.class_names]
    f1_text = " / ".join(DASH if value is None else f"{value:.3f}" for value in f1_values)
    accuracy = row.published.get(summary.table.accuracy_column)
    marked = any(
        all(same_value(row.published[key], value) for key, value in cell.row.items()) for cell in summary.table.unusable
    )
    return [f1_text, (DASH if accuracy is None else f"{accuracy:.2f}") + (" *" if marked else "")]


def _basis(summary: AblationSummary) -> str:
    text = (
        "Scores are means over seeds; N is clips times seeds; 95 % intervals resample source videos and, where a row "
        "has several, seeds; they are not adjusted for the number of comparisons. p is an exact sign test over clips "
        "(McNemar's test with one seed), which takes clips as independent, so the interval decides. "
    )
    if summary.num_shared_clips:
        return text + f"All rows are scored on the {summary.num_shared_clips} clips that every finished run answered."
    if summary.num_runs > summary.num_failed:
        return text + "The runs share no clips, so each row is scored on its own and there are no paired tests."
    return "No run finished, so there is nothing of ours to compare."


def _published_remarks(summary: AblationSummary, table: PublishedTable) -> list[str]:
    accuracies = [float(v) for row in table.rows if (v := row.get(table.accuracy_column)) is not None]
    middle = sum(accuracies) / len(accuracies) / 100
    total = summary.num_published_clips
    interval = wilson_interval(middle * total, total)
    half_width = 100 * (interval.high - interval.low) / 2
    lines = [f"A published accuracy rests on {total} clips: its own 95 % interval is about ±{half_width:.0f} points."]
    for cell in table.unusable:
        lines.append(f"* {', '.join(map(str, cell.row.values()))}, {', '.join(cell.columns)}: {cell.why}.")
    return lines + [f"About the published table: {note}" for note in table.notes]


def _markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _markdown_remarks(lines: Sequence[str]) -> str:
    """Paragraphs, with list items kept together under the line before them."""
    text = ""
    for line in lines:
        text += ("\n" if line.startswith("- ") else "\n\n") + line
    return text.strip()
