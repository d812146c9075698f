"""From sources to clips that carry their annotations: what is taught, or what is asked."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from autodrive.annotation.sources import AnnotationSource, is_reference
from autodrive.labels import LabelSet
from autodrive.schema import Annotation, Clip, Question, SetAside
from autodrive.tasks.task_book import TaskBook


@dataclass(frozen=True)
class AnnotatedClip:
    """A clip with its class in the run's label set and its annotations.

    Attributes:
        clip: The window of video that is annotated.
        label: Its class; None where the source gives none, or one that the label set cannot express.
        by_source: Its annotations by the name of their source, in the order of the configuration.
    """

    clip: Clip
    label: str | None
    by_source: Mapping[str, tuple[Annotation, ...]] = field(default_factory=dict)

    @property
    def annotations(self) -> tuple[Annotation, ...]:
        """All annotations, source after source."""
        return tuple(annotation for members in self.by_source.values() for annotation in members)

    def questions(self) -> Iterator[tuple[str, Question]]:
        """What to ask about the clip: each question under the id of its (first) annotation.

        A question without options is asked once, however many references it has.
        """
        asked = set()
        for annotation in self.annotations:
            question = annotation.without_answer()
            if question.options or question not in asked:
                yield annotation.id, question
            asked.add(question)


@dataclass(frozen=True)
class Supply:
    """What sources gave: annotated clips in their order, and annotations that no use is made of, with the reason."""

    clips: list[AnnotatedClip]
    set_aside: list[SetAside]


def supply(
    sources: Mapping[str, AnnotationSource],
    clips: Sequence[Clip],
    known: Collection[str],
    book: TaskBook,
    labels: LabelSet,
    seed: int,
    *,
    as_references: bool = False,
) -> Supply:
    """Ask every source for its annotations of some clips.

    Set aside are annotations of clips that the manifest does not hold (`unknown_clip`), of tasks that the book does not
    hold (`unknown_task`), that another row or source has given (`duplicate`), whose id another row has that says
    something else (`id_of_another_row`), and those that cannot be taught, with the task's reason. Rows about clips of
    other splits are not for here and are passed over.

    Args:
        sources: The sources by name.
        clips: The clips to annotate.
        known: Ids of all clips of the manifest.
        book: The tasks that exist; an annotation of any other is set aside.
        labels: The run's classes; sources ask about them, and clips are labelled by them.
        seed: Seed of the run.
        as_references: The answers are what replies are scored against. Those that are not known to be true, because a
            model wrote them, are set aside as `not_a_reference`.

    Raises:
        InputError: A source's file is missing or broken.
    """
    found: dict[str, dict[str, list[Annotation]]] = {clip.id: {} for clip in clips}
    set_aside: list[SetAside] = []
    seen: dict[str, Annotation] = {}
    for name, source in sources.items():
        for given in source.annotations(clips, labels, seed):
            if given.clip_id not in found and given.clip_id in known:
                continue
            annotation = given
            if given.clip_id not in known:
                reason = "unknown_clip"
            elif given.task not in book.tasks:
                reason = "unknown_task"
            elif given.id in seen:
                reason = "duplicate" if seen[given.id].content == given.content else "id_of_another_row"
            elif as_references and not is_reference(given):
                reason = f"not_a_reference: {given.generator.partition(':')[0]}"
            else:
                annotation = book[given.task].folded(given, labels)
                reason = book[given.task].why_not_teachable(annotation, labels)
            if reason is not None:
                detail = f"source {name}: {given.task} of clip {given.clip_id}"
                set_aside.append(SetAside(item=given.id, reason=reason, detail=detail))
                continue
            seen[given.id] = given
            found[given.clip_id].setdefault(name, []).append(annotation)
    annotated = []
    for clip in clips:
        by_source = {name: tuple(members) for name, members in found[clip.id].items()}
        annotated.append(AnnotatedClip(clip, labels.class_of(clip.label), by_source))
    return Supply(annotated, set_aside)
