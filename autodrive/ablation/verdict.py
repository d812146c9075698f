"""Whether a published order is seen in our rows: a judgement for each step of it, never stronger than the evidence."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from autodrive.ablation.published import TEST_SPLIT, Metric, PublishedTable
from autodrive.ablation.rows import AblationRow, ClipValues
from autodrive.evaluation.paired_test import LEVEL, PairedTest, corrected
from autodrive.labels import LabelSet

Outcome = Literal["seen", "contradicted", "unresolved", "not comparable", "not run"]


@dataclass(frozen=True)
class Step:
    """One step of a published order, from a worse row to the next better one, or rows that cannot take part.

    Attributes:
        metric: The metric that is judged.
        rows: Names of the two rows of a step, or of the rows that cannot take part; empty if none of them can.
        published: The printed figures of the rows of a step.
        outcome: The judgement on this step.
        why: Why there is no test, or why there is no judgement; empty if there is one.
        test: Our paired test, first row to second.
        p_value: Corrected for the number of steps tested in the table.
    """

    metric: Metric
    rows: tuple[str, ...]
    published: tuple[float, ...]
    outcome: Outcome
    why: str = ""
    test: PairedTest | None = None
    p_value: float | None = None

    @property
    def sentence(self) -> str:
        """The judgement and what it rests on."""
        text = f"{self.metric.name}, {' to '.join(self.rows)}: {self.judgement}"
        if self.test is not None:
            text += f", {difference_text(self.test, self.metric)}"
            if self.p_value is not None and self.test.smallest_detectable is not None:
                text += f", p = {self.p_value:.2g}"
                if self.outcome == "unresolved":
                    smallest = self.metric.scale * self.test.smallest_detectable
                    text += f", smallest difference found with 80 % power {smallest:.{decimals(self.metric)}f}"
        return text

    @property
    def judgement(self) -> str:
        """The outcome, with the reason where there is no test."""
        return self.outcome + (f" ({self.why})" if self.why else "")


@dataclass(frozen=True)
class Verdict:
    """The judgement on a published table.

    Attributes:
        outcome: `contradicted` if any step is; `seen` if every step that was tested is; `unresolved` if any is;
            otherwise why no step was tested.
        steps: The judgement on each step.
    """

    outcome: Outcome
    steps: tuple[Step, ...]

    @property
    def sentence(self) -> str:
        """The whole judgement in one paragraph."""
        told = [step.sentence for step in self.steps if step.test is not None]
        if not told:
            why = "nothing of ours is comparable with it" if self.outcome == "not comparable" else "it was not run"
            return f"The published order is not judged: {why}."
        found = {"unresolved": "not fully resolved"}.get(self.outcome, self.outcome)
        text = f"The published order is {found} here: {'; '.join(told)}."
        skipped = [step for step in self.steps if step.outcome == "not run"]
        names = [name for step in skipped for name in step.rows or (f"every row of {step.metric.name}",)]
        return text + (f" Not run: {'; '.join(dict.fromkeys(names))}." if names else "")


def judge(
    table: PublishedTable,
    rows: Sequence[AblationRow],
    values: Mapping[str, ClipValues],
    labels: LabelSet | None,
    split: str,
) -> Verdict | None:
    """Compare the published order of each judged column with ours.

    A step is seen or contradicted if the paired test, corrected for the number of steps tested in the table, finds a
    difference in the published direction or against it. Rows that were trained need two seeds each for that.

    Args:
        table: The published table whose order is judged.
        rows: Ours, and those that only the paper has.
        values: Metric key to our values clip by clip.
        labels: Our classes; None if nothing of ours finished.
        split: The split that ours were evaluated on; scores of another one than test are not judged.

    Returns:
        None if the table has no column whose order means anything.
    """
    steps = [step for column in table.judged for step in _steps(table, column, rows, values, labels, split)]
    if not steps:
        return None
    p_values = iter(corrected([step.test for step in steps if step.test is not None]))
    steps = [step if step.test is None else _judged(step, step.test, next(p_values)) for step in steps]
    outcomes = {step.outcome for step in steps}
    order: tuple[Outcome, ...] = ("contradicted", "unresolved", "seen", "not run", "not comparable")
    return Verdict(next(outcome for outcome in order if outcome in outcomes), tuple(steps))


def difference_text(test: PairedTest, metric: Metric) -> str:
    """A difference with its interval in the metric's unit, such as `+3.0 points [-1.0, +7.0]`."""
    digits, scale = decimals(metric), metric.scale
    unit = " points" if metric.unit == "percent" else ""
    text = f"{scale * test.difference:+.{digits}f}{unit}"
    if test.low is None or test.high is None:
        return text
    return f"{text} [{scale * test.low:+.{digits}f}, {scale * test.high:+.{digits}f}]"


def decimals(metric: Metric) -> int:
    """Digits that differences and bounds of a metric deserve."""
    return 1 if metric.unit == "percent" else 2


def _steps(
    table: PublishedTable,
    column: str,
    rows: Sequence[AblationRow],
    values: Mapping[str, ClipValues],
    labels: LabelSet | None,
    split: str,
) -> Iterator[Step]:
    metric = table.metrics[column].on_split(split)
    why_not = metric.why_not
    if split != TEST_SPLIT:
        why_not = why_not or f"ours is split={split}"
    if metric.over_classes and labels and table.test_set.classes and set(labels.names) != set(table.test_set.classes):
        why_not = f"ours has the classes {', '.join(labels.names)}, theirs {', '.join(table.test_set.classes)}"
    if metric.ours is None or why_not:
        yield Step(metric, (), (), "not comparable", why_not or "")
        return
    usable: list[tuple[float, AblationRow]] = []
    not_run: list[str] = []
    for row in rows:
        printed = (row.published or {}).get(column)
        if row.published is None or printed is None:
            continue
        unusable = table.why_unusable(row.published, column)
        if row.scores is None or metric.ours not in row.scores:
            not_run.append(row.name)
        elif unusable:
            yield Step(metric, (row.name,), (printed,), "not comparable", unusable)
        else:
            usable.append((printed, row))

    if not_run:
        yield Step(metric, tuple(not_run) if usable else (), (), "not run")

    # Rows of ours that differ in something the paper does not vary are judged apart.
    alike: dict[tuple[str, ...], list[tuple[float, AblationRow]]] = defaultdict(list)
    for printed, row in usable:
        alike[tuple(str(value) for key, value in row.values.items() if key not in table.axis)].append((printed, row))
    for group in alike.values():
        ordered = sorted(group, key=lambda pair: pair[0], reverse=metric.better == "lower")
        for (worse, a), (better, b) in pairwise(ordered):
            found = values.get(metric.ours)
            if worse == better:
                continue
            if found is None or not {a.name, b.name} <= set(found.rows):
                yield Step(
                    metric, (a.name, b.name), (worse, better), "not comparable", "no values clip by clip to pair"
                )
            else:
                test = found.test(a.name, b.name)
                yield Step(metric, (a.name, b.name), (worse, better), "unresolved", test.why_untested or "", test)


def _judged(step: Step, test: PairedTest, p_value: float | None) -> Step:
    if p_value is None or p_value >= LEVEL:
        return replace(step, p_value=p_value)
    as_published = (test.difference > 0) == (step.metric.better == "higher")
    return replace(step, p_value=p_value, outcome="seen" if as_published else "contradicted")
