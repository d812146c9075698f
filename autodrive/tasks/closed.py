"""Questions with a fixed set of answers that are written out, such as the weather."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autodrive.evaluation import by_video
from autodrive.labels import LabelSet
from autodrive.schema import Mode, Prediction, Question
from autodrive.tasks.reading import ParsedReply, parse_reply
from autodrive.tasks.task import ShownOptions, Task


@dataclass(frozen=True)
class ClosedTask(Task):
    """Options are values such as `near_collision`, shown and answered in words; the score is accuracy."""

    def options(self, question: Question, labels: LabelSet) -> ShownOptions:
        """The values with spaces, in one line."""
        words = _words(question)
        return ShownOptions(", ".join(words), words)

    def read(self, reply: str, question: Question, mode: Mode, labels: LabelSet) -> ParsedReply:
        """Read the words of exactly one option."""
        words = _words(question)
        return parse_reply(reply, mode, question.options, words, lettered=False, answer_block=self.answer_block)

    def score(self, predictions: Sequence[Prediction], labels: LabelSet, rng: np.random.Generator) -> dict[str, float]:
        """Accuracy over all questions (`accuracy`), how many they are (`n`), and the accuracy of each wording."""
        right = self.values(predictions, labels)["accuracy"]
        metrics = by_video.mean_with_interval("accuracy", right, predictions, rng) | {"n": float(len(right))}
        for question in sorted({p.question for p in predictions}):
            chosen = np.array([p.question == question for p in predictions])
            asked = [p for p in predictions if p.question == question]
            slug = re.sub(r"[^a-z0-9]+", "_", question.lower()).strip("_")
            metrics |= by_video.mean_with_interval(f"{slug}_accuracy", right[chosen], asked, rng)
        return metrics


def _words(question: Question) -> tuple[str, ...]:
    return tuple(value.replace("_", " ") for value in question.options)
