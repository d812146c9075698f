"""What a student could do before it was trained further, and should still be able to do: asked apart."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autodrive.annotation.sources import AnnotationSource
from autodrive.labels import LabelSet
from autodrive.schema import Annotation, Clip


@dataclass(frozen=True)
class Retention:
    """An entry of `questions` that is asked before and after a training, under metrics of its own (`retention/…`).

    Attributes:
        sources: What is asked: rules, or a file with one's own questions and references.
    """

    sources: Mapping[str, AnnotationSource]

    def annotations(self, clips: Sequence[Clip], labels: LabelSet, seed: int) -> Iterable[Annotation]:
        """The questions of all its sources about these clips; raises as they do."""
        for source in self.sources.values():
            yield from source.annotations(clips, labels, seed)
