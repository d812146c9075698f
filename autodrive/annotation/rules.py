"""Annotations whose answers are sure: the label's multiple-choice question and closed questions from metadata.

No model is asked. A field that a source does not have gives no question; nothing is guessed.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Le

from autodrive.annotation.balance import ask_fairly
from autodrive.annotation.facts import HazardFacts
from autodrive.annotation.stages import Item
from autodrive.bounds import Count, Distinct
from autodrive.errors import InputError
from autodrive.labels import LabelSet
from autodrive.schema import Annotation, Clip, Question
from autodrive.seeding import generator_for
from autodrive.video.chunker import NORMAL

GENERATOR = "rule/1"
OptionOrder = Literal["per_clip", "per_run"]


@dataclass(frozen=True)
class ClosedQuestion:
    """A question with a fixed set of answers, and how to read the answer off what is known (None: not known)."""

    key: str
    question: str
    options: tuple[str, ...]
    answer: Callable[[Item], str | None]


def _of_hazard(read: Callable[[HazardFacts], str | bool | None]) -> Callable[[Item], str | None]:
    """Reads what is true of the hazard, if the hazard lies in this window of the recording."""

    def answer(item: Item) -> str | None:
        value = None if item.facts.hazard is None else read(item.facts.hazard)
        return ("yes" if value else "no") if isinstance(value, bool) else value

    return answer


def _event_third(item: Item) -> str | None:
    """Which third of the clip holds the event; "never" for a clip known to hold none."""
    if item.label == NORMAL:
        return "never"
    if item.facts.event_time_s is None:
        return None
    return ("beginning", "middle", "end")[min(2, int(item.facts.event_time_s / item.facts.duration_s * 3))]


CLOSED_QUESTIONS: Mapping[str, ClosedQuestion] = {
    q.key: q
    for q in (
        ClosedQuestion("weather", "What is the weather?", ("clear", "rain", "fog"), lambda item: item.facts.weather),
        ClosedQuestion("light", "What is the light?", ("day", "dusk", "night"), lambda item: item.facts.light),
        ClosedQuestion(
            "other_road_user",
            "Which road user matters most?",
            ("car", "van", "truck", "pedestrian"),
            _of_hazard(lambda hazard: hazard.other_road_user),
        ),
        ClosedQuestion(
            "side", "Where does it come from?", ("left", "ahead", "right"), _of_hazard(lambda hazard: hazard.side)
        ),
        ClosedQuestion(
            "ego_brakes",
            "Does the ego vehicle brake hard?",
            ("yes", "no"),
            _of_hazard(lambda hazard: hazard.ego_brakes),
        ),
        ClosedQuestion("when", "When does the incident happen?", ("beginning", "middle", "end", "never"), _event_third),
    )
}


@dataclass(frozen=True)
class ClassQuestion:
    """Asks for the clip's class, as a multiple-choice question.

    Attributes:
        task: The task that renders and scores the question.
        num_orders: Option orders in which a clip is asked; at most all there are.
        option_order: `per_clip` shuffles the options of every clip, so that no letter stands for a class; `per_run`
            draws one order for a whole run, for a student too small to look letters up.
        question: The question as it is put to the student, before its options.
    """

    task: str
    num_orders: Annotated[Count, Le(720)] = 1
    option_order: OptionOrder = "per_clip"
    question: str = "What happens in this clip?"

    def annotations(self, clips: Sequence[Clip], labels: LabelSet, seed: int) -> Iterator[Annotation]:
        """Every labelled clip's class as the answer, in each of its option orders.

        Options are those that the student is shown. Its own set need not know the clip's label: the answer is in the
        run's set.
        """
        for clip in clips:
            label = labels.class_of(clip.label)
            if label is not None:
                for q in self.questions(clip.id, labels, seed, self.num_orders):
                    classes = labels.classes_of(q.options)
                    yield Annotation.create(
                        clip.id, q.task, q.question, label, GENERATOR, q.options, option_classes=classes
                    )

    def questions(self, clip_id: str, labels: LabelSet, seed: int, num_orders: int) -> list[Question]:
        """The question about one clip in up to `num_orders` option orders (one if drawn per run).

        The first order does not depend on `num_orders`, so what is asked once is among what is taught in several.
        """
        per_run = self.option_order == "per_run"
        random = generator_for(seed, "run" if per_run else clip_id, self.task)
        names = labels.shown.names
        wanted = 1 if per_run else min(num_orders, math.factorial(len(names)))
        orders: dict[tuple[str, ...], None] = {}
        while len(orders) < wanted:
            orders[tuple(names[i] for i in random.permutation(len(names)))] = None
        return [Question(task=self.task, question=self.question, options=order) for order in orders]


@dataclass(frozen=True)
class ClosedQuestions:
    """Asks closed questions about clips whose metadata hold the answers; others are left out.

    Attributes:
        task: The task that renders and scores the questions.
        keys: Which of the catalogue's questions are asked.
        balanced: Ask each question of so many clips of a split that no answer is much more frequent than others, and
            none can be guessed from the question; otherwise of all clips that are known to have an answer.
        catalogue: Every question there is, by the key that `keys` chooses it with.
    """

    task: str
    keys: Distinct[str]
    balanced: bool = False
    catalogue: Mapping[str, ClosedQuestion] = field(default_factory=lambda: CLOSED_QUESTIONS)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.keys) - set(self.catalogue))
        if unknown:
            known = ", ".join(self.catalogue)
            raise InputError(f"closed questions: unknown {', '.join(unknown)}; choose `keys` from {known}")

    def annotations(self, clips: Sequence[Clip], labels: LabelSet, seed: int) -> Iterator[Annotation]:
        """The questions whose answers are known, clip by clip."""
        questions = [self.catalogue[key] for key in self.keys]
        items = [Item.of(clip, labels) for clip in clips]
        known = [[answer if (answer := q.answer(i)) in q.options else None for q in questions] for i in items]
        if self.balanced:
            for number, key in enumerate(self.keys):
                asked = ask_fairly(clips, [row[number] for row in known], generator_for(seed, self.task, key))
                for row, answer in zip(known, asked, strict=True):
                    row[number] = None if answer is None else answer.answer
        for clip, answers in zip(clips, known, strict=True):
            for question, answer in zip(questions, answers, strict=True):
                if answer is not None:
                    yield Annotation.create(clip.id, self.task, question.question, answer, GENERATOR, question.options)
