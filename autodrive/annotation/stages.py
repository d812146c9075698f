"""How annotations are made in stages, and where work goes: what a stage gets, what it gives, who runs it.

A stage takes one clip at a time. It is told what is true of it and what earlier stages kept about it, and gives
candidates, and for everything that came to nothing the reason. `autodrive/annotate.py` drives: it filters candidates,
remembers what is done and writes all files.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import Field, model_validator

from autodrive.annotation.facts import WindowFacts, facts_of
from autodrive.annotation.forecast import StageForecast
from autodrive.labels import LabelSet
from autodrive.schema import Annotation, Clip, Record, SetAside
from autodrive.tasks.task_book import TaskBook

Unit = Literal["request", "reply", "candidate"]


@dataclass(frozen=True)
class Item:
    """One unit of work of a stage.

    Attributes:
        clip: The clip; teachers may read its frames. Of its metadata nobody needs more than `facts`.
        facts: What is true of it within its seconds.
        label: Its class in the run's label set; None if it has none.
        annotations: What earlier stages kept about it, in their order.
    """

    clip: Clip
    facts: WindowFacts
    label: str | None
    annotations: tuple[Annotation, ...] = ()

    @classmethod
    def of(cls, clip: Clip, labels: LabelSet) -> "Item":
        """A clip about which nothing is annotated yet."""
        return cls(clip, facts_of(clip), labels.class_of(clip.label))


class Dropped(SetAside):
    """Something that came to nothing, and why: a line of dropped.jsonl.

    Attributes:
        unit: What is counted: a `request` that got no reply, a `reply` that could not be parsed, or a `candidate` (an
            annotation) that was not kept. One reply may give several candidates.
        stage: Name of the stage.
        clip_id: The clip it is about.
        clip_class: The clip's class in the run's label set.
    """

    unit: Unit
    stage: str
    clip_id: str
    clip_class: str | None


class Outcome(Record):
    """What a stage made of one item.

    Sums must hold: requests = replies + failed, and replies = parsed + unparsable. A rule is one request with one
    reply.

    Attributes:
        candidates: Annotations, before any filter.
        dropped: A row for each failed request and each unparsable reply, and for candidates that the stage itself did
            not keep; these are not among `candidates`.
        requests: Requests made.
        failed: Requests that got no reply.
        replies: Replies delivered.
        unparsable: Replies from which nothing could be read.
    """

    candidates: tuple[Annotation, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    requests: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)
    replies: int = Field(default=0, ge=0)
    unparsable: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _adds_up(self) -> "Outcome":
        if self.requests != self.replies + self.failed:
            raise ValueError(f"{self.requests} requests are not {self.replies} replies + {self.failed} failed")
        if self.unparsable > self.replies:
            raise ValueError(f"{self.unparsable} unparsable of {self.replies} replies")
        rows = [sum(row.unit == unit for row in self.dropped) for unit in ("request", "reply")]
        if rows != [self.failed, self.unparsable]:
            raise ValueError(f"{self.failed} failed, {self.unparsable} unparsable, but {rows} rows say why")
        return self


class Stage(Protocol):
    """One step in the making of annotations, such as captions, or traces that lead to the class."""

    @property
    def name(self) -> str:
        """Name in the funnel, of its own among the stages of a teacher."""
        ...

    @property
    def version(self) -> str:
        """Whatever outcomes depend on beside the item: rules and seed; model, prompt and sampling.

        Work that was done under another version is done again.
        """
        ...

    def items(self, in_hand: Sequence[Item]) -> Iterator[Item]:
        """What there is to do, at most one item per clip.

        Args:
            in_hand: Every clip, with what earlier stages kept about it.

        Yields:
            The items to work on. A stage may leave clips out, and choose the annotations that it is given.
        """
        ...

    def run(self, item: Item) -> Outcome:
        """Work on one item. It may be called from several threads or processes at once.

        Partial failure is an outcome with its reason in `dropped`.

        Raises:
            InputError: Nothing else would work either, such as a server that refuses the key: all work stops here.
            Paused: No more may be done for now.
        """
        ...


@dataclass(frozen=True)
class Setting:
    """What all stages of a run share.

    Attributes:
        labels: The run's classes.
        book: The tasks, whose words and readers are those of training and evaluation.
        seed: Seed of all draws.
    """

    labels: LabelSet
    book: TaskBook
    seed: int


class Teacher(Protocol):
    """Who makes annotations: an entry of the group `teacher`."""

    def stages(self, setting: Setting) -> Sequence[Stage]:
        """The stages in their order; a later one sees what earlier ones kept."""
        ...

    def forecast(self, setting: Setting, in_hand: Sequence[Item]) -> Sequence[StageForecast]:
        """What models would be asked about these clips; empty if none would be. Nothing is sent or written."""
        ...


class Executor(Protocol):
    """Runs a stage's items: in this process, in threads, in processes, or on other machines."""

    def map(self, function: Callable[[Item], Outcome], items: Iterable[Item]) -> Iterator[tuple[Item, Outcome]]:
        """Run a function on every item, on a bounded number of them at once.

        Items are drawn as they are needed. Outcomes come as they are finished, in any order. What the function raises
        is raised here; nothing is begun after it.
        """
        ...
