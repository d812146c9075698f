"""The mixture: which annotations a clip carries and how often clips are visited."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from autodrive.annotation.rules import (
    CLOSED_QUESTIONS,
    closed_annotations,
    generator_for,
    mcq_annotations,
    mcq_questions,
)
from autodrive.errors import InputError
from autodrive.labels import LabelSet
from autodrive.mixture.balancing import Balance, VisitPlan
from autodrive.mixture.selection import Selection
from autodrive.schema import Annotation, Clip, Question, Split
from autodrive.trees.packing import LossMean


@dataclass(frozen=True)
class LabelledClip:
    """A clip with its class in the run's label set and the annotations asked of it."""

    clip: Clip
    label: str
    annotations: tuple[Annotation, ...]


@dataclass(frozen=True)
class Mixture:
    """A training recipe, built from `conf/mixture/*.yaml`.

    Attributes:
        option_order: `per_clip` shuffles the options of every clip's multiple-choice question, so that no letter stands
            for a class; `per_run` draws one order for a whole run, for a student too small to look letters up.
        mcq_orders: option orders in which training asks the multiple-choice question; evaluation asks one.
        closed_questions: keys of the closed questions asked where a clip's metadata hold the answer.
        per_visit: most annotations of each task that one training visit takes; the visits of a clip take different
            ones until all had their turn. A task that is not named is taken whole at every visit.
        task_weights: share of the loss of one annotation of a task, relative to the others; 1 where not named.
        loss_mean: what the loss of a step is a mean over: `annotations` (a caption counts no more than a letter) or
            `tokens`.
        siblings_together: visit the clips of one source video next to each other, so that a batch holds the same scene
            with different outcomes and what they share cannot explain the answers.
        balance: visits per class.
    """

    option_order: Literal["per_clip", "per_run"] = "per_clip"
    mcq_orders: int = 1
    closed_questions: Sequence[str] = ()
    per_visit: Mapping[str, int] = field(default_factory=dict)
    task_weights: Mapping[str, float] = field(default_factory=dict)
    loss_mean: LossMean = "annotations"
    siblings_together: bool = False
    balance: Balance = field(default_factory=Balance)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.closed_questions) - set(CLOSED_QUESTIONS))
        if unknown:
            known = ", ".join(CLOSED_QUESTIONS)
            raise InputError(f"mixture.closed_questions: unknown {', '.join(unknown)}; choose from {known}")
        if self.option_order not in ("per_clip", "per_run"):
            raise InputError(f"mixture.option_order={self.option_order}: choose per_clip or per_run")
        if self.loss_mean not in get_args(LossMean):
            raise InputError(f"mixture.loss_mean={self.loss_mean}: choose {' or '.join(get_args(LossMean))}")

    def questions(self, clip_id: str, labels: LabelSet, seed: int, num_orders: int) -> list[Question]:
        """The multiple-choice question about a clip in up to `num_orders` option orders (one if drawn per run)."""
        if self.option_order == "per_run":
            return mcq_questions("run", labels, seed)
        return mcq_questions(clip_id, labels, seed, num_orders)

    def annotate(self, clip: Clip, label: str, labels: LabelSet, seed: int, training: bool) -> LabelledClip:
        """All annotations of one clip; evaluation asks the multiple-choice question once."""
        questions = self.questions(clip.id, labels, seed, self.mcq_orders if training else 1)
        annotations = mcq_annotations(clip, label, questions)
        annotations += closed_annotations(clip, label, self.closed_questions)
        return LabelledClip(clip, label, tuple(annotations))

    def for_visit(self, labelled: LabelledClip, visit: Visit) -> list[Annotation]:
        """The annotations that one training visit takes, in their own order.

        The annotations of a task are shuffled and dealt to the clip's visits; what does not make a full hand waits for
        the next shuffle. So a visit never holds one twice, and repeated visits of a clip do not repeat themselves.
        """
        chosen: list[int] = []
        for number, indices in enumerate(_indices_by_task(labelled.annotations).values()):
            hand = min(self.per_visit.get(labelled.annotations[indices[0]].task, len(indices)), len(indices))
            if hand:
                shuffle, place = divmod(visit.ordinal, len(indices) // hand)
                random = np.random.default_rng([visit.seed, visit.clip_index, number, shuffle])
                chosen += random.permutation(indices)[place * hand : (place + 1) * hand].tolist()
        return [labelled.annotations[index] for index in sorted(chosen)]

    def annotations_per_visit(self, clips: Sequence[LabelledClip], visits: Sequence[int]) -> float:
        """Mean number of annotations that a visit takes."""
        sizes = [
            sum(min(self.per_visit.get(task, count), count) for task, count in counts.items())
            for counts in (Counter(a.task for a in labelled.annotations) for labelled in clips)
        ]
        return float(np.mean([sizes[index] for index in visits]))

    def plan_visits(self, clips: Sequence[LabelledClip], seed: int) -> VisitPlan:
        """Visits of one epoch over the training clips."""
        return self.balance.plan([c.label for c in clips], generator_for(seed, "balance"))

    def schedule(self, clips: Sequence[LabelledClip], batch_size: int, seed: int) -> VisitSchedule:
        """The stream of training visits."""
        visits = self.plan_visits(clips, seed).visits
        sources = [clips[index].clip.source_video_id for index in visits]
        blocks = sibling_blocks(visits, sources) if self.siblings_together else tuple((v,) for v in visits)
        return VisitSchedule(blocks, batch_size, seed)


@dataclass(frozen=True)
class Visit:
    """One clip to be read at one place of the training stream.

    Attributes:
        clip_index: which training clip.
        position: place in the stream, counted from the start of training.
        ordinal: how many times the stream visited this clip before.
        phase: shift of the sampling grid as a fraction of the frame interval, in [0, 1).
        seed: of the run; the draw of annotations follows from it, the clip and `ordinal`.
    """

    clip_index: int
    position: int
    ordinal: int
    phase: float
    seed: int


@dataclass(frozen=True)
class VisitSchedule:
    """The endless, seeded stream of visits: epoch after epoch, each a fresh order of the plan's blocks.

    The batch of any step follows from (seed, step) alone, so a resumed run reads what the unbroken run would have.

    Attributes:
        blocks: clip indices that stay next to each other; together the visits of an epoch.
        batch_size: visits per optimiser step.
        seed: of the order and of every visit's own draws.
    """

    blocks: tuple[tuple[int, ...], ...]
    batch_size: int
    seed: int
    _epochs: dict[int, list[tuple[int, int]]] = field(default_factory=dict, repr=False, compare=False)

    def batch(self, step: int) -> list[Visit]:
        """The visits of optimiser step `step` (from 0)."""
        return [self._visit(position) for position in range(step * self.batch_size, (step + 1) * self.batch_size)]

    def _visit(self, position: int) -> Visit:
        epoch, place = divmod(position, self._visits_per_epoch)
        clip_index, ordinal = self._epoch(epoch)[place]
        phase = float(np.random.default_rng([self.seed, 1, position]).random())
        return Visit(clip_index, position, ordinal, phase, self.seed)

    @cached_property
    def _visits_per_epoch(self) -> int:
        return sum(map(len, self.blocks))

    def _epoch(self, epoch: int) -> list[tuple[int, int]]:
        """The clips of an epoch in order, each with how often it was visited before; the last two epochs are kept."""
        if epoch not in self._epochs:
            order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.blocks))
            clips = [clip_index for block in order for clip_index in self.blocks[block]]
            each_epoch, seen = Counter(clips), Counter[int]()
            visits = []
            for clip_index in clips:
                visits.append((clip_index, epoch * each_epoch[clip_index] + seen[clip_index]))
                seen[clip_index] += 1
            self._epochs.pop(epoch - 2, None)
            self._epochs[epoch] = visits
        return self._epochs[epoch]


def _indices_by_task(annotations: Sequence[Annotation]) -> dict[str, list[int]]:
    by_task: dict[str, list[int]] = {}
    for index, annotation in enumerate(annotations):
        by_task.setdefault(annotation.task, []).append(index)
    return by_task


def sibling_blocks(visits: Sequence[int], sources: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Group the visits of an epoch by source video, no clip twice in a block.

    Repeated visits of an upsampled clip fall into different blocks, so that a batch is never one clip many times.

    Example:
        >>> sibling_blocks([0, 1, 1, 2], ["a", "a", "a", "b"])
        ((0, 1), (1,), (2,))
    """
    seen: Counter[int] = Counter()
    blocks: dict[tuple[str, int], list[int]] = {}
    for clip_index, source in zip(visits, sources, strict=True):
        blocks.setdefault((source, seen[clip_index]), []).append(clip_index)
        seen[clip_index] += 1
    return tuple(tuple(block) for block in blocks.values())


def label_clips(selection: Selection, mixture: Mixture, labels: LabelSet, seed: int) -> dict[Split, list[LabelledClip]]:
    """Annotate every usable clip; training clips get the mixture's option orders, the others one."""
    return {
        split: [mixture.annotate(clip, label, labels, seed, split == "train") for clip, label in members]
        for split, members in selection.clips.items()
    }
