"""The same tables in a terminal."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from autodrive.counted import counted
from autodrive.labels import LabelSet

_SCORES = ("precision", "recall", "f1")
DASH = "–"  # noqa: RUF001 - a dash for people: no value


def print_scores(metrics: Mapping[str, float], labels: LabelSet, console: Console, prefix: str = "test") -> None:
    """Print precision, recall and F1 of each class (incidents first) and the accuracies, with 95 % intervals."""
    num_clips, num_videos = metrics[f"{prefix}/n"], metrics[f"{prefix}/num_source_videos"]
    counts = f"{counted(num_clips, 'clip')} of {counted(num_videos, 'source video')}"
    title = f"{prefix.replace('_', ', ')}: {counts}, 95 % intervals"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for name in ("precision", "recall", "F1"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in reversed(labels.names):
        cells = [with_interval(metrics, f"{prefix}/{name}_{score}") for score in _SCORES]
        table.add_row(labels[name].short, *cells)
    console.print(table)
    console.print(f"accuracy         {with_interval(metrics, f'{prefix}/accuracy', percent=True)}", highlight=False)
    binary = with_interval(metrics, f"{prefix}/binary_accuracy", percent=True)
    console.print(f"binary accuracy  {binary}  (incident or not, collapsed from the classes)", highlight=False)
    failures = f"{metrics[f'{prefix}/parse_failure_count']:.0f} of {num_clips:.0f}, counted as wrong"
    console.print(f"unread replies   {failures}", highlight=False)
    precision = with_interval(metrics, f"{prefix}/average_precision")
    console.print(f"average precision of P(incident)  {precision}", highlight=False)
    if labels.folds:
        console.print(labels.remark, highlight=False, markup=False)


def print_confusion(confusion: NDArray[np.float64], labels: LabelSet, console: Console) -> None:
    """Print a (C, C + 1) confusion array; bold cells hold at least half of their row."""
    table = Table(title="truth by row, reply by column", title_justify="left", title_style="dim")
    table.add_column("")
    for name in labels.names:
        table.add_column(labels[name].short, justify="right")
    table.add_column("unread", justify="right")
    for name, row in zip(labels.names, confusion, strict=True):
        total = max(1.0, float(row.sum()))
        table.add_row(labels[name].short, *(_shaded(float(count), float(count) / total) for count in row))
    console.print(table)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> None:
    """Print cells that are already text."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def task_rows(metrics: Mapping[str, float], start: str) -> list[tuple[str, str]]:
    """The scores whose keys begin so and that have an interval; the rest of the key says what each is."""
    keys = [key for key in metrics if key.startswith(start) and f"{key}_ci_low" in metrics]
    return [
        (key.removeprefix(start).replace("_", " "), with_interval(metrics, key, percent=True)) for key in sorted(keys)
    ]


def with_interval(metrics: Mapping[str, float], key: str, percent: bool = False) -> str:
    """A score and its interval as text: `0.843 [0.77, 0.90]`, or `77.3 % [71.2, 83.3]`; a dash if it does not exist."""
    if key not in metrics:
        return DASH
    value, low, high = metrics[key], metrics[f"{key}_ci_low"], metrics[f"{key}_ci_high"]
    if percent:
        return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{value:.3f} [{low:.2f}, {high:.2f}]"


def _shaded(count: float, share: float) -> Text:
    style = "bold" if share >= 0.5 else "dim" if count == 0 else ""
    return Text(f"{count:.0f}", style=style)
