"""Where annotations come from: rules that run when a run starts, and files that were written before it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ValidationError

from autodrive.bounds import Choices, Fraction
from autodrive.errors import InputError
from autodrive.labels import LabelSet
from autodrive.schema import Annotation, Clip, iterate_jsonl
from autodrive.seeding import generator_for

MOST_NAMED = 5

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
        tasks: Rows of other tasks are passed over; null: all are wanted.
        generators: Rows whose generator begins with none of these are passed over, such as `rule` or `openai:`; null:
            all are wanted.
    """

    path: str
    tasks: Choices[str] | None = None
    generators: Choices[str] | None = None

    def annotations(self, clips: Sequence[Clip], labels: LabelSet, seed: int) -> Iterable[Annotation]:
        """The wanted rows of the file, about the clips of whatever split; a file without any is a mistake.

        Raises:
            InputError: The file is missing, a line is not an annotation, or no row is wanted.
        """
        if not Path(self.path).is_file():
            raise InputError(f"{self.path}: no such file of annotations; fix `path` of the source that names it")
        return self._wanted()

    def _wanted(self) -> Iterator[Annotation]:
        # Plain values: asking a configuration's lists about each of some 100,000 rows takes longer than reading them.
        tasks = None if self.tasks is None else frozenset(self.tasks)
        generators = None if self.generators is None else tuple(self.generators)
        passed_over: set[tuple[str, str]] = set()

        def is_wanted(line: str) -> bool:
            try:
                head = _Head.model_validate_json(line)
            except ValidationError:
                return True  # reading the whole row says what is wrong with it
            wanted = tasks is None or head.task in tasks
            wanted = wanted and (generators is None or head.generator.startswith(generators))
            if not wanted:
                passed_over.add((head.task, head.generator))
            return wanted

        num_wanted = 0
        for row in iterate_jsonl(Path(self.path), Annotation, is_wanted):
            num_wanted += 1
            yield row
        if not num_wanted and not passed_over:
            raise InputError(f"{self.path}: holds no annotation; write some, or leave out the source that names it")
        if not num_wanted:
            held = ", ".join(sorted(f"{task} by {generator}" for task, generator in passed_over)[:MOST_NAMED])
            chosen = {"tasks": self.tasks, "generators": self.generators}
            told = " ".join(f"{key}=[{','.join(names)}]" for key, names in chosen.items() if names is not None)
            raise InputError(f"{self.path}: no row fits {told}; it holds {held}")


class _Head(BaseModel):
    """What says whether a row is wanted: four sources may read one file, and whole rows take ten times as long."""

    task: str
    generator: str


@dataclass(frozen=True)
class SomeClips:
    """What a source says of a share of the clips, drawn by the seed: as if no more had been annotated.

    Attributes:
        source: The source.
        share: Of the clips.
    """

    source: AnnotationSource
    share: Fraction

    def annotations(self, clips: Sequence[Clip], labels: LabelSet, seed: int) -> Iterator[Annotation]:
        """The source's annotations of these clips; raises as it does."""
        drawn = [clip for clip in clips if generator_for(seed, "some clips", clip.id).random() < self.share]
        left_out = {clip.id for clip in clips} - {clip.id for clip in drawn}
        for annotation in self.source.annotations(drawn, labels, seed):
            if annotation.clip_id not in left_out:  # a file says what it has of all clips
                yield annotation
