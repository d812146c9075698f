"""What a run would teach and ask, in tables, beside the training data that VLM-AutoDrive prints."""

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Console

from autodrive.ablation.published import load_published
from autodrive.mixture.epoch import NO_CLASS, EpochPlan
from autodrive.mixture.run_data import RunData
from autodrive.reporting.terminal import DASH, print_table

TABLE_1 = "autodrive/table1_data_mixture"
# Rows of Table 1, and the sources of conf/annotations/annotated.yaml that stand for them.
UNBALANCED, UPSAMPLED = "mcq_unbalanced", "mcq_upsampled"
SOURCE_OF_ROW = {
    UNBALANCED: "mcq",
    UPSAMPLED: "mcq",
    "detailed_caption": "caption",
    "gemini_caption": "vlm_caption",
    "vqa": "vqa",
    "av_reasoning": "av_reasoning",
    "mcq_reasoning": "reasoning_mcq",
    "vqa_reasoning": "reasoning_vqa",
}


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
        print_table("beside the paper's", header, rows_beside_table_1(data.plan, classes, once_more), console)
        console.print(load_published().table(TABLE_1).notes[0], highlight=False)
    print_table("asked", ("split", "task", "questions"), asked_rows(data), console)
    for line in data.lines():
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def taught_rows(plan: EpochPlan, classes: Sequence[str]) -> list[list[str]]:
    """Each source and task with its count of every class, and all together."""
    pairs = list(dict.fromkeys((portion.source, portion.task) for portion in plan.counts))
    counted = [[plan.counts.get((*pair, name), 0) for name in classes] for pair in sorted(pairs)]  # pyright: ignore
    rows = [[*pair, *_cells([*counts, sum(counts)])] for pair, counts in zip(sorted(pairs), counted, strict=True)]
    totals = [sum(column) for column in zip(*counted, strict=True)]
    return [*rows, ["all", "", *_cells([*totals, sum(totals)])]]


def rows_beside_table_1(plan: EpochPlan, classes: Sequence[str], once_more: bool) -> list[list[str]]:
    """Each printed row with ours, then sources of ours that the table does not have, then the totals.

    Args:
        plan: What an epoch teaches.
        classes: The classes in the order in which their counts are shown.
        once_more: Whether every clip is visited once more beside its upsampled visits, as the printed total counts it.
    """
    ours = {source: Counter[str]() for source in dict.fromkeys(SOURCE_OF_ROW.values())}
    for portion, count in plan.counts.items():
        ours.setdefault(portion.source, Counter())[portion.label] += count
    unbalanced = Counter(plan.balanced.unique_clips if once_more else {})
    rows, printed_total = [], 0
    for row in load_published().table(TABLE_1).rows:
        name = row["annotations_of"]
        counts = unbalanced if name == UNBALANCED else ours.pop(SOURCE_OF_ROW[name]) if name != UPSAMPLED else None
        if counts is None:
            counts = ours.pop(SOURCE_OF_ROW[name]) - unbalanced
        printed = {label: row[f"{label}_annotations"] for label in classes if f"{label}_annotations" in row}
        cells = [_number(row["annotations"]), _number(counts.total()), _by_class(printed, classes)]
        rows.append([row["name"], *cells, _by_class(counts, classes)])
        printed_total += row["annotations"]
    rows += [
        [source, DASH, _number(counts.total()), DASH, _by_class(counts, classes)] for source, counts in ours.items()
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
