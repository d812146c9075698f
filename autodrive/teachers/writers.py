"""The roles: who describes, who asks, who reasons and who mends. Their words are in `conf/teacher_prompts/`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from autodrive.annotation.rules import ClassQuestion
from autodrive.annotation.stages import Item, Setting
from autodrive.schema import Annotation, Record
from autodrive.teachers.frames import AttachedFrames
from autodrive.teachers.roles import Role, Value, read_choice

Words = Annotated[str, Field(pattern=r"\S")]


class Caption(Record):
    """A description of the clip."""

    caption: Words


class Paraphrases(Record):
    """The same description in other words."""

    paraphrases: tuple[Words, ...] = Field(min_length=1, max_length=10)


class Pair(Record):
    """A question and its answer."""

    question: Words
    answer: Words


class AspectPair(Pair):
    """A question about one aspect of the clip, and its answer."""

    aspect: Literal["spatial", "environmental", "causal", "blame"]


class AspectPairs(Record):
    """Questions about several aspects."""

    pairs: tuple[AspectPair, ...] = Field(min_length=1, max_length=20)


class ShortPairs(Record):
    """Questions with answers of a few words."""

    pairs: tuple[Pair, ...] = Field(min_length=1, max_length=20)


class Triplet(Pair):
    """A hard question, the reasoning that leads to its answer, and the answer."""

    reasoning: Words


class Triplets(Record):
    """Hard questions with reasoning."""

    triplets: tuple[Triplet, ...] = Field(min_length=1, max_length=10)


class Choice(Record):
    """Reasoning that ends in the letter of an option."""

    reasoning: Words
    answer: Words


@dataclass(frozen=True)
class CaptionWriter(Role):
    """Sees the frames and nothing else: its captions are a second source beside the recorded facts.

    Attributes:
        task: The task that renders and scores its captions.
        shown: Which frames it sees.
        question: The question that its captions answer.
    """

    may_see: ClassVar[frozenset[Value]] = frozenset({"duration_s"})
    reply_form: ClassVar[type[Record]] = Caption

    task: str
    shown: AttachedFrames
    question: str

    @property
    def frames(self) -> AttachedFrames:
        """See `Role.frames`."""
        return self.shown

    def annotations(self, reply: Caption, item: Item, setting: Setting) -> Iterator[Annotation]:
        """One caption."""
        yield self.annotation(item, self.task, self.question, reply.caption)


@dataclass(frozen=True)
class Paraphraser(Role):
    """Says the recorded facts in other words, for variety.

    Attributes:
        task: The task that renders and scores its captions.
        question: The question that its captions answer.
    """

    may_see: ClassVar[frozenset[Value]] = frozenset({"rule_caption", "figures"})
    reply_form: ClassVar[type[Record]] = Paraphrases

    task: str
    question: str

    def annotations(self, reply: Paraphrases, item: Item, setting: Setting) -> Iterator[Annotation]:
        """A caption for each wording."""
        for text in reply.paraphrases:
            yield self.annotation(item, self.task, self.question, text)


@dataclass(frozen=True)
class QuestionWriter(Role):
    """Writes questions and answers from the recorded facts alone.

    Attributes:
        task: The task that renders and scores its questions.
    """

    may_see: ClassVar[frozenset[Value]] = frozenset({"rule_caption", "figures"})
    reply_form: ClassVar[type[Record]] = AspectPairs

    task: str

    def annotations(self, reply: AspectPairs, item: Item, setting: Setting) -> Iterator[Annotation]:
        """An annotation for each pair."""
        for pair in reply.pairs:
            yield self.annotation(item, self.task, pair.question, pair.answer)


@dataclass(frozen=True)
class ShortQuestionWriter(Role):
    """Writes questions that are answered in a few words, so that students do not forget to be short.

    Attributes:
        task: The task that renders and scores its questions.
    """

    may_see: ClassVar[frozenset[Value]] = frozenset({"rule_caption", "figures"})
    reply_form: ClassVar[type[Record]] = ShortPairs

    task: str

    def annotations(self, reply: ShortPairs, item: Item, setting: Setting) -> Iterator[Annotation]:
        """An annotation for each pair."""
        for pair in reply.pairs:
            yield self.annotation(item, self.task, pair.question, pair.answer)


@dataclass(frozen=True)
class ReasoningQuestionWriter(Role):
    """Writes hard questions with the reasoning that leads to their answers.

    Attributes:
        task: The task that renders and scores its questions.
    """

    may_see: ClassVar[frozenset[Value]] = frozenset({"rule_caption", "figures", "vlm_caption"})
    reply_form: ClassVar[type[Record]] = Triplets

    task: str

    def annotations(self, reply: Triplets, item: Item, setting: Setting) -> Iterator[Annotation]:
        """An annotation for each triplet."""
        for each in reply.triplets:
            yield self.annotation(item, self.task, each.question, each.answer, think=each.reasoning.strip())


@dataclass(frozen=True)
class TraceWriter(Role):
    """Reasons its way to the clip's class without being told it; a filter keeps traces that end at the truth.

    Attributes:
        asks: The question about the class, as students are asked it.
    """

    may_see: ClassVar[frozenset[Value]] = frozenset({"rule_caption", "figures", "vlm_caption", "question"})
    reply_form: ClassVar[type[Record]] = Choice

    asks: ClassQuestion

    def wants(self, item: Item) -> bool:
        """Without a class there is no truth to compare with."""
        return item.label is not None

    def annotations(self, reply: Choice, item: Item, setting: Setting) -> Iterator[Annotation]:
        """The trace with the class that it ends at, which need not be the true one."""
        (question,) = self.asks.questions(item.clip.id, setting.labels, setting.seed, 1)
        yield Annotation.create(
            item.clip.id,
            question.task,
            question.question,
            read_choice(reply.answer, question, setting),
            self.generator,
            question.options,
            think=reply.reasoning.strip(),
        )


@dataclass(frozen=True)
class TraceMender(TraceWriter):
    """Rewrites traces that were not kept; it is told the true class. Its traces pass the same filters."""

    may_see: ClassVar[frozenset[Value]] = frozenset({"rule_caption", "figures", "question", "label", "wrong_trace"})
