"""One epoch of training: the pairs of a clip and an annotation, and how they are dealt to the clip's visits."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from autodrive.annotation.supply import AnnotatedClip
from autodrive.bounds import Count, PositiveNumber
from autodrive.errors import InputError
from autodrive.mixture.balancing import VisitPlan
from autodrive.schema import Annotation
from autodrive.seeding import generator_for

NO_CLASS = "no_class"


@dataclass(frozen=True)
class Part:
    """How the annotations of one source are taught.

    Attributes:
        per_visit: Every visit takes this many, and the visits of a clip take different ones until all had their turn;
            null: the source's annotations are taught `repeat` times an epoch, however often their clip is visited.
        every: Of a clip's visits only each so-many-th takes any; for sources with `per_visit`. Clips begin at different
            visits, so that steps cost about the same.
        repeat: How often an epoch teaches each annotation, in different visits; for sources without `per_visit`.
        weight: Share of the loss of one annotation, relative to the others of its step.
        limit: Most annotations of the source that are taught at all: a seeded draw from all training clips that are
            visited, of which a smaller limit takes a part. null: all.
        optional: Whether the recipe holds without the source; a run then says so and does without it.
    """

    per_visit: Count | None = None
    every: Count = 1
    repeat: Count = 1
    weight: PositiveNumber = 1.0
    limit: Count | None = None
    optional: bool = False


@dataclass(frozen=True)
class Taught:
    """An annotation in a visit, with its relative share of the loss."""

    annotation: Annotation
    weight: float


class Portion(NamedTuple):
    """What annotations are counted by: their source, their task, and the class of their clip, or `no_class`."""

    source: str
    task: str
    label: str


@dataclass(frozen=True)
class EpochPlan:
    """Which annotations an epoch teaches, exactly, and in which visit of their clip.

    A part with `per_visit` fills the visits that balancing gives a clip, or every so-many-th of them. Any other part
    gives each of its annotations `repeat` times, dealt evenly over the clip's visits: a collision that is visited 15
    times for balance has its one caption taught once. A clip that is visited less often than a part repeats gets visits
    for the rest.

    Attributes:
        clips: The training clips with their annotations.
        balanced: The visits that balancing gives the labelled clips; clips that it thins out are not visited at all.
        parts: How each source is taught; sources that are not named are taught once an epoch.
        seed: Seed of the deals.
    """

    clips: Sequence[AnnotatedClip]
    balanced: VisitPlan
    parts: Mapping[str, Part]
    seed: int

    def __post_init__(self) -> None:
        for name, part in self.parts.items():
            if part.per_visit is not None and part.repeat > 1:
                raise InputError(f"mixture.parts.{name}: set per_visit or repeat, not both")
            if part.per_visit is None and part.every > 1:
                raise InputError(f"mixture.parts.{name}.every={part.every}: set per_visit, too, whose visits it thins")

    @cached_property
    def visits(self) -> tuple[int, ...]:
        """Indices of the clips that an epoch visits, with repetition: balanced ones first, then what parts need."""
        # Seeded shuffles act on places, so the order of `balanced` is kept and what parts need comes behind it: a
        # source that is added leaves the balanced visits where they were.
        left = Counter({index: self._num_visits(index) for index in range(len(self.clips))})
        visits = []
        for index in self.balanced.visits:
            if left[index]:
                visits.append(index)
                left[index] -= 1
        return (*visits, *left.elements())

    @cached_property
    def visits_of_clip(self) -> Counter[int]:
        """How often an epoch visits each clip."""
        return Counter(self.visits)

    def annotations_of(self, clip_index: int, ordinal: int) -> list[Taught]:
        """What one visit teaches, source after source.

        Args:
            clip_index: Index of the visited clip among `clips`.
            ordinal: How many visits of this clip the stream holds before this one.
        """
        # A clip is visited equally often in every epoch, so the count of its visits alone says which epoch this is and
        # which of its visits: no state has to survive between steps, or in a checkpoint.
        epoch, place = divmod(ordinal, self.visits_of_clip[clip_index])
        taught: list[Taught] = []
        for source, annotations in self.clips[clip_index].by_source.items():
            chosen = self._dealt(clip_index, source, epoch, place)
            taught += [Taught(annotations[index], self._part(source).weight) for index in chosen]
        return taught

    def _dealt(self, clip_index: int, source: str, epoch: int, place: int) -> list[int]:
        """Which of a clip's annotations of a source one of its visits takes."""
        deal = self._dealt_once if self._part(source).per_visit is None else self._dealt_per_visit
        # Sorted, because the draw decides what is taught together and not which comes first in the row.
        return sorted(deal(clip_index, source, epoch, place))

    def _part(self, source: str) -> Part:
        return self.parts.get(source, Part())

    @cached_property
    def _balanced_visits(self) -> Counter[int]:
        return Counter(self.balanced.visits)

    def _filled_visits(self, clip_index: int) -> int:
        """Visits of a clip that parts with `per_visit` fill: those of balance; one for a clip without a class."""
        return 1 if self.clips[clip_index].label is None else self._balanced_visits[clip_index]

    def _num_visits(self, clip_index: int) -> int:
        """Visits of a clip: enough for all it teaches, and none that would teach nothing."""
        filled = self._filled_visits(clip_index)
        by_source = self.clips[clip_index].by_source
        if filled == 0 or not by_source:
            return 0
        once = {source: part for source in by_source if (part := self._part(source)).per_visit is None}
        if len(once) == len(by_source):  # nothing fills the visits of balance: leave those out that stay empty
            filled = min(filled, sum(len(by_source[source]) * part.repeat for source, part in once.items()))
        return max(filled, *(part.repeat for part in once.values()), 1)

    def _dealt_once(self, clip_index: int, source: str, epoch: int, place: int) -> list[int]:
        """Every annotation `repeat` times, laid out in a seeded order along the clip's visits, round and round."""
        clip, repeat, num_visits = self.clips[clip_index], self._part(source).repeat, self.visits_of_clip[clip_index]
        count = len(clip.by_source[source])
        random = generator_for(self.seed, source, clip.clip.id, epoch)
        first, order = int(random.integers(num_visits)), random.permutation(count)
        if all(self._part(name).per_visit is None for name in clip.by_source):
            # Nothing else fills the visits: one source goes on where another ends, so that none stays empty.
            first = int(generator_for(self.seed, clip.clip.id, epoch).integers(num_visits))
            before = itertools.takewhile(lambda name: name != source, clip.by_source)
            first += sum(len(clip.by_source[name]) * self._part(name).repeat for name in before)
        # Copies of one annotation lie next to each other, so no visit gets two: there are at least `repeat` visits.
        return [int(order[copy // repeat]) for copy in range(count * repeat) if (first + copy) % num_visits == place]

    def _dealt_per_visit(self, clip_index: int, source: str, epoch: int, place: int) -> list[int]:
        """The hand of one visit from a shuffle; what does not fill a hand waits for the next shuffle."""
        clip, part, filled = self.clips[clip_index], self._part(source), self._filled_visits(clip_index)
        if place >= filled:
            return []
        # Visits, hands and shuffles run on over epochs. With a new shuffle each epoch, a clip that is visited once
        # would be taught some of its annotations again before others had their turn; with a new count of visits, those
        # that are left out would always be the same.
        every, first = self._rhythm(clip_index, source)
        number, left = divmod(epoch * filled + place - first, every)
        if left or number < 0:
            return []
        count = len(clip.by_source[source])
        hand = min(part.per_visit or count, count)
        shuffle, turn = divmod(number, count // hand)
        order = generator_for(self.seed, source, clip.clip.id, shuffle).permutation(count)
        return order[turn * hand : (turn + 1) * hand].tolist()

    def _rhythm(self, clip_index: int, source: str) -> tuple[int, int]:
        """Which visits a part with `per_visit` fills: each so-many-th, from which one on.

        Of a clip that no other part fills these are all: a visit that teaches nothing would be for nothing.
        """
        every, clip = self._part(source).every, self.clips[clip_index]
        parts = [self._part(name) for name in clip.by_source]
        if every == 1 or not any(part.per_visit is not None and part.every == 1 for part in parts):
            return 1, 0
        return every, int(generator_for(self.seed, source, clip.clip.id, "first visit").integers(every))

    def visits_per_class(self) -> dict[str, int]:
        """How often an epoch visits clips of each class; clips without one are counted under `no_class`."""
        return dict(Counter(self.clips[index].label or NO_CLASS for index in self.visits))

    @cached_property
    def counts(self) -> dict[Portion, int]:
        """How many pairs of a clip and an annotation the first epoch teaches, of each source, task and class.

        Later epochs teach as many, but for parts that only some visits take: of those, a visit more or less.
        """
        counts: Counter[Portion] = Counter()
        for index, num_visits in self.visits_of_clip.items():
            label = self.clips[index].label or NO_CLASS
            for source, annotations in self.clips[index].by_source.items():
                tasks = {annotation.task for annotation in annotations}
                if len(tasks) == 1:
                    counts[Portion(source, tasks.pop(), label)] += self._num_taught(index, source)
                    continue
                for place in range(num_visits):  # which of them is up when is known only once they are dealt
                    for taught in self._dealt(index, source, 0, place):
                        counts[Portion(source, annotations[taught].task, label)] += 1
        return {portion: count for portion, count in counts.items() if count}

    def annotations_per_epoch(self, by: Literal["source", "task", "label"] = "source") -> dict[str, int]:
        """The same by one of what they are counted by."""
        totals: Counter[str] = Counter()
        for portion, count in self.counts.items():
            totals[getattr(portion, by)] += count
        return dict(totals)

    def _num_taught(self, clip_index: int, source: str) -> int:
        """How many of one clip's annotations of a source the first epoch teaches."""
        part, count = self._part(source), len(self.clips[clip_index].by_source[source])
        if part.per_visit is None:
            return count * part.repeat
        every, first = self._rhythm(clip_index, source)
        return min(part.per_visit, count) * len(range(first, self._filled_visits(clip_index), every))
