"""Pictures for reports: small, readable, safe for colour-blind readers, drawn without a display."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from autodrive.reporting.terminal import DASH

# Okabe and Ito's palette: distinct in all common kinds of colour blindness.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#666666"
_FONT = 10


def confusion_figure(confusion: NDArray[np.float64], class_names: Sequence[str]) -> Figure:
    """A confusion matrix: true class by row, reply by column, counts and shares of the row in every cell.

    Args:
        confusion: (C, C + 1) counts, the last column replies that could not be read; it is shown only if not empty.
        class_names: Short names in the order of the rows.
    """
    shown = confusion if confusion[:, -1].any() else confusion[:, :-1]
    shares = shown / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    figure = _figure(1.3 + 0.95 * shown.shape[1], 1.1 + 0.75 * len(shown))
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(shown):
        text = f"{count:.0f}\n{100 * shares[row, column]:.0f} %"
        colour = "white" if shares[row, column] > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=_FONT)
    columns = [*class_names, "unread"][: shown.shape[1]]
    axes.set_xticks(range(len(columns)), columns, fontsize=_FONT)
    axes.set_yticks(range(len(class_names)), class_names, fontsize=_FONT)
    axes.set_xlabel("reply", fontsize=_FONT)
    axes.set_ylabel("truth", fontsize=_FONT)
    axes.tick_params(length=0)
    return figure


def loss_figure(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Loss against optimiser step, one line per curve name (`steps, losses`); at most three are told apart."""
    figure = _figure(5.2, 2.6)
    axes = figure.subplots()
    for (name, (steps, losses)), colour, style in zip(
        curves.items(), (BLUE, ORANGE, GREEN), ("-", "--", ":"), strict=False
    ):
        marker = "o" if len(steps) < 30 else None
        axes.plot(steps, losses, style, color=colour, label=name, linewidth=1.5, marker=marker, markersize=3)
    axes.set_xlabel("optimiser step", fontsize=_FONT)
    axes.set_ylabel("loss", fontsize=_FONT)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=_FONT - 1, frameon=False)
    _plain(axes)
    return figure


def f1_figure(metrics: Mapping[str, float], class_names: Mapping[str, str], prefix: str = "test") -> Figure:
    """F1 of each class as bars with 95 % intervals; `class_names` maps canonical to short names.

    A class whose F1 does not exist has a dash in the place of its bar.
    """
    names = list(class_names)
    values, *bounds = (
        np.array([metrics.get(f"{prefix}/{name}_f1{end}", np.nan) for name in names])
        for end in ("", "_ci_low", "_ci_high")
    )
    errors = np.abs(np.array(bounds) - values)
    figure = _figure(1.2 + 0.95 * len(names), 2.6)
    axes = figure.subplots()
    axes.bar(range(len(names)), values, color=BLUE, width=0.6, yerr=errors, capsize=4, ecolor="black")
    for position, value in enumerate(values):
        text, colour = DASH if np.isnan(value) else f"{value:.2f}", "white" if value > 0.15 else "black"
        axes.text(position, 0.02, text, ha="center", va="bottom", color=colour, fontsize=_FONT)
    axes.set_xticks(range(len(names)), list(class_names.values()), fontsize=_FONT)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("F1", fontsize=_FONT)
    _plain(axes)
    return figure


def metric_figure(
    names: Sequence[str],
    ours: Sequence[tuple[float, ...] | None],
    published: Sequence[float | None],
    title: str,
    unit: str,
) -> Figure:
    """One metric of a table's rows: ours as dots with intervals, the published figure as a diamond.

    Args:
        names: Name of each row.
        ours: Value, low and high of each row in the metric's unit; None where there is none.
        published: The printed figure of each row; None where there is none.
        title: Name of the metric.
        unit: Unit of the metric; percentages and fractions are drawn on their whole scale.
    """
    figure = _figure(5.2, 1.1 + 0.42 * len(names))
    axes = figure.subplots()
    measured = [(row - 0.1, *mine) for row, mine in enumerate(ours) if mine is not None]
    if measured:
        heights, values, lows, highs = np.array(measured).T
        errors = [values - lows, highs - values]
        axes.errorbar(values, heights, xerr=errors, fmt="o", color=BLUE, capsize=3, label="ours, 95 % interval")
    printed = [(row + 0.12, value) for row, value in enumerate(published) if value is not None]
    if printed:
        heights, values = np.array(printed).T
        axes.plot(values, heights, "D", color=ORANGE, markerfacecolor="none", label="published")
    axes.set_yticks(range(len(names)), names, fontsize=_FONT)
    axes.set_ylim(len(names) - 0.5, -0.5)
    whole = {"percent": 100, "fraction": 1}.get(unit)
    if whole:
        axes.set_xlim(0, whole)
    axes.set_xlabel(title, fontsize=_FONT)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(fontsize=_FONT - 1, loc="outside upper center", ncols=2, frameon=False)
    _plain(axes)
    return figure


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    """The figure as PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def _figure(width_inches: float, height_inches: float) -> Figure:
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _plain(axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=_FONT - 1)
