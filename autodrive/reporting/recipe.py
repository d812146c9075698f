"""What a run would teach and ask, in tables, beside the training data that VLM-AutoDrive prints."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from rich.console import Console

from autodrive.ablation.published import PublishedTable, load_published
from autodrive.mixture.epoch import NO_CLASS, EpochPlan, Portion
from autodrive.mixture.run_data import RunData
from autodrive.reporting.terminal import DASH, print_table

TABLE_1 = "autodrive/table1_data_mixture"
SOURCES_FILE = Path(__file__).with_name("table1_sources.yaml")


def print_recipe(data: RunData) -> None:
    """Print what an epoch teaches by source, task and class, beside Table 1, and what is asked; no video is read.

    Args:
        data: Clips and annotations; without a plan, as an evaluation has none, only what is asked is told.
    """
    console = Console()
    if data.plan is not None:
        classes = [*reversed(data.labels.names), NO_CLASS]
        classes = [name for name in classes if any(portion.label == name for portion in data.plan.counts)]
        num_visits, num_clips = len(data.plan.visits), len(data.plan.visits_of_clip)
        title = f"taught in an epoch: {num_visits:,} visits of {num_clips:,} clips"
        print_table(title, ("source", "task", *classes, "all"), taught_rows(data.plan, classes), console)
        by_class = " / ".join(classes)
        header = ("Table 1 of VLM-AutoDrive", "printed", "ours", f"printed: {by_class}", "ours")
        once_more = data.mixture.balance.once_more
        table = load_published().table(TABLE_1)
        print_table("beside the paper's", header, rows_beside_table_1(table, data.plan, classes, once_more), console)
        console.print(table.notes[0], highlight=False)
    print_table("asked", ("split", "task", "questions"), asked_rows(data), console)
    for line in data.lines():
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def taught_rows(plan: EpochPlan, classes: Sequence[str]) -> list[list[str]]:
    """Each source and task with its count of every class, and all together."""
    pairs = sorted({(portion.source, portion.task) for portion in plan.counts})
    counted = [[plan.counts.get(Portion(*pair, name), 0) for name in classes] for pair in pairs]
    rows = [[*pair, *_cells([*counts, sum(counts)])] for pair, counts in zip(pairs, counted, strict=True)]
    totals = [sum(column) for column in zip(*counted, strict=True)]
    return [*rows, ["all", "", *_cells([*totals, sum(totals)])]]


def rows_beside_table_1(
    table: PublishedTable, plan: EpochPlan, classes: Sequence[str], once_more: bool
) -> list[list[str]]:
    """Each printed row with ours, then sources of ours that the table does not have, then the totals.

    Args:
        table: The paper's.
        plan: What an epoch teaches.
        classes: The classes in the order in which their counts are shown.
        once_more: Whether every clip is visited once more beside its upsampled visits, as the printed total counts it.
    """
    source_of_row: dict[str, str] = yaml.safe_load(SOURCES_FILE.read_text(encoding="utf-8"))
    ours = {source: Counter[str]() for source in source_of_row.values()}
    for portion, count in plan.counts.items():
        ours.setdefault(portion.source, Counter())[portion.label] += count
    rows, printed_total, shown = [], 0, set[str]()
    for row in table.rows:
        source = source_of_row[row["annotations_of"]]
        counts = ours[source]
        if source not in shown and list(source_of_row.values()).count(source) > 1:
            counts = Counter(plan.balanced.unique_clips if once_more else {})
            ours[source] = ours[source] - counts
        shown.add(source)
        printed = {label: row[f"{label}_annotations"] for label in classes if f"{label}_annotations" in row}
        cells = [_number(row["annotations"]), _number(counts.total()), _by_class(printed, classes)]
        rows.append([row["name"], *cells, _by_class(counts, classes)])
        printed_total += row["annotations"]
    rows += [
        [source, DASH, _number(counts.total()), DASH, _by_class(counts, classes)]
        for source, counts in ours.items()
        if source not in shown
    ]
    return [*rows, ["all", _number(printed_total), _number(sum(plan.counts.values())), "", ""]]


def asked_rows(data: RunData) -> list[list[str]]:
    """How many questions of each task are asked of the clips of each split but train, and of retention."""
    asked = {split: data.clips[split] for split in ("val", "test")} | {"retention": data.retention}
    rows = []
    for name, clips in asked.items():
        counts = Counter(question.task for clip in clips for _, question in clip.questions())
        rows += [[name, task, _number(count)] for task, count in counts.items()]
    return rows


def _by_class(counts: Mapping[str, int], classes: Sequence[str]) -> str:
    return " / ".join(_number(counts.get(name, 0)) for name in classes) if any(counts.values()) else DASH


def _cells(counts: Sequence[int]) -> list[str]:
    return [_number(count) for count in counts]


def _number(count: int) -> str:
    return f"{count:,}" if count else DASH
