"""Answers in free words, such as captions, compared with one or several references."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torchmetrics.functional.text import rouge_score

from autodrive.evaluation import by_video
from autodrive.labels import LabelSet
from autodrive.schema import Mode, Prediction, Question
from autodrive.tasks.reading import ParsedReply, parse_free_reply
from autodrive.tasks.task import ShownOptions, Task


@dataclass(frozen=True)
class FreeTextTask(Task):
    """No options; the answer is whatever was written, in reasoning mode after the trace."""

    def options(self, question: Question, labels: LabelSet) -> ShownOptions:
        """Nothing: the answer is written freely, not chosen."""
        return ShownOptions()

    def read(self, reply: str, question: Question, mode: Mode, labels: LabelSet) -> ParsedReply:
        """The whole reply as it is, so that no direct one is a failure; in reasoning mode what follows the trace."""
        return parse_free_reply(reply, mode, self.answer_block)

    def values(self, predictions: Sequence[Prediction], labels: LabelSet) -> dict[str, NDArray[np.float64]]:
        """F-measure of ROUGE-L (Lin 2004) of each answer with the closest of its references; 0 where none was read."""
        return {"rouge_l": np.array([_closest_rouge_l(p) for p in predictions])}

    def score(self, predictions: Sequence[Prediction], labels: LabelSet, rng: np.random.Generator) -> dict[str, float]:
        """`rouge_l`: F-measure of ROUGE-L (Lin 2004) with the closest of a clip's references, and `n`."""
        values = self.values(predictions, labels)["rouge_l"]
        return by_video.mean_with_interval("rouge_l", values, predictions, rng) | {"n": float(len(values))}


def _closest_rouge_l(prediction: Prediction) -> float:
    references = [prediction.answer, *prediction.other_answers]
    found = rouge_score([prediction.parsed or ""], [references], accumulate="best", rouge_keys="rougeL")
    return float(found["rougeL_fmeasure"])
