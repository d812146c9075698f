"""Predictions counted by source video, which is what intervals resample."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autodrive.errors import InputError
from autodrive.evaluation import classification, intervals
from autodrive.labels import LabelSet
from autodrive.schema import Prediction


def confusion_by_video(
    predictions: Sequence[Prediction], labels: LabelSet, videos: Sequence[str] | None = None
) -> NDArray[np.float64]:
    """Confusion counts of each source video, (K, C, C + 1); the last column counts replies that could not be read.

    `videos` fixes the K source videos and their order; by default they are those of the predictions, sorted.

    Raises:
        InputError: A reference answer is not a class of the label set.
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


def mean_with_interval(
    name: str, values_N: NDArray[np.float64], predictions: Sequence[Prediction], rng: np.random.Generator
) -> dict[str, float]:
    """The mean of one value in [0, 1] per prediction, with its interval, under the keys of `with_interval`."""
    cluster = intervals.cluster_index([p.source_video_id for p in predictions])
    sums_K = np.bincount(cluster, weights=values_N)
    sizes_K = np.bincount(cluster)
    counts_BK = intervals.resample_counts(len(sizes_K), rng)
    resampled = (counts_BK @ sums_K) / (counts_BK @ sizes_K)
    estimate = float(values_N.mean())
    return with_interval(name, estimate, intervals.score_interval(estimate, resampled, len(sizes_K)))


def with_interval(name: str, estimate: float, interval: intervals.Interval) -> dict[str, float]:
    """A score under its key, and the ends of its interval under `_ci_low` and `_ci_high`."""
    return {name: estimate, f"{name}_ci_low": interval.low, f"{name}_ci_high": interval.high}
