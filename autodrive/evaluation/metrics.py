"""The numbers of a run: predictions in, a flat dictionary of literal metric keys out."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autodrive.errors import InputError
from autodrive.evaluation import classification, intervals, parsers
from autodrive.labels import LabelSet
from autodrive.schema import Prediction

HEADLINE_TASK = "mcq"
CLOSED_TASK = "closed_qa"
SHARES_OF_ALL = frozenset({"accuracy", "binary_accuracy", "parse_failures"})


def metrics_from_predictions(
    predictions: Sequence[Prediction],
    labels: LabelSet,
    prefix: str = "test",
    rng: np.random.Generator | None = None,
) -> dict[str, float]:
    """Score a run.

    Keys are `{prefix}/{score}`. Scores are fractions and come with `_ci_low` and `_ci_high` (95 %, resampling source
    videos). Without an interval: `n`, `num_source_videos`, `parse_failure_count` and the predicted-class histogram
    `predicted_{class}`. Average precision is left out where a prediction has no option log-probabilities.
    `trace_emission_rate` is there in reasoning mode.

    Args:
        predictions: of one run in one mode; only the multiple-choice question and closed questions are scored here.
        labels: the classes of the multiple-choice question.
        prefix: `test` for direct replies, `test_reasoning` for reasoning replies.
        rng: draws the resamples; a fixed seed if None, so that the same predictions always give the same numbers.

    Raises:
        InputError: a reference answer is not a class of the label set.
        ValueError: the predictions mix inference modes, whose scores must never be averaged.
    """
    modes = {p.mode for p in predictions}
    if len(modes) > 1:
        raise ValueError("predictions mix direct and reasoning replies; score each mode with its own prefix")
    rng = rng or np.random.default_rng(0)
    headline = [p for p in predictions if p.task == HEADLINE_TASK]
    closed = [p for p in predictions if p.task == CLOSED_TASK]
    metrics: dict[str, float] = {}
    if headline:
        metrics |= headline_metrics(headline, labels, rng)
    if closed:
        metrics |= closed_question_metrics(closed, rng)
    if "reasoning" in modes:
        emitted = np.array([parsers.think_block(p.reply) is not None for p in predictions])
        metrics |= _share("trace_emission_rate", emitted, predictions, rng)
    return {f"{prefix}/{key}": value for key, value in metrics.items()}


def headline_metrics(predictions: Sequence[Prediction], labels: LabelSet, rng: np.random.Generator) -> dict[str, float]:
    """Scores of the multiple-choice question in one mode, without prefix; see `metrics_from_predictions`."""
    confusion_KCC = confusion_by_video(predictions, labels)
    num_videos = len(confusion_KCC)
    counts_BK = intervals.resample_counts(num_videos, rng)
    point = classification.scores(confusion_KCC.sum(axis=0), labels.names, labels.anomalous)
    resampled_confusion = np.tensordot(counts_BK, confusion_KCC, axes=1)
    resampled = classification.scores(resampled_confusion, labels.names, labels.anomalous)
    metrics: dict[str, float] = {
        "n": float(len(predictions)),
        "num_source_videos": float(num_videos),
        "parse_failure_count": float(confusion_KCC[..., -1].sum()),
    }
    for name, value in point.items():
        estimate = float(value)
        if name.startswith("predicted_"):
            metrics[name] = estimate
        elif name in SHARES_OF_ALL:
            interval = intervals.proportion_interval(estimate, resampled[name], num_videos)
            metrics |= _with_interval(name, estimate, interval)
        else:
            metrics |= _with_interval(name, estimate, intervals.percentile_interval(estimate, resampled[name]))
    return metrics | _average_precisions(predictions, labels, counts_BK)


def closed_question_metrics(predictions: Sequence[Prediction], rng: np.random.Generator) -> dict[str, float]:
    """Accuracy of the closed questions, over all (`closed_qa_accuracy`) and for each question's wording."""
    right = np.array([p.parsed == p.answer for p in predictions])
    metrics = _share("closed_qa_accuracy", right, predictions, rng) | {"closed_qa_n": float(len(right))}
    for question in sorted({p.question for p in predictions}):
        chosen = np.array([p.question == question for p in predictions])
        asked = [p for p in predictions if p.question == question]
        metrics |= _share(f"closed_qa_{_slug(question)}_accuracy", right[chosen], asked, rng)
    return metrics


def confusion_by_video(
    predictions: Sequence[Prediction], labels: LabelSet, videos: Sequence[str] | None = None
) -> NDArray[np.float64]:
    """Confusion counts of each source video, (K, C, C + 1); the last column counts replies that could not be read.

    `videos` fixes the K source videos and their order; by default they are those of the predictions, sorted.

    Raises:
        InputError: a reference answer is not a class of the label set.
    """
    for prediction in predictions:
        if prediction.answer not in labels.names:
            raise InputError(
                f"prediction {prediction.annotation_id}: answer {prediction.answer!r} is not a class of "
                f"labels={labels.name} ({', '.join(labels.names)}); score it with the label set it was made with"
            )
    num_classes = len(labels.names)
    true = classification.class_indices([p.answer for p in predictions], labels.names)
    predicted = classification.class_indices([p.parsed for p in predictions], labels.names)
    videos = videos if videos is not None else sorted({p.source_video_id for p in predictions})
    position = {video: index for index, video in enumerate(videos)}
    cluster = np.array([position[p.source_video_id] for p in predictions], dtype=np.int64)
    flat = (cluster * num_classes + true) * (num_classes + 1) + predicted
    counts = np.bincount(flat, minlength=len(videos) * num_classes * (num_classes + 1))
    return counts.reshape(len(videos), num_classes, num_classes + 1).astype(np.float64)


def _average_precisions(
    predictions: Sequence[Prediction], labels: LabelSet, counts_BK: NDArray[np.float64]
) -> dict[str, float]:
    rows = [
        classification.option_probabilities(p.options, p.option_log_probs, labels.names) if p.option_log_probs else None
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
        estimate = float(classification.average_precision(relevant, score))
        resampled = classification.average_precision(relevant, score, weights_BN)
        metrics |= _with_interval(key, estimate, intervals.percentile_interval(estimate, resampled))
    return metrics


def _share(
    name: str, hits_N: NDArray[np.bool_], predictions: Sequence[Prediction], rng: np.random.Generator
) -> dict[str, float]:
    cluster = intervals.cluster_index([p.source_video_id for p in predictions])
    hits_K = np.bincount(cluster, weights=hits_N)
    sizes_K = np.bincount(cluster)
    counts_BK = intervals.resample_counts(len(sizes_K), rng)
    resampled = (counts_BK @ hits_K) / (counts_BK @ sizes_K)
    estimate = float(hits_N.mean())
    return _with_interval(name, estimate, intervals.proportion_interval(estimate, resampled, len(sizes_K)))


def _with_interval(name: str, estimate: float, interval: intervals.Interval) -> dict[str, float]:
    return {name: estimate, f"{name}_ci_low": interval.low, f"{name}_ci_high": interval.high}


def _slug(question: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", question.lower()).strip("_")
