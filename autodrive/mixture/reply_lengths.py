"""Whether replies may be as long as what is taught: a trace that evaluation cuts off counts as a reply without one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autodrive.annotation.supply import AnnotatedClip
from autodrive.mixture.clip_batches import BranchWriter
from autodrive.schema import Annotation, Mode
from autodrive.tasks.task_book import TaskBook
from autodrive.trees.clip_tree import ClipProcessor
from autodrive.trees.sample import ClipSample

PERCENTILE = 99
MOST_MEASURED = 1000  # of a task in a mode, evenly spread: enough for a percentile, and done in a second


@dataclass(frozen=True)
class ReplyLength:
    """How long the replies are that a task is taught, and may be that it is asked for.

    Attributes:
        task: The task that is asked.
        mode: The mode it is asked in.
        taught_by: The task whose targets are meant: this one, or one that puts the same prompt.
        percentile: The 99th percentile of these targets, in tokens of the student, with the one that ends a reply.
        limit: The most tokens of a reply.
    """

    task: str
    mode: Mode
    taught_by: str
    percentile: int
    limit: int

    @property
    def line(self) -> str | None:
        """What is wrong with the limit, in one line; None if it fits."""
        if self.limit >= self.percentile:
            return None
        key = f"prompts.tasks.{self.task}.max_new_tokens.{self.mode}"
        taught = f"the 99th percentile of what {self.taught_by} teaches is {self.percentile} tokens"
        return f"{key}={self.limit} cuts replies off: {taught}; give {key}={self.percentile}"


def reply_lengths(clips: Sequence[AnnotatedClip], writer: BranchWriter, processor: ClipProcessor) -> list[ReplyLength]:
    """The lengths of what is taught beside the limits of every task that is asked so.

    Args:
        clips: The training clips with what is taught about them.
        writer: Renders targets; its book knows the limits.
        processor: The student's, which counts tokens.
    """
    taught: dict[tuple[str, Mode], list[Annotation]] = {}
    for annotation in (annotation for clip in clips for annotation in clip.annotations):
        taught.setdefault((annotation.task, annotation.mode), []).append(annotation)
    found = []
    for (name, mode), annotations in taught.items():
        spread = np.unique(np.linspace(0, len(annotations) - 1, MOST_MEASURED).round().astype(int))
        branches = tuple(writer.teach(annotations[place]) for place in spread)
        tree = processor.encode(ClipSample("", writer.book.system, (), branches))
        lengths = [len(branch.target_ids) for branch in tree.branches]
        percentile = int(np.percentile(lengths, PERCENTILE, method="higher"))
        found += [
            ReplyLength(asked, mode, name, percentile, writer.book[asked].max_new_tokens[mode])
            for asked in _prompted_alike(writer.book, name, mode)
        ]
    return found


def _prompted_alike(book: TaskBook, name: str, mode: Mode) -> list[str]:
    """A task, and others whose template and options are the same: what the one is taught, the others are asked for.

    Where a template shows no options, the questions tell tasks apart.
    """
    template = book[name].templates[mode]
    if "{options}" not in template:
        return [name]
    return [other for other, task in book.tasks.items() if task.templates.get(mode) == template]


def length_facts(lengths: Sequence[ReplyLength]) -> dict[str, Any]:
    """What `provenance.json` says of them, by task and mode."""
    return {
        f"{length.task} ({length.mode})": {
            "taught_by": length.taught_by,
            "percentile_99_tokens": length.percentile,
            "max_new_tokens": length.limit,
        }
        for length in lengths
    }
