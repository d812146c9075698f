"""Tables that people sort and filter, as plain rows: the clips of an evaluation, its confusion, its classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autodrive.evaluation.by_video import confusion_by_video
from autodrive.evaluation.classification import option_probabilities
from autodrive.labels import LabelSet
from autodrive.reporting.run_page import choose_cases
from autodrive.schema import Prediction

Cell = str | int | float | bool | None
FACTS = {"weather": "weather", "light": "light", "hazard": "scenario"}  # column to the key of a clip's metadata


@dataclass(frozen=True)
class Rows:
    """A table: names of its columns, and rows with a cell for each of them."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]


def by_interest(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The misclassified first, the kinds of mistake in turn, so that a limit on pictures leaves out the dull ones."""
    wrong = [p for p in predictions if p.parsed != p.answer]
    right = sorted((p for p in predictions if p.parsed == p.answer), key=lambda p: p.clip_id)
    return choose_cases(wrong, len(wrong)) + right


def clip_rows(predictions: Sequence[Prediction], labels: LabelSet, metadata: Mapping[str, Mapping[str, Any]]) -> Rows:
    """One row per prediction, in the given order.

    Args:
        predictions: Replies to questions about the class.
        labels: The run's classes.
        metadata: Clip id to what is known of the clip, such as its weather.
    """
    names = labels.names
    columns = ["clip", "right", "truth", "read", *(f"P({labels[name].short})" for name in names), *FACTS]
    columns += ["question", "reply", "mode", "source_video"]
    rows: list[list[Cell]] = []
    for p in predictions:
        options = p.option_classes or p.options
        shares = option_probabilities(options, p.option_log_probs, names) if p.option_log_probs else None
        known = metadata.get(p.clip_id, {})
        read = labels[p.parsed].short if p.parsed in names else f"unread ({p.failure})"
        row: list[Cell] = [p.clip_id, p.parsed == p.answer, labels[p.answer].short, read]
        row += [None] * len(names) if shares is None else [round(float(share), 4) for share in shares]
        row += [None if known.get(key) is None else str(known[key]) for key in FACTS.values()]
        rows.append([*row, p.question, p.reply, p.mode, p.source_video_id])
    return Rows(tuple(columns), rows)


def confusion_rows(predictions: Sequence[Prediction], labels: LabelSet) -> Rows:
    """Counts of truth and reply, under the column names that W&B's confusion matrix asks for."""
    counts = confusion_by_video(predictions, labels).sum(axis=0)
    shorts = [labels[name].short for name in labels.names]
    columns = [*shorts, "unread"] if counts[:, -1].any() else shorts
    cells = [
        [truth, read, int(counts[row, column])]
        for row, truth in enumerate(shorts)
        for column, read in enumerate(columns)
    ]
    return Rows(("Actual", "Predicted", "nPredictions"), cells)


def f1_rows(metrics: Mapping[str, float], labels: LabelSet, prefix: str) -> Rows:
    """F1 of each class with its 95 % interval, incidents first; a class without one is left out."""
    keys = [(labels[name].short, f"{prefix}/{name}_f1") for name in reversed(labels.names)]
    rows = [
        [short, metrics[key], metrics[f"{key}_ci_low"], metrics[f"{key}_ci_high"]]
        for short, key in keys
        if key in metrics
    ]
    return Rows(("class", "F1", "low", "high"), rows)
