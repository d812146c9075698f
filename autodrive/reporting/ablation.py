"""The heart of an ablation table: our rows beside the published ones, with intervals and paired tests.

Seeds are replicates within a row: a score is the mean over seeds, N is clips times seeds, and intervals resample source
videos and (where there are several) seeds. Rows are compared on the clips that all of them answered.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autodrive.errors import InputError
from autodrive.labels import LabelSet
from autodrive.reporting import sweep
from autodrive.reporting.published import PublishedResults, PublishedTable
from autodrive.reporting.rows import AblationRow, RowComparison, compare_rows, score_row
from autodrive.reporting.run_folder import RunFolder, Value
from autodrive.reporting.verdict import OrderingVerdict, judge_ordering
from autodrive.schema import Prediction


@dataclass(frozen=True)
class AblationSummary:
    """Everything that an ablation table shows.

    Attributes:
        axis: keys that tell the rows apart.
        class_names: canonical to short names, in the order of the columns, incidents first.
        num_shared_clips: clips that all finished runs answered; 0 if there are none, then each row stands on its own.
        left_out: reason to number of clips that some but not all runs answered.
        verdict: on the published ordering; None without a published table or with fewer than two rows of ours in it.
        not_comparable: why our numbers cannot be read against the published ones, one sentence each.
    """

    title: str
    axis: tuple[str, ...]
    class_names: dict[str, str]
    rows: tuple[AblationRow, ...]
    comparisons: tuple[RowComparison, ...]
    num_shared_clips: int
    left_out: dict[str, int]
    verdict: OrderingVerdict | None
    not_comparable: tuple[str, ...]
    table: PublishedTable | None
    num_published_clips: int
    num_runs: int
    num_failed: int


def summarise(
    runs: Sequence[RunFolder], published: PublishedResults, table_id: str | None, rng: np.random.Generator
) -> AblationSummary:
    """Compute the table of these runs.

    Args:
        runs: all jobs, finished or not.
        published: the paper's tables.
        table_id: which of them to stand beside; if None, the one that sweeps the same keys and values, if any.
        rng: draws the bootstrap resamples.

    Raises:
        InputError: there is no such table, or the runs use different label sets.
    """
    keys = sweep.swept_keys(runs)
    table = published.table(table_id) if table_id else published.match(_paper_values(runs, keys))
    axis = tuple(dict.fromkeys((*(table.axis if table else ()), *keys)))
    groups = sweep.group_rows(runs, axis)
    finished = [run for group in groups for run in group.finished]
    labels = _common_labels(finished)
    answers = {run.path: _headline(run) for run in finished}
    shared = set.intersection(*[{p.clip_id for p in a} for a in answers.values()]) if answers else set()
    if shared:
        answers = {path: [p for p in a if p.clip_id in shared] for path, a in answers.items()}
    rows = [score_row(group, answers, labels, rng) for group in groups]
    comparisons = compare_rows(groups, rows, answers, rng) if shared else []
    rows = _beside_published(rows, table)
    return AblationSummary(
        title=table.title if table else f"Sweep over {', '.join(axis) or 'runs'}",
        axis=axis or ("run",),
        class_names={name: labels[name].short for name in reversed(labels.names)} if labels else {},
        rows=tuple(rows),
        comparisons=tuple(comparisons),
        num_shared_clips=len(shared),
        left_out=_left_out(finished, shared) if shared else {},
        verdict=judge_ordering(table, rows, comparisons) if table else None,
        not_comparable=_not_comparable(finished, table, published, labels) if table else (),
        table=table,
        num_published_clips=published.test_set.num_clips,
        num_runs=len(runs),
        num_failed=sum(run.error is not None for run in runs),
    )


def _paper_values(runs: Sequence[RunFolder], keys: Sequence[str]) -> dict[str, list[Value]]:
    return {key: list(dict.fromkeys(sweep.paper_value(run, key, run.value(key)) for run in runs)) for key in keys}


def _common_labels(finished: Sequence[RunFolder]) -> LabelSet | None:
    sets = [run.labels() for run in finished]
    for other, run in zip(sets[1:], finished[1:], strict=True):
        if other.names != sets[0].names:
            raise InputError(
                f"{run.path}: its classes ({', '.join(other.names)}) differ from those of {finished[0].path} "
                f"({', '.join(sets[0].names)}); report runs of one label set together"
            )
    return sets[0] if sets else None


def _headline(run: RunFolder) -> list[Prediction]:
    chosen = [p for p in run.predictions() if p.mode == "direct" and p.task == run.headline_task()]
    if not chosen:
        raise InputError(
            f"{run.path / 'predictions.jsonl'}: holds no direct {run.headline_task()} reply; evaluate this run again"
        )
    return chosen


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
        values = {key: printed[key] for key in table.axis}
        result += matched[index] or [AblationRow(values, values, published=printed)]
    return result + others


def _sort_key(value: Value) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))


def _left_out(finished: Sequence[RunFolder], shared: set[str]) -> dict[str, int]:
    reasons: dict[str, str] = {}
    answered: set[str] = set()
    for run in finished:
        answered |= {p.clip_id for p in run.predictions() if p.task == run.headline_task() and p.mode == "direct"}
        reasons |= {item.item: item.reason for item in run.dropped()}
    return dict(Counter(reasons.get(clip, "not answered by every run") for clip in answered - shared))


def _not_comparable(
    finished: Sequence[RunFolder], table: PublishedTable, published: PublishedResults, labels: LabelSet | None
) -> tuple[str, ...]:
    if not finished or labels is None:
        return ()

    def chosen(key: str) -> str:
        return " / ".join(dict.fromkeys(str(run.choices.get(key, "not recorded")) for run in finished))

    reasons = [
        f"Model: ours is student={chosen('student')}; the published model is {table.model}.",
        f"Data: ours is dataset={chosen('dataset')}; theirs is {published.test_set.description}.",
    ]
    if chosen("scale") != "paper":
        reasons.append(
            f"Scale: ours is scale={chosen('scale')}; values that stand in for the paper's are shown beside them."
        )
    if set(labels.names) != {"normal", "near_collision", "collision"}:
        reasons.append(f"Classes: ours are {', '.join(labels.names)}, so accuracy is over another number of classes.")
    return tuple(reasons)
