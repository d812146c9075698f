"""Whether a published ordering is seen in our rows: one plain sentence, never stronger than the evidence."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from autodrive.evaluation.intervals import PairedComparison
from autodrive.reporting.published import PublishedTable
from autodrive.reporting.rows import AblationRow, RowComparison

Outcome = Literal["seen", "contradicted", "unresolved"]


@dataclass(frozen=True)
class OrderingVerdict:
    """The judgement on a published ordering.

    Attributes:
        outcome: `seen` if every step of the published order is; `contradicted` if any is reversed.
        sentence: the outcome and what it rests on, in plain words.
    """

    outcome: Outcome
    sentence: str


@dataclass(frozen=True)
class _Step:
    outcome: Outcome
    text: str


def judge_ordering(
    table: PublishedTable, rows: Sequence[AblationRow], comparisons: Sequence[RowComparison]
) -> OrderingVerdict | None:
    """Compare the order of the published accuracies with ours.

    A step from one published accuracy to the next higher one is seen if our difference has the same sign and its
    interval leaves out 0, contradicted if it is reversed in that sense, and unresolved otherwise.

    Returns:
        None if fewer than two of our finished rows have a published accuracy, or all of these are equal.
    """
    column = table.accuracy_column
    ours = [row for row in rows if row.scores and row.published and row.published.get(column) is not None]
    ordered = sorted(ours, key=lambda row: _printed(row, column))
    pairs = [(a, b) for a, b in pairwise(ordered) if _printed(a, column) < _printed(b, column)]
    by_names = {(c.a, c.b): (c.result, 1) for c in comparisons} | {(c.b, c.a): (c.result, -1) for c in comparisons}
    steps = [_judge_step(a, b, *by_names[a.name, b.name]) for a, b in pairs if (a.name, b.name) in by_names]
    if not steps:
        return None
    outcomes = {step.outcome for step in steps}
    outcome: Outcome = "unresolved"
    if "contradicted" in outcomes:
        outcome = "contradicted"
    elif outcomes == {"seen"}:
        outcome = "seen"
    order = " < ".join(row.name for row in ordered)
    lead = f"The published order of accuracy ({order}) is {_WORDS[outcome]}: " + "; ".join(s.text for s in steps) + "."
    if all(row.num_seeds == 1 for row in ordered):
        lead += " With one seed a row, the intervals do not cover what another training run would change."
    return OrderingVerdict(outcome, lead)


_WORDS = {"seen": "seen here", "contradicted": "contradicted here", "unresolved": "not fully resolved at this N"}


def _printed(row: AblationRow, column: str) -> float:
    return float((row.published or {})[column])


def _judge_step(a: AblationRow, b: AblationRow, result: PairedComparison, sign: int) -> _Step:
    difference = sign * result.difference
    low, high = sorted((sign * result.interval.low, sign * result.interval.high))
    measured = (
        f"{a.name} to {b.name} changes accuracy by {100 * difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
    )
    if low > 0:
        return _Step("seen", f"{measured}, as published")
    if high < 0:
        return _Step("contradicted", f"{measured}, against the published order")
    smallest = 100 * result.smallest_detectable
    return _Step(
        "unresolved",
        f"{measured}, unresolved on {result.num_clips} clips (smallest difference found with 80 % power: "
        f"{smallest:.1f} points)",
    )
