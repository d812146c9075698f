"""Annotations whose answers are sure: the label's multiple-choice question and closed questions from metadata.

No model is asked. A field that a source does not have gives no question; nothing is guessed.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autodrive.labels import LabelSet
from autodrive.schema import Annotation, Clip, Question

GENERATOR = "rule/1"
MCQ_QUESTION = "What happens in this clip?"


@dataclass(frozen=True)
class ClosedQuestion:
    """A question with a fixed set of answers, and how to read the answer off a clip (None: not known)."""

    key: str
    question: str
    options: tuple[str, ...]
    answer: Callable[[Clip, str], str | None]


def _scene_value(key: str) -> Callable[[Clip, str], str | None]:
    """Reads what holds for the whole recording."""

    def read(clip: Clip, label: str) -> str | None:
        value = clip.metadata.get(key)
        return None if value is None else str(value)

    return read


def _hazard_value(key: str) -> Callable[[Clip, str], str | None]:
    """Reads what is true of the hazard, if the hazard lies in this window of the recording."""

    def read(clip: Clip, label: str) -> str | None:
        value = clip.metadata.get(key)
        moment_s = clip.metadata.get("hazard_time_s", clip.event_time_s)
        if value is None or moment_s is None or not clip.start_s <= moment_s < clip.end_s:
            return None
        return ("yes" if value else "no") if isinstance(value, bool) else str(value)

    return read


def _event_third(clip: Clip, label: str) -> str | None:
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


def generator_for(seed: int, *keys: object) -> np.random.Generator:
    """A random generator that depends on nothing but the seed and the keys."""
    digest = hashlib.sha256(repr((seed, *keys)).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


def mcq_questions(order_key: str, labels: LabelSet, seed: int, num_orders: int = 1) -> list[Question]:
    """The multiple-choice question, in `num_orders` different seeded option orders.

    The first order does not depend on `num_orders`, so evaluation (one order) asks what training may also ask.

    Args:
        order_key: what the orders depend on besides the seed: a clip's id, or a constant for one order in a whole run.
        labels: the classes to choose from.
        seed: of the orders.
        num_orders: how many; at most all there are.
    """
    random = generator_for(seed, order_key, "mcq")
    wanted = min(num_orders, math.factorial(len(labels.names)))
    orders: dict[tuple[str, ...], None] = {}
    while len(orders) < wanted:
        orders[tuple(labels.names[i] for i in random.permutation(len(labels.names)))] = None
    return [Question(task="mcq", question=MCQ_QUESTION, options=order) for order in orders]


def mcq_annotations(clip: Clip, label: str, questions: Sequence[Question]) -> list[Annotation]:
    """The label as the answer to `mcq_questions`."""
    return [Annotation.create(clip.id, q.task, q.question, label, GENERATOR, q.options) for q in questions]


def closed_annotations(clip: Clip, label: str, keys: Sequence[str]) -> list[Annotation]:
    """Closed questions about a clip whose answers its metadata hold; others are left out."""
    annotations = []
    for key in keys:
        question = CLOSED_QUESTIONS[key]
        answer = question.answer(clip, label)
        if answer in question.options:
            annotation = Annotation.create(clip.id, "closed_qa", question.question, answer, GENERATOR, question.options)
            annotations.append(annotation)
    return annotations
