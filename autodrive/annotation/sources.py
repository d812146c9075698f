"""Where annotations come from: rules that run when a run starts, and files that were written before it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from autodrive.errors import InputError
from autodrive.labels import LabelSet
from autodrive.schema import Annotation, Clip, iterate_jsonl

# Beginnings of the generators whose answers are known to be true: rules, and the sources of data sets themselves.
REFERENCES = ("rule/", "source:")


class AnnotationSource(Protocol):
    """An entry of the groups `annotations` (what training may draw from) and `questions` (what evaluation asks).

    Its key in the group is its name: mixtures weigh sources by it, and draws depend on it and on no other source.
    """

    def annotations(self, clips: Sequence[Clip], labels: LabelSet, seed: int) -> Iterable[Annotation]:
        """Annotations of these clips; rows about other clips may be among them and are set aside by the caller.

        Args:
            clips: Clips of all splits, or of those that are wanted.
            labels: The run's classes; a source that needs a clip's class skips clips without one.
            seed: Seed of the run, for sources that draw.
        """
        ...


def is_reference(annotation: Annotation) -> bool:
    """Whether evaluation may score against its answer: not one that a model wrote, which may be wrong."""
    return annotation.generator.startswith(REFERENCES)


@dataclass(frozen=True)
class AnnotationFile:
    """The rows of an annotations.jsonl, such as captions that people or teachers wrote.

    Attributes:
        path: The file; one `Annotation` a line.
    """

    path: str

    def annotations(self, clips: Sequence[Clip], labels: LabelSet, seed: int) -> Iterable[Annotation]:
        """All rows of the file.

        Raises:
            InputError: The file is missing, or a line is not an annotation.
        """
        if not Path(self.path).is_file():
            raise InputError(f"{self.path}: no such file of annotations; fix `path` of the source that names it")
        return iterate_jsonl(Path(self.path), Annotation)
