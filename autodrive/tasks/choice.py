"""The class of a clip as a multiple-choice question, answered with a letter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autodrive.evaluation import by_video, classification, intervals
from autodrive.labels import LabelSet
from autodrive.schema import Annotation, Mode, Prediction, Question
from autodrive.tasks.reading import ParsedReply, parse_reply
from autodrive.tasks.task import ShownOptions, Task

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LetterStyle = Literal["A.", "(A)"]


@dataclass(frozen=True)
class ChoiceTask(Task):
    """Options are classes, each shown behind a letter; scores are those of a classification.

    A student that was taught another label set is asked and read in its own classes (`labels.shown`). What it chose is
    then folded into the run's, which references and scores are in.

    Attributes:
        letter_style: How the letters of options are shown; replies are read in either style, whichever is shown.
    """

    letter_style: LetterStyle = "A."

    def can_show(self, question: Question, labels: LabelSet) -> bool:
        """Whether all options are classes that the student is asked about."""
        return set(question.options) <= set(labels.shown.names)

    def folded(self, annotation: Annotation, labels: LabelSet) -> Annotation:
        """With an answer in the student's classes folded into the run's; one that is in the run's already stays."""
        if not labels.folds or annotation.option_classes or not self.can_show(annotation.without_answer(), labels):
            return annotation
        folded = {
            "option_classes": labels.classes_of(annotation.options),
            "answer": labels.counts_as[annotation.answer],
        }
        return annotation.model_copy(update=folded)

    @property
    def wording(self) -> Mapping[str, str]:
        """See `Task`; the usual style is no part of it, as in the hashes of runs from before there were two."""
        usual = self.letter_style == "A."
        return super().wording if usual else {**super().wording, "letter_style": self.letter_style}

    def options(self, question: Question, labels: LabelSet) -> ShownOptions:
        """A line an option: its letter and the class's option text."""
        letters = tuple(LETTERS[: len(question.options)])
        shown = [self.letter_style.replace("A", letter) for letter in letters]
        lines = [f"{letter} {text}" for letter, text in zip(shown, _texts(question, labels), strict=True)]
        return ShownOptions("\n".join(lines), letters)

    def read(self, reply: str, question: Question, mode: Mode, labels: LabelSet) -> ParsedReply:
        """Read a letter, or the words of exactly one option, and fold it into the run's classes."""
        texts = _texts(question, labels)
        read = parse_reply(reply, mode, question.options, texts, lettered=True, answer_block=self.answer_block)
        return read if read.value is None else replace(read, value=labels.counts_as[read.value])

    def values(self, predictions: Sequence[Prediction], labels: LabelSet) -> dict[str, NDArray[np.float64]]:
        """Whether the class is right, whether it is on the right side of incident or not, and whether none was read.

        `score` has the same means from its confusion counts, which it resamples once for all scores.
        """
        same_side = [
            p.parsed in labels.names and (p.parsed in labels.anomalous) == (p.answer in labels.anomalous)
            for p in predictions
        ]
        return super().values(predictions, labels) | {
            "binary_accuracy": np.array(same_side, dtype=np.float64),
            "parse_failures": np.array([p.parsed is None for p in predictions], dtype=np.float64),
        }

    def score(self, predictions: Sequence[Prediction], labels: LabelSet, rng: np.random.Generator) -> dict[str, float]:
        """Accuracies, the scores of each class, average precision, parse failures and what was predicted how often.

        Without an interval: `n`, `num_source_videos`, `parse_failure_count`, `predicted_{class}`, and where replies
        were folded from another label set `folded_classes`, the number of its classes. Left out is what does not exist:
        the precision of a class that was never chosen, the recall of one without a clip, the F1 of one with neither,
        average precision without a positive, or where a prediction has no option log-probabilities.

        Raises:
            InputError: A reference answer is not a class of the label set.
        """
        confusion_KCC = by_video.confusion_by_video(predictions, labels)
        num_videos = len(confusion_KCC)
        counts_BK = intervals.resample_counts(num_videos, rng)
        resampled_BCC = np.tensordot(counts_BK, confusion_KCC, axes=1)
        point, by_video_alone, resampled = (
            classification.scores(confusion, labels.names, labels.anomalous)
            for confusion in (confusion_KCC.sum(axis=0), confusion_KCC, resampled_BCC)
        )
        metrics: dict[str, float] = {
            "n": float(len(predictions)),
            "num_source_videos": float(num_videos),
            "parse_failure_count": float(confusion_KCC[..., -1].sum()),
        }
        if num_options := len({option for p in predictions if p.option_classes for option in p.options}):
            metrics["folded_classes"] = float(num_options)
        for name, value in point.items():
            estimate = float(value)
            if name.startswith("predicted_"):
                metrics[name] = estimate
            elif not np.isnan(estimate):
                taking_part = int((~np.isnan(by_video_alone[name])).sum())
                interval = intervals.score_interval(estimate, resampled[name], taking_part)
                metrics |= by_video.with_interval(name, estimate, interval)
        return metrics | _average_precisions(predictions, labels, counts_BK)


def _texts(question: Question, labels: LabelSet) -> tuple[str, ...]:
    return tuple(labels.shown[name].option for name in question.options)


def _average_precisions(
    predictions: Sequence[Prediction], labels: LabelSet, counts_BK: NDArray[np.float64]
) -> dict[str, float]:
    rows = [
        classification.option_probabilities(p.option_classes or p.options, p.option_log_probs, labels.names)
        if p.option_log_probs
        else None
        for p in predictions
    ]
    probabilities = np.array([row for row in rows if row is not None])
    if len(probabilities) < len(predictions):
        return {}
    answers = np.array([p.answer for p in predictions])
    cluster = intervals.cluster_index([p.source_video_id for p in predictions])
    weights_BN = counts_BK[:, cluster]
    anomalous = np.array([name in labels.anomalous for name in labels.names])
    rankings = {
        "average_precision": (np.isin(answers, list(labels.anomalous)), probabilities[:, anomalous].sum(axis=1))
    }
    for position, name in enumerate(labels.names):
        rankings[f"{name}_average_precision"] = (answers == name, probabilities[:, position])
    metrics: dict[str, float] = {}
    for key, (relevant, score) in rankings.items():
        if not relevant.any():
            continue
        estimate = float(classification.average_precision(relevant, score))
        resampled = classification.average_precision(relevant, score, weights_BN)
        interval = intervals.score_interval(estimate, resampled, len(np.unique(cluster[relevant])))
        metrics |= by_video.with_interval(key, estimate, interval)
    return metrics
