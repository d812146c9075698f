"""The mixture: how often clips are visited, and how much of each annotation source a visit takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from autodrive.annotation.supply import AnnotatedClip
from autodrive.bounds import Distinct
from autodrive.errors import InputError
from autodrive.mixture.balancing import Balance
from autodrive.mixture.epoch import EpochPlan, Part, Taught
from autodrive.schema import Clip
from autodrive.seeding import generator_for
from autodrive.trees.packing import LossMean


@dataclass(frozen=True)
class Mixture:
    """A training recipe, built from `conf/mixture/*.yaml`: visits and weights of what the annotation sources give.

    Attributes:
        parts: How each annotation source is taught, by its name; see `Part`. Configurations give the values of a part.
        loss_mean: What the loss of a step is a mean over: `annotations` (a caption counts no more than a letter) or
            `tokens`.
        siblings_together: Visit the clips of one source video that show the same seconds next to each other, so that a
            batch holds the same scene with different outcomes and what they share cannot explain the answers.
        balance: Visits of each class.
        leave_out: Sources of which nothing is taught, should they be there.
    """

    parts: Mapping[str, Part] = field(default_factory=dict)
    loss_mean: LossMean = "annotations"
    siblings_together: bool = False
    balance: Balance = field(default_factory=Balance)
    leave_out: Distinct[str] = ()

    def __post_init__(self) -> None:
        built = {name: part if isinstance(part, Part) else Part(**part) for name, part in self.parts.items()}
        object.__setattr__(self, "parts", built)
        if both := sorted(set(self.parts) & set(self.leave_out)):
            raise InputError(f"mixture.leave_out: {both[0]} is also in mixture.parts; leave it out of one of them")

    def taught(self, sources: Collection[str]) -> list[str]:
        """Those of these annotation sources that are taught, in their order; nobody need ask the others."""
        return [name for name in sources if name not in self.leave_out]

    def check_sources(self, sources: Collection[str]) -> None:
        """Check that there is a source for every part that needs one, and a source at all.

        Args:
            sources: Names of the annotation sources.

        Raises:
            InputError: A part has no source of its name, or there is nothing to teach.
        """
        chosen = self.taught(sources)
        if not chosen:
            raise InputError("annotations: there is no source, so nothing would be taught; leave annotations=rules in")
        unknown = sorted(name for name, part in self.parts.items() if name not in chosen and not part.optional)
        if unknown:
            leave_out = " ".join(f"~mixture.parts.{name}" for name in unknown)
            message = f"mixture.parts.{unknown[0]}: no such annotation source (there is {', '.join(sources)})"
            raise InputError(f"{message}; add the source, or leave the part out with {leave_out}")

    def lines(self, sources: Collection[str]) -> list[str]:
        """What the recipe has no source for although it would teach it, in lines for people."""
        missing = [name for name, part in self.parts.items() if part.optional and name not in sources]
        return [f"mixture.parts.{name}: there is no such annotation source; the run does without" for name in missing]

    def plan(self, clips: Sequence[AnnotatedClip], sources: Collection[str], seed: int) -> EpochPlan:
        """What an epoch over the training clips visits and teaches.

        Args:
            clips: The training clips; balance sees those that have a class.
            sources: Names of the annotation sources.
            seed: Seed of balancing and of the deals.

        Raises:
            InputError: As `check_sources` does, or the classes do not fit the balance.
        """
        self.check_sources(sources)
        labelled = [index for index, clip in enumerate(clips) if clip.label is not None]
        balanced = self.balance.plan([str(clips[index].label) for index in labelled], generator_for(seed, "balance"))
        visits = tuple(labelled[index] for index in balanced.visits)
        visited = sorted({*visits, *(index for index, clip in enumerate(clips) if clip.label is None)})
        for name, part in self.parts.items():
            if part.limit is not None:
                clips = _limited(clips, visited, name, part.limit, generator_for(seed, "limit", name))
        return EpochPlan(clips, replace(balanced, visits=visits), self.parts, seed)

    def schedule(self, plan: EpochPlan, batch_size: int) -> VisitSchedule:
        """The stream of training visits."""
        blocks = tuple((index,) for index in plan.visits)
        if self.siblings_together:
            blocks = sibling_blocks(plan.visits, [clip.clip for clip in plan.clips])
        return VisitSchedule(plan, blocks, batch_size)


def _limited(
    clips: Sequence[AnnotatedClip], visited: Sequence[int], source: str, limit: int, random: np.random.Generator
) -> list[AnnotatedClip]:
    """The clips with at most `limit` annotations of a source on all that are visited."""
    places = [(index, place) for index in visited for place in range(len(clips[index].by_source.get(source, ())))]
    left_out: dict[int, set[int]] = {}
    for drawn in random.permutation(len(places))[limit:]:  # a smaller limit draws the first of a larger one's
        index, place = places[drawn]
        left_out.setdefault(index, set()).add(place)
    limited = list(clips)
    for index, gone in left_out.items():
        kept = {
            name: tuple(a for place, a in enumerate(annotations) if name != source or place not in gone)
            for name, annotations in clips[index].by_source.items()
        }
        limited[index] = replace(clips[index], by_source={name: members for name, members in kept.items() if members})
    return limited


@dataclass(frozen=True)
class Visit:
    """One clip to be read at one place of the training stream, and what it teaches.

    Attributes:
        clip: The clip to read.
        taught: Its annotations, with their shares of the loss.
        position: Place in the stream, counted from the start of training.
        phase: Shift of the sampling grid as a fraction of the frame interval, in [0, 1).
    """

    clip: Clip
    taught: tuple[Taught, ...]
    position: int
    phase: float


@dataclass(frozen=True)
class VisitSchedule:
    """The endless, seeded stream of visits: epoch after epoch, each a fresh order of the plan's blocks.

    The batch of any step follows from the plan's seed and the step alone, so a resumed run reads what the unbroken run
    would have. Visits carry their clip and annotations, so that a loader worker needs nothing else.

    Attributes:
        plan: What an epoch visits and teaches.
        blocks: Clip indices that stay next to each other; together the visits of an epoch.
        batch_size: Visits of an optimiser step.
    """

    plan: EpochPlan
    blocks: tuple[tuple[int, ...], ...]
    batch_size: int
    _epochs: dict[int, list[tuple[int, int]]] = field(default_factory=dict, repr=False, compare=False)

    def batch(self, step: int) -> list[Visit]:
        """The visits of optimiser step `step` (from 0)."""
        return [self._visit(position) for position in range(step * self.batch_size, (step + 1) * self.batch_size)]

    def _visit(self, position: int) -> Visit:
        epoch, place = divmod(position, self._visits_per_epoch)
        clip_index, ordinal = self._epoch(epoch)[place]
        phase = float(np.random.default_rng([self.plan.seed, 1, position]).random())
        taught = tuple(self.plan.annotations_of(clip_index, ordinal))
        return Visit(self.plan.clips[clip_index].clip, taught, position, phase)

    @cached_property
    def _visits_per_epoch(self) -> int:
        return sum(map(len, self.blocks))

    def _epoch(self, epoch: int) -> list[tuple[int, int]]:
        """The clips of an epoch in order, each with how often it was visited before; the last two epochs are kept."""
        if epoch not in self._epochs:
            order = np.random.default_rng([self.plan.seed, 0, epoch]).permutation(len(self.blocks))
            clips = [clip_index for block in order for clip_index in self.blocks[block]]
            seen = Counter[int]()
            visits = []
            for clip_index in clips:
                visits.append((clip_index, epoch * self.plan.visits_of_clip[clip_index] + seen[clip_index]))
                seen[clip_index] += 1
            self._epochs.pop(epoch - 2, None)
            self._epochs[epoch] = visits
        return self._epochs[epoch]


def sibling_blocks(visits: Sequence[int], clips: Sequence[Clip]) -> tuple[tuple[int, ...], ...]:
    """Group the visits of an epoch by source video and window, no clip twice in a block.

    Only recordings of one scene share both, such as the counterfactual outcomes of the rendered world; the windows of
    one recording stay apart. Repeated visits of an upsampled clip fall into different blocks, so that a batch is never
    one clip many times.

    Args:
        visits: Indices of the visited clips, with repetition.
        clips: The clips that these count.
    """
    seen: Counter[int] = Counter()
    blocks: dict[tuple[str, float, int], list[int]] = {}
    for index in visits:
        clip = clips[index]
        blocks.setdefault((clip.source_video_id, clip.start_s, seen[index]), []).append(index)
        seen[index] += 1
    return tuple(tuple(block) for block in blocks.values())
