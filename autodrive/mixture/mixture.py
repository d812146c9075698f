"""The mixture: which annotations a clip carries and how often clips are visited."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from autodrive.annotation.rules import CLOSED_QUESTIONS, closed_annotations, generator_for, mcq_annotations
from autodrive.errors import InputError
from autodrive.labels import LabelSet
from autodrive.mixture.balancing import Balance, VisitPlan
from autodrive.mixture.selection import Selection
from autodrive.schema import Annotation, Clip, Split


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
        mcq_orders: option orders in which training asks the multiple-choice question; evaluation asks one.
        closed_questions: keys of the closed questions asked where a clip's metadata hold the answer.
        balance: visits per class.
    """

    mcq_orders: int = 1
    closed_questions: Sequence[str] = ()
    balance: Balance = field(default_factory=Balance)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.closed_questions) - set(CLOSED_QUESTIONS))
        if unknown:
            known = ", ".join(CLOSED_QUESTIONS)
            raise InputError(f"mixture.closed_questions: unknown {', '.join(unknown)}; choose from {known}")

    def annotate(self, clip: Clip, label: str, labels: LabelSet, seed: int, training: bool) -> LabelledClip:
        """All annotations of one clip; evaluation asks the multiple-choice question once."""
        orders = self.mcq_orders if training else 1
        annotations = mcq_annotations(clip, label, labels, seed, orders)
        annotations += closed_annotations(clip, label, self.closed_questions)
        return LabelledClip(clip, label, tuple(annotations))

    def plan_visits(self, clips: Sequence[LabelledClip], seed: int) -> VisitPlan:
        """Visits of one epoch over the training clips."""
        return self.balance.plan([c.label for c in clips], generator_for(seed, "balance"))


@dataclass(frozen=True)
class Visit:
    """One clip to be read at one place of the training stream.

    Attributes:
        clip_index: which training clip.
        position: place in the stream, counted from the start of training.
        phase: shift of the sampling grid as a fraction of the frame interval, in [0, 1).
    """

    clip_index: int
    position: int
    phase: float


@dataclass(frozen=True)
class VisitSchedule:
    """The endless, seeded stream of visits: epoch after epoch, each a fresh permutation of the plan.

    The batch of any step follows from (seed, step) alone, so a resumed run reads what the unbroken run would have.
    """

    visits: tuple[int, ...]
    batch_size: int
    seed: int

    def batch(self, step: int) -> list[Visit]:
        """The visits of optimiser step `step` (from 0)."""
        return [self._visit(position) for position in range(step * self.batch_size, (step + 1) * self.batch_size)]

    def _visit(self, position: int) -> Visit:
        epoch, offset = divmod(position, len(self.visits))
        clip_index = self.visits[int(self._permutation(epoch)[offset])]
        phase = float(np.random.default_rng([self.seed, 1, position]).random())
        return Visit(clip_index, position, phase)

    def _permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.visits))


def label_clips(selection: Selection, mixture: Mixture, labels: LabelSet, seed: int) -> dict[Split, list[LabelledClip]]:
    """Annotate every usable clip; training clips get the mixture's option orders, the others one."""
    return {
        split: [mixture.annotate(clip, label, labels, seed, split == "train") for clip, label in members]
        for split, members in selection.clips.items()
    }
