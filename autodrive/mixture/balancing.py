"""Class balance: how often each training clip is visited in an epoch."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autodrive.bounds import Count, PositiveNumber
from autodrive.errors import InputError


@dataclass(frozen=True)
class VisitPlan:
    """Which clips an epoch visits (indices, with repetition) and the counts that came out."""

    visits: tuple[int, ...]
    unique_clips: dict[str, int]
    visits_per_class: dict[str, int]


@dataclass(frozen=True)
class Balance:
    """First thin the classes to a natural ratio, then repeat clips: either step may be absent.

    Attributes:
        natural_ratio: Clips per class are cut to this ratio (the paper's sources: 43:9:1), as many as it allows.
        factors: Each clip of a class is visited this many times an epoch (the paper's text: 15 and 2).
        target_counts: Visits per class are brought to this ratio of the largest class, by whole repeats and a
            seeded remainder (the paper's table: 11k, 14k, 43k; it does not follow from the factors).
        equal: Visits of every class are brought to the count of the largest.
        per_class: Visits of every class are brought to this many: classes with more clips are thinned, others repeated
            (the paper's 1,000 and 3,000 samples a class).
        once_more: Every clip is visited once more beside its repeats, as the paper's total counts the multiple-choice
            questions twice (its table: 53,000 unbalanced and 68,000 upsampled ones).
    """

    natural_ratio: Mapping[str, PositiveNumber] | None = None
    factors: Mapping[str, Count] | None = None
    target_counts: Mapping[str, PositiveNumber] | None = None
    equal: bool = False
    per_class: Count | None = None
    once_more: bool = False

    def plan(self, classes: Sequence[str], random: np.random.Generator) -> VisitPlan:
        """Plan one epoch over training clips.

        Args:
            classes: Class of every training clip.
            random: Draws the subsample and the remainders.

        Raises:
            InputError: A ratio names a class that no clip has, or leaves one out, or two modes are set.
        """
        by_class = {name: np.flatnonzero(np.array(classes) == name) for name in dict.fromkeys(classes)}
        modes = (self.factors, self.target_counts, self.per_class)
        if sum(mode is not None for mode in modes) + self.equal > 1:
            raise InputError("mixture.balance: set one of factors, target_counts, per_class and equal, not several")
        if not classes:
            return VisitPlan((), {}, {})
        if self.natural_ratio is not None:
            self._check_names("natural_ratio", self.natural_ratio, by_class)
            by_class = _thin(by_class, self.natural_ratio, random)
        if self.per_class is not None:
            by_class = {name: _drawn(indices, self.per_class, random) for name, indices in by_class.items()}
        unique = {name: len(indices) for name, indices in by_class.items()}
        counts = self._visit_counts(unique, by_class)
        if self.once_more:
            counts = {name: count + unique[name] for name, count in counts.items()}
        visits = [_repeat(indices, counts[name], random) for name, indices in by_class.items()]
        flat = tuple(int(i) for i in np.concatenate(visits))
        realised = Counter(classes[i] for i in flat)
        return VisitPlan(flat, unique, dict(realised))

    def _visit_counts(self, unique: Mapping[str, int], by_class: Mapping[str, np.ndarray]) -> dict[str, int]:
        if self.factors is not None:
            self._check_names("factors", self.factors, by_class)
            return {name: count * self.factors[name] for name, count in unique.items()}
        if self.target_counts is not None:
            self._check_names("target_counts", self.target_counts, by_class)
            # The class that is fullest against its share keeps every clip once; the others are brought up to it, so
            # that no clip is lost (thinning is what `natural_ratio` is for).
            unit = max(unique[name] / self.target_counts[name] for name in unique)
            return {name: round(unit * self.target_counts[name]) for name in unique}
        if self.equal or self.per_class is not None:
            return dict.fromkeys(unique, self.per_class or max(unique.values()))
        return dict(unique)

    @staticmethod
    def _check_names(key: str, given: Mapping[str, float], by_class: Mapping[str, np.ndarray]) -> None:
        if set(given) != set(by_class):
            message = f"mixture.balance.{key} names {sorted(given)}, the training clips have {sorted(by_class)}"
            raise InputError(f"{message}; name exactly these classes")


def _thin(
    by_class: Mapping[str, np.ndarray], ratio: Mapping[str, float], random: np.random.Generator
) -> dict[str, np.ndarray]:
    # The scarcest class against its share sets the scale; every class keeps at least one clip, or it could not be
    # taught.
    unit = min(len(indices) / ratio[name] for name, indices in by_class.items())
    kept = {name: max(1, round(unit * ratio[name])) for name in by_class}
    return {name: _drawn(indices, kept[name], random) for name, indices in by_class.items()}


def _drawn(indices: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    return np.sort(random.permutation(indices)[:count])


def _repeat(indices: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    # No clip is visited more than once oftener than another of its class.
    whole, remainder = divmod(count, len(indices))
    return np.concatenate([np.tile(indices, whole), random.permutation(indices)[:remainder]])
