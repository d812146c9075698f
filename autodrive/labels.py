"""Label sets: which classes a run distinguishes, how sources' labels map onto them, how one set folds into another."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autodrive.errors import InputError


@dataclass(frozen=True)
class LabelClass:
    """One class of a label set.

    Attributes:
        name: Canonical name, used in metric keys and manifests.
        option: The words shown for it in a multiple-choice question.
        sources: Labels of source manifests that count as this class.
        anomalous: Whether it counts as an incident in binary accuracy.
        short: One or two words for tables and figures.
    """

    name: str
    option: str
    sources: Sequence[str]
    anomalous: bool
    short: str


class LabelSet:
    """An ordered set of classes, built from `conf/labels/*.yaml`.

    Attributes:
        name: Name of the set.
        classes: The classes, in the order of tables.
        shown: The set whose classes are the options that a student sees. It is this set itself, except where a student
            is evaluated with another set than it was taught: then it is the student's own.
        counts_as: The class of this set that each class of `shown` counts as.
    """

    def __init__(
        self, name: str, classes: Sequence[Mapping | LabelClass], shown: "LabelSet | Mapping | None" = None
    ) -> None:
        self.name = name
        self.classes = tuple(c if isinstance(c, LabelClass) else LabelClass(**c) for c in classes)
        self._by_source = {source: c.name for c in self.classes for source in c.sources}
        self._by_name = {c.name: c for c in self.classes}
        if len(self._by_name) < 2 or len(self._by_name) != len(self.classes):
            raise InputError(f"labels={name}: needs at least two classes with different names")
        sources = Counter(source for c in self.classes for source in c.sources)
        if repeated := [source for source, times in sources.items() if times > 1]:
            raise InputError(f"labels={name}: {repeated[0]!r} is among the sources of two classes; leave it in one")
        if isinstance(shown, Mapping):
            shown = LabelSet(shown["name"], shown["classes"])
        self.shown: LabelSet = shown or self
        self.counts_as = self.shown.folding(self)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of the configuration."""
        return tuple(c.name for c in self.classes)

    @property
    def anomalous(self) -> frozenset[str]:
        """Names of the classes that count as an incident."""
        return frozenset(c.name for c in self.classes if c.anomalous)

    def __getitem__(self, name: str) -> LabelClass:
        return self._by_name[name]

    @property
    def folds(self) -> bool:
        """Whether the options come from another set, so that what is chosen is folded into this one."""
        return self.shown is not self

    def folding(self, into: "LabelSet") -> dict[str, str]:
        """Each class of this set and the class of another one that it counts as, by the sources that both name.

        Raises:
            InputError: The other set names no source of a class, or puts its sources into several classes.
        """
        folded: dict[str, str] = {}
        for own in self.classes:
            found = sorted({name for source in own.sources if (name := into.class_of(source)) is not None})
            if len(found) != 1:
                places = (
                    f"lie in several of its classes ({', '.join(found)})" if found else "are in none of its classes"
                )
                raise InputError(
                    f"labels={into.name}: the sources of the student's class {own.name!r} ({', '.join(own.sources)}) "
                    f"{places}; choose a label set with one class for it, or leave labels= out"
                )
            folded[own.name] = found[0]
        return folded

    def classes_of(self, options: Sequence[str]) -> tuple[str, ...]:
        """The class of this set that each option counts as; empty if the options are classes of this set."""
        return tuple(self.counts_as[option] for option in options) if self.folds else ()

    @property
    def remark(self) -> str:
        """How replies were folded, in one sentence; empty if they were not."""
        if not self.folds:
            return ""
        text = f"Asked in the student's own classes (labels={self.shown.name}), which count as: "
        text += ", ".join(f"{own} → {name}" for own, name in self.counts_as.items()) + "."
        silent = [name for name in self.names if name not in self.counts_as.values()]
        return text + (f" The student has no class for {', '.join(silent)}." if silent else "")

    def class_of(self, source_label: str | None) -> str | None:
        """The class a source's label belongs to; None if there is no label, or this set cannot express it."""
        return None if source_label is None else self._by_source.get(source_label)
