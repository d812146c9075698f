"""An ablation table: our rows beside the published ones, with intervals, paired tests and a verdict.

Seeds are replicates within a row: a score is the mean over seeds, N is clips times seeds. Rows are compared on the
clips that all runs answered.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from autodrive.ablation import axes
from autodrive.ablation.answers import RunAnswers, common_labels, common_split
from autodrive.ablation.published import TEST_SPLIT, Metric, PublishedResults, PublishedTable
from autodrive.ablation.rows import AblationRow, ClipValues, clip_values, score_row
from autodrive.ablation.verdict import Verdict, judge
from autodrive.evaluation.paired_test import PairedTest, corrected
from autodrive.labels import LabelSet
from autodrive.runs.folder import RunFolder, Value

ACCURACY = Metric(name="accuracy", unit="percent", better="higher", decimals=2, ours=f"{TEST_SPLIT}/accuracy")


@dataclass(frozen=True)
class RowComparison:
    """A paired test between two of our rows.

    Attributes:
        metric: The metric that the rows are compared by.
        a: Name of the first row.
        b: Name of the second row.
        test: Paired test of the second row against the first.
        p_value: Corrected for the number of pairs; None if the pair cannot be tested.
    """

    metric: Metric
    a: str
    b: str
    test: PairedTest
    p_value: float | None


@dataclass(frozen=True)
class AblationSummary:
    """Everything that an ablation table shows.

    Attributes:
        axis: Keys that tell the rows apart.
        split: The split that all our runs were evaluated on.
        metrics: Column to metric: the published table's columns, then what only we have.
        rows: Printed rows in printed order, ours beside them, then ours that the paper does not have.
        comparisons: All pairs of our rows.
        values: Metric key to our values clip by clip.
        folded: Runs whose students were asked in other classes, and how their replies were folded into these.
        num_shared_clips: Clips that all finished runs answered; 0 if there are none, then each row stands on its own.
        left_out: Reason to number of clips that some but not all runs answered.
        verdict: On the published order; None without a published table or one whose order means nothing.
        not_comparable: Why our numbers cannot be read against the published ones, one sentence each.
    """

    title: str
    axis: tuple[str, ...]
    split: str
    metrics: Mapping[str, Metric]
    rows: tuple[AblationRow, ...]
    comparisons: tuple[RowComparison, ...]
    values: Mapping[str, ClipValues]
    labels: LabelSet | None
    folded: tuple[str, ...]
    num_shared_clips: int
    left_out: dict[str, int]
    verdict: Verdict | None
    not_comparable: tuple[str, ...]
    table: PublishedTable | None
    num_runs: int
    num_failed: int


def summarise(
    runs: Sequence[RunFolder], published: PublishedResults, table_id: str | None, rng: np.random.Generator
) -> AblationSummary:
    """Compute the table of these runs.

    Args:
        runs: All jobs, finished or not.
        published: The tables of all papers.
        table_id: The table to stand beside; if None, the one that sweeps the same keys and values, if any.
        rng: Draws the bootstrap resamples.

    Raises:
        InputError: There is no such table, or the runs use different label sets or splits.
    """
    keys = axes.swept_keys(runs)
    paper_values = {
        key: list(dict.fromkeys(axes.paper_value(run, key, run.value(key)) for run in runs)) for key in keys
    }
    table = published.table(table_id) if table_id else published.match(paper_values)
    axis = tuple(dict.fromkeys((*(table.axis if table else ()), *keys)))
    groups = axes.group_rows(runs, axis)
    read = [RunAnswers.read(run) for group in groups for run in group.finished]
    labels, split = common_labels(read), common_split(read)
    shared = set.intersection(*(run.clips for run in read)) if read else set()
    answers = {run.run.path: run.on(shared) if shared else run for run in read}

    metrics = table.metrics | {metric.name: metric for metric in table.beside} if table else _own_metrics(labels)
    metrics = {column: metric.on_split(split) for column, metric in metrics.items()}
    measured = [metric.ours for metric in metrics.values() if metric.ours]
    rows = [score_row(group, answers, labels, measured, rng) for group in groups]
    judged = {key: metrics[column] for column in (table.judged if table else ()) if (key := metrics[column].ours)}
    judged = judged or {f"{split}/accuracy": ACCURACY.on_split(split)}
    found = {key: clip_values(groups, rows, answers, key) for key in judged} if shared else {}
    values = {key: value for key, value in found.items() if value is not None}
    rows = _beside_published(rows, table)
    return AblationSummary(
        title=table.title
        if table
        else f"Sweep over {', '.join(axis) or ('seeds' if len(groups) < len(runs) else 'runs')}",
        axis=axis or ("run",),
        split=split,
        metrics=metrics,
        rows=tuple(rows),
        comparisons=_compare(judged, values),
        values=values,
        labels=labels,
        folded=tuple(f"{run.run.path.name}: {run.labels.remark}" for run in read if run.labels.folds),
        num_shared_clips=len(shared),
        left_out=_left_out(read, shared) if shared else {},
        verdict=judge(table, rows, values, labels, split) if table else None,
        not_comparable=_not_comparable([run.run for run in read], table, labels, split) if table else (),
        table=table,
        num_runs=len(runs),
        num_failed=sum(run.error is not None for run in runs),
    )


def _own_metrics(labels: LabelSet | None) -> dict[str, Metric]:
    """Columns of a table that no paper has: F1 of each class, incidents first, and the accuracy."""
    metrics: dict[str, Metric] = {}
    for label in reversed(labels.names) if labels else ():
        name = f"{labels[label].short} F1" if labels else label
        metrics[name] = Metric(name=name, unit="fraction", better="higher", decimals=3, ours=f"test/{label}_f1")
    return metrics | {ACCURACY.name: ACCURACY}


def _compare(judged: Mapping[str, Metric], values: Mapping[str, ClipValues]) -> tuple[RowComparison, ...]:
    pairs = [(key, a, b) for key in values for a, b in combinations(values[key].rows, 2)]
    tests = [values[key].test(a, b) for key, a, b in pairs]
    return tuple(
        RowComparison(judged[key], a, b, test, p_value)
        for (key, a, b), test, p_value in zip(pairs, tests, corrected(tests), strict=True)
    )


def _beside_published(rows: Sequence[AblationRow], table: PublishedTable | None) -> list[AblationRow]:
    """Our rows matched with printed ones; in the printed order first, then ours that the paper does not have."""
    if table is None:
        return sorted(rows, key=lambda row: [_sort_key(value) for value in row.values.values()])
    matched: dict[int, list[AblationRow]] = {index: [] for index in range(len(table.rows))}
    others: list[AblationRow] = []
    for row in rows:
        printed = table.row(row.paper_values)
        if printed is None:
            others.append(row)
        else:
            matched[table.rows.index(printed)].append(replace(row, published=printed))
    result: list[AblationRow] = []
    for index, printed in enumerate(table.rows):
        values = {key: printed.get(key) for key in table.axis}
        result += matched[index] or [AblationRow(values, values, published=printed)]
    return result + others


def _sort_key(value: Value) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))


def _left_out(read: Sequence[RunAnswers], shared: set[str]) -> dict[str, int]:
    reasons = {item.item: item.reason for run in read for item in run.run.dropped()}
    answered = set.union(*(run.clips for run in read))
    return dict(Counter(reasons.get(clip, "not answered by every run") for clip in answered - shared))


def _not_comparable(
    finished: Sequence[RunFolder], table: PublishedTable, labels: LabelSet | None, split: str
) -> tuple[str, ...]:
    reasons = [f"{metric.name}: {metric.why_not}." for metric in table.metrics.values() if metric.why_not]
    if not finished or labels is None:
        return tuple(reasons)

    def chosen(key: str) -> str:
        return " / ".join(dict.fromkeys(str(run.choices.get(key, "not recorded")) for run in finished))

    reasons = [
        f"Model: ours is student={chosen('student')}; the published model is {table.model}.",
        f"Data: ours is dataset={chosen('dataset')}; theirs is {table.test_set.description}.",
        *reasons,
    ]
    if split != TEST_SPLIT:
        reasons.insert(0, f"Split: ours is split={split}; published figures are scores of a test set.")
    if chosen("scale") != "paper":
        reasons.append(
            f"Scale: ours is scale={chosen('scale')}; values that stand in for the paper's are shown beside them."
        )
    if table.test_set.classes and set(labels.names) != set(table.test_set.classes):
        reasons.append(f"Classes: ours are {', '.join(labels.names)}, so accuracy is over another number of classes.")
    return tuple(reasons)
