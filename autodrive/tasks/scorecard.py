"""The numbers of a run: predictions in, a flat dictionary of literal metric keys out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autodrive.evaluation import by_video
from autodrive.evaluation.slices import by_slice
from autodrive.labels import LabelSet
from autodrive.schema import Prediction
from autodrive.tasks.reading import think_block
from autodrive.tasks.task_book import TaskBook

TRACE_RATE = "trace_emission_rate"


def scorecard(
    predictions: Sequence[Prediction],
    book: TaskBook,
    labels: LabelSet,
    prefix: str = "test",
    rng: np.random.Generator | None = None,
) -> dict[str, float]:
    """Score a run: every task scores its own predictions.

    Keys are `{prefix}/{score}` for the headline task and `{prefix}/{task}_{score}` for the others. Scores are fractions
    and come with `_ci_low` and `_ci_high` (95 %, resampling source videos). `trace_emission_rate` is there in reasoning
    mode.

    Args:
        predictions: Predictions of one run in one mode.
        book: The tasks that score them.
        labels: The run's classes, which references and replies name.
        prefix: First part of every key, such as `test` for direct and `test_reasoning` for reasoning replies.
        rng: Draws the resamples; a fixed seed if None, so that the same predictions always give the same numbers.

    Raises:
        InputError: A task is not in the book, or as the task's `score` does.
        ValueError: The predictions mix inference modes, whose scores must never be averaged.
    """
    modes = {p.mode for p in predictions}
    if len(modes) > 1:
        raise ValueError("predictions mix direct and reasoning replies; score each mode with its own prefix")
    rng = rng or np.random.default_rng(0)
    by_task = {book[p.task].name: [] for p in predictions}
    for prediction in predictions:
        by_task[prediction.task].append(prediction)
    metrics: dict[str, float] = {}
    for name, task in book.tasks.items():
        if name in by_task:
            scores = task.score(by_task[name], labels, rng)
            metrics |= scores if name == book.headline else {f"{name}_{key}": value for key, value in scores.items()}
    if "reasoning" in modes:
        metrics |= by_video.mean_with_interval(TRACE_RATE, trace_values(predictions), predictions, rng)
    return {f"{prefix}/{key}": value for key, value in metrics.items()}


def slice_scores(
    predictions: Sequence[Prediction],
    metadata: Mapping[str, Mapping[str, Any]],
    keys: Sequence[str],
    book: TaskBook,
    labels: LabelSet,
    prefix: str,
) -> dict[str, float]:
    """The headline task's scores of parts of the clips, such as those at night.

    Keys are `{prefix}/{key}_{value}_{score}` with `_ci_low` and `_ci_high`, and `{prefix}/{key}_{value}_n`; only scores
    that are means over predictions have slices. Clips of which nobody knows the value are a part of their own,
    `unknown`.

    Args:
        predictions: Predictions of one run in one mode.
        metadata: Metadata of the clips by their id.
        keys: What parts are told apart by.
        book: Its headline task scores.
        labels: The run's classes.
        prefix: First part of every key.
    """
    asked = [p for p in predictions if p.task == book.headline]
    metrics: dict[str, float] = {}
    for key in keys:
        for value, places in by_slice([p.clip_id for p in asked], metadata, key).items():
            members = [asked[place] for place in places]
            metrics[f"{prefix}/{key}_{value}_n"] = float(len(members))
            for score, values_N in book[book.headline].values(members, labels).items():
                rng = np.random.default_rng(0)
                metrics |= by_video.mean_with_interval(f"{prefix}/{key}_{value}_{score}", values_N, members, rng)
    return metrics


def trace_values(predictions: Sequence[Prediction]) -> NDArray[np.float64]:
    """Whether each reply has a trace, which is asked of every task in reasoning mode: 0 or 1."""
    return np.array([think_block(p.reply) is not None for p in predictions], dtype=np.float64)
