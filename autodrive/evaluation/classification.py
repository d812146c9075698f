"""Scores of a classification: confusion counts, precision, recall, F1, accuracies, average precision.

Letters in shapes: C classes, N items, `...` any leading axes (bootstrap resamples). A confusion array is
(..., C, C + 1): rows are the true class, columns the predicted one, the last column replies that could not be read.
Those replies stay in N and are wrong everywhere. A score that does not exist, such as the recall of a class without an
item, is nan here; whoever shows scores leaves it out.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def class_indices(values: Sequence[str | None], names: Sequence[str]) -> NDArray[np.int64]:
    """Positions of class names; None and anything that is not a class become C, the column of the unread."""
    index: dict[str | None, int] = {name: position for position, name in enumerate(names)}
    return np.array([index.get(value, len(names)) for value in values], dtype=np.int64)


def confusion_matrix(true_N: NDArray[np.int64], predicted_N: NDArray[np.int64], num_classes: int) -> Floats:
    """Counts as a (C, C + 1) confusion array."""
    flat = true_N * (num_classes + 1) + predicted_N
    counts = np.bincount(flat, minlength=num_classes * (num_classes + 1))
    return counts.reshape(num_classes, num_classes + 1).astype(np.float64)


def scores(confusion: Floats, names: Sequence[str], anomalous: frozenset[str]) -> dict[str, Floats]:
    """All scores that follow from confusion counts, each of shape (...).

    Precision is TP / (TP + FP), recall TP / (TP + FN), F1 their harmonic mean 2 TP / (2 TP + FP + FN); nan where the
    denominator is zero. Macro F1 is the mean over the classes that have an F1. Accuracy divides by all items. Binary
    accuracy is the collapsed answer: right if truth and reply are both anomalous classes or both not.
    """
    correct = np.diagonal(confusion[..., :-1], axis1=-2, axis2=-1)
    actual = confusion.sum(axis=-1)
    predicted = confusion.sum(axis=-2)
    total = actual.sum(axis=-1)
    f1 = _ratio(2 * correct, actual + predicted[..., :-1])
    is_anomalous = np.array([name in anomalous for name in names])
    same_side = is_anomalous[:, None] == is_anomalous[None, :]
    result = {
        "accuracy": _ratio(correct.sum(axis=-1), total),
        "binary_accuracy": _ratio((confusion[..., :-1] * same_side).sum(axis=(-2, -1)), total),
        "macro_f1": _ratio(np.nansum(f1, axis=-1), (~np.isnan(f1)).sum(axis=-1)),
        "parse_failures": _ratio(predicted[..., -1], total),
    }
    for position, name in enumerate(names):
        result[f"{name}_precision"] = _ratio(correct[..., position], predicted[..., position])
        result[f"{name}_recall"] = _ratio(correct[..., position], actual[..., position])
        result[f"{name}_f1"] = f1[..., position]
        result[f"predicted_{name}"] = _ratio(predicted[..., position], total)
    return result


def average_precision(relevant_N: NDArray[np.bool_], score_N: Floats, weight_N: Floats | None = None) -> Floats:
    """Area under the precision-recall steps: sum of precision times the gain in recall, ties taken together.

    Args:
        relevant_N: Which items are positives.
        score_N: Larger means more likely positive.
        weight_N: (..., N) how often each item counts (a bootstrap resample); once each if None.

    Returns:
        Shape (...); nan where no positive carries weight.
    """
    weights = np.ones(len(score_N)) if weight_N is None else weight_N
    order = np.argsort(-score_N)
    weights = weights[..., order]
    last_of_tie = np.append(np.diff(score_N[order]) != 0, True)
    retrieved = np.cumsum(weights, axis=-1)[..., last_of_tie]
    hits = np.cumsum(weights * relevant_N[order], axis=-1)[..., last_of_tie]
    gained = np.diff(hits, prepend=0.0)
    precision = hits / np.where(retrieved > 0, retrieved, 1.0)
    return _ratio((precision * gained).sum(axis=-1), hits[..., -1])


def option_probabilities(
    options: Sequence[str], log_probs: Sequence[float], names: Sequence[str]
) -> NDArray[np.float64] | None:
    """Softmax of the options' log-probabilities, by class, (C,); None if a class is no option, or an option no class.

    Args:
        options: The class that each option stands for; the probabilities of several options of one class are added.
        log_probs: Log-probability of each option.
        names: Class names, in the order of the result.
    """
    if set(options) != set(names):
        return None
    classes, logits = np.array([(names.index(o), p) for o, p in zip(options, log_probs, strict=True)]).T
    by_class = np.argsort(classes)  # whatever the order shown, sums are rounded alike
    exponentials = np.exp(logits[by_class] - logits.max())
    probabilities = exponentials / exponentials.sum()
    return np.bincount(classes[by_class].astype(np.int64), probabilities).astype(np.float64)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)
