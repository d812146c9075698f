"""Annotations whose answers are sure: the label's multiple-choice question and closed questions from metadata.

No model is asked. A field that a source does not have gives no question; nothing is guessed.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Le

from autodrive.bounds import Count, Distinct
from autodrive.errors import InputError
from autodrive.labels import LabelSet
from autodrive.schema import Annotation, Clip, Question
from autodrive.seeding import generator_for

GENERATOR = "rule/1"
OptionOrder = Literal["per_clip", "per_run"]


@dataclass(frozen=True)
class ClosedQuestion:
    """A question with a fixed set of answers, and how to read the answer off a clip (None: not known)."""

    key: str
    question: str
    options: tuple[str, ...]
    answer: Callable[[Clip, str | None], str | None]


def _scene_value(key: str) -> Callable[[Clip, str | None], str | None]:
    """Reads what holds for the whole recording."""

    def read(clip: Clip, label: str | None) -> str | None:
        value = clip.metadata.get(key)
        return None if value is None else str(value)

    return read


def _hazard_value(key: str) -> Callable[[Clip, str | None], str | None]:
    """Reads what is true of the hazard, if the hazard lies in this window of the recording."""

    def read(clip: Clip, label: str | None) -> str | None:
        value = clip.metadata.get(key)
        moment_s = clip.metadata.get("hazard_time_s", clip.event_time_s)
        if value is None or moment_s is None or not clip.start_s <= moment_s < clip.end_s:
            return None
        return ("yes" if value else "no") if isinstance(value, bool) else str(value)

    return read


def _event_third(clip: Clip, label: str | None) -> str | None:
    """Which third of the clip holds the event; "never" for a clip known to hold none."""
    if label == "normal":
        return "never"
    if clip.event_time_s is None:
        return None
    thirds = ("beginning", "middle", "end")
    position = (clip.event_time_s - clip.start_s) / (clip.end_s - clip.start_s)
    return thirds[int(position * 3)] if 0 <= position < 1 else None


CLOSED_QUESTIONS: Mapping[str, ClosedQuestion] = {
    q.key: q
    for q in (
        ClosedQuestion("weather", "What is the weather?", ("clear", "rain", "fog"), _scene_value("weather")),
        ClosedQuestion("light", "What is the light?", ("day", "dusk", "night"), _scene_value("light")),
        ClosedQuestion(
            "other_road_user",
            "Which road user matters most?",
            ("car", "van", "truck", "pedestrian"),
            _hazard_value("other_road_user"),
        ),
        ClosedQuestion("side", "Where does it come from?", ("left", "ahead", "right"), _hazard_value("side")),
        ClosedQuestion("ego_brakes", "Does the ego vehicle brake hard?", ("yes", "no"), _hazard_value("ego_brakes")),
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
            label = class_of(clip, labels)
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
        catalogue: Every question there is, by the key that `keys` chooses it with.
    """

    task: str
    keys: Distinct[str]
    catalogue: Mapping[str, ClosedQuestion] = field(default_factory=lambda: CLOSED_QUESTIONS)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.keys) - set(self.catalogue))
        if unknown:
            known = ", ".join(self.catalogue)
            raise InputError(f"closed questions: unknown {', '.join(unknown)}; choose `keys` from {known}")

    def annotations(self, clips: Sequence[Clip], labels: LabelSet, seed: int) -> Iterator[Annotation]:
        """The questions whose answers are known, clip by clip."""
        for clip in clips:
            label = class_of(clip, labels)
            for question in (self.catalogue[key] for key in self.keys):
                answer = question.answer(clip, label)
                if answer in question.options:
                    yield Annotation.create(clip.id, self.task, question.question, answer, GENERATOR, question.options)


def class_of(clip: Clip, labels: LabelSet) -> str | None:
    """The clip's class in this label set; None if the clip has no label or the set cannot express it."""
    return None if clip.label is None else labels.class_of(clip.label)
