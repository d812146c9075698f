"""Label sets: which classes a run distinguishes, and how sources' labels map onto them."""

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
    """An ordered set of classes, built from `conf/labels/*.yaml`."""

    def __init__(self, name: str, classes: Sequence[Mapping | LabelClass]) -> None:
        self.name = name
        self.classes = tuple(c if isinstance(c, LabelClass) else LabelClass(**c) for c in classes)
        self._by_source = {source: c.name for c in self.classes for source in c.sources}
        self._by_name = {c.name: c for c in self.classes}
        if len(self._by_name) < 2 or len(self._by_name) != len(self.classes):
            raise InputError(f"labels={name}: needs at least two classes with different names")

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

    def class_of(self, source_label: str) -> str | None:
        """The class a source's label belongs to; None if this set cannot express it."""
        return self._by_source.get(source_label)
