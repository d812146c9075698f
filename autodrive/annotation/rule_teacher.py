"""Annotation sources as stages: rules that training could draw from directly, put through filters and written down."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from autodrive.annotation.forecast import StageForecast
from autodrive.annotation.sources import AnnotationSource
from autodrive.annotation.stages import Item, Outcome, Setting, Stage
from autodrive.errors import InputError
from autodrive.schema import Annotation


@dataclass(frozen=True)
class RuleTeacher:
    """Says what follows from facts. Every source is a stage of its name.

    Attributes:
        sources: The sources by name.
    """

    sources: Mapping[str, AnnotationSource]

    def stages(self, setting: Setting) -> Sequence[Stage]:
        """See `Teacher.stages`; raises InputError if a source is for a task that does not exist."""
        for name, source in self.sources.items():
            task = getattr(source, "task", None)
            if task is not None and task not in setting.book.tasks:
                known = ", ".join(setting.book.tasks)
                raise InputError(f"teacher.sources.{name}.task={task}: no such task; choose from {known}")
        return [RuleStage(name, source, setting) for name, source in self.sources.items()]

    def forecast(self, setting: Setting, in_hand: Sequence[Item]) -> Sequence[StageForecast]:
        """See `Teacher.forecast`: no model is asked."""
        return []


@dataclass(frozen=True)
class RuleStage:
    """One source as a stage.

    What a source says of a clip may depend on other clips: it balances answers over all of them. So it is asked once,
    about all, and an item carries what it says of its clip.

    Attributes:
        name: Name of the source.
        source: The rule.
        setting: Classes, tasks and seed.
    """

    name: str
    source: AnnotationSource
    setting: Setting

    @property
    def version(self) -> str:
        """Nothing: all that the outcome consists of is in the item."""
        return ""

    def items(self, in_hand: Sequence[Item]) -> Iterator[Item]:
        """One item for each clip of which the rule says anything."""
        said: dict[str, list[Annotation]] = {item.clip.id: [] for item in in_hand}
        clips = [item.clip for item in in_hand]
        for annotation in self.source.annotations(clips, self.setting.labels, self.setting.seed):
            if annotation.clip_id in said:  # a file may have rows about others
                said[annotation.clip_id].append(annotation)
        for item in in_hand:
            if said[item.clip.id]:
                yield replace(item, annotations=tuple(said[item.clip.id]))

    def run(self, item: Item) -> Outcome:
        """What the rule says of the clip, as candidates."""
        return Outcome(candidates=item.annotations, requests=1, replies=1)
