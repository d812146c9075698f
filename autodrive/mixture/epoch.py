"""One epoch of training: the pairs of a clip and an annotation, and how they are dealt to the clip's visits."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from autodrive.annotation.supply import AnnotatedClip
from autodrive.bounds import Count, PositiveNumber
from autodrive.errors import InputError
from autodrive.mixture.balancing import VisitPlan
from autodrive.schema import Annotation
from autodrive.seeding import generator_for


@dataclass(frozen=True)
class Part:
    """How the annotations of one source are taught.

    Attributes:
        per_visit: Every visit takes this many, and the visits of a clip take different ones until all had their turn;
            null: the source's annotations are taught `repeat` times an epoch, however often their clip is visited.
        repeat: How often an epoch teaches each annotation, in different visits; for sources without `per_visit`.
        weight: Share of the loss of one annotation, relative to the others of its step.
    """

    per_visit: Count | None = None
    repeat: Count = 1
    weight: PositiveNumber = 1.0


@dataclass(frozen=True)
class Taught:
    """An annotation in a visit, with its relative share of the loss."""

    annotation: Annotation
    weight: float


@dataclass(frozen=True)
class EpochPlan:
    """Which annotations an epoch teaches, exactly, and in which visit of their clip.

    A part with `per_visit` fills the visits that balancing gives a clip. Any other part gives each of its annotations
    `repeat` times, dealt evenly over the clip's visits: a collision that is visited 15 times for balance has its one
    caption taught once. A clip that is visited less often than a part repeats gets visits for the rest.

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
            part = self._part(source)
            deal = self._dealt_once if part.per_visit is None else self._dealt_per_visit
            # Sorted, because the draw decides what is taught together and not which comes first in the row.
            chosen = sorted(deal(clip_index, source, epoch, place))
            taught += [Taught(annotations[index], part.weight) for index in chosen]
        return taught

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
        # Copies of one annotation lie next to each other, so no visit gets two: there are at least `repeat` visits.
        return [int(order[copy // repeat]) for copy in range(count * repeat) if (first + copy) % num_visits == place]

    def _dealt_per_visit(self, clip_index: int, source: str, epoch: int, place: int) -> list[int]:
        """The hand of one visit from a shuffle; what does not fill a hand waits for the next shuffle."""
        clip, filled = self.clips[clip_index], self._filled_visits(clip_index)
        if place >= filled:
            return []
        count = len(clip.by_source[source])
        hand = min(self._part(source).per_visit or count, count)
        # Shuffles run on over epochs. With a new one each epoch, a clip that is visited once would be taught some of
        # its annotations again before others had their turn.
        shuffle, turn = divmod(epoch * filled + place, count // hand)
        order = generator_for(self.seed, source, clip.clip.id, shuffle).permutation(count)
        return order[turn * hand : (turn + 1) * hand].tolist()

    def visits_per_class(self) -> dict[str, int]:
        """How often an epoch visits clips of each class; clips without one are counted under `no_class`."""
        return dict(Counter(self.clips[index].label or "no_class" for index in self.visits))

    def annotations_per_epoch(self) -> dict[str, int]:
        """How many pairs of a clip and an annotation an epoch teaches, by source."""
        counts: Counter[str] = Counter()
        for index in self.visits_of_clip:
            clip = self.clips[index]
            for source, annotations in clip.by_source.items():
                part = self._part(source)
                if part.per_visit is None:
                    counts[source] += len(annotations) * part.repeat
                else:
                    counts[source] += min(part.per_visit, len(annotations)) * self._filled_visits(index)
        return dict(counts)
