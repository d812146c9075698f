"""Rows of an ablation table: scores of one setting over its seeds, and paired tests between settings."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autodrive.evaluation import classification, intervals
from autodrive.evaluation.by_video import confusion_by_video
from autodrive.evaluation.classification import SHARES_OF_ALL
from autodrive.labels import LabelSet
from autodrive.reporting.published import same_value
from autodrive.reporting.run_folder import Value
from autodrive.reporting.sweep import RowRuns
from autodrive.schema import Prediction

Answers = Mapping[Path, Sequence[Prediction]]


@dataclass(frozen=True)
class Score:
    """A mean over seeds with its 95 % interval, as fractions."""

    value: float
    interval: intervals.Interval


@dataclass(frozen=True)
class AblationRow:
    """One row; `scores` is None where nothing of ours finished, `published` None where nothing is printed.

    Attributes:
        values: axis key to our value.
        paper_values: axis key to the paper's value that it stands for.
        num_clips: clips scored (those that all rows share).
        num_seeds: runs averaged.
        scores: metric name to mean and interval.
        seed_accuracies: accuracy of each run.
        num_unread: replies that could not be read, over all seeds.
        errors: one line per failed job of this row.
        published: the printed row.
    """

    values: dict[str, Value]
    paper_values: dict[str, Value]
    num_clips: int = 0
    num_seeds: int = 0
    scores: dict[str, Score] | None = None
    seed_accuracies: tuple[float, ...] = ()
    num_unread: int = 0
    errors: tuple[str, ...] = ()
    published: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """The row in a few words, with the paper's value where it differs."""
        return ", ".join(
            format_value(value)
            if same_value(value, self.paper_values[key])
            else f"{format_value(value)} (paper {format_value(self.paper_values[key])})"
            for key, value in self.values.items()
        )


@dataclass(frozen=True)
class RowComparison:
    """A paired test between two rows, by their names."""

    a: str
    b: str
    result: intervals.PairedComparison


def format_value(value: Value) -> str:
    """An axis value for people: 15 rather than 15.0, 1e-06 for small numbers."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def score_row(group: RowRuns, answers: Answers, labels: LabelSet | None, rng: np.random.Generator) -> AblationRow:
    """Average one setting's seeds; a row without scores if none of them finished.

    Args:
        group: the runs of the row.
        answers: run folder to the predictions to score.
        labels: the classes; None if no run finished.
        rng: draws the bootstrap resamples.
    """
    errors = tuple(f"{run.path.name}: {run.error}" for run in group.failed)
    if not group.finished or labels is None:
        return AblationRow(group.values, group.paper_values, errors=errors)
    replies = [answers[run.path] for run in group.finished]
    videos = sorted({p.source_video_id for seed in replies for p in seed})
    confusion_SKCC = np.stack([confusion_by_video(seed, labels, videos) for seed in replies])
    seed_scores = classification.scores(confusion_SKCC.sum(axis=1), labels.names, labels.anomalous)
    return AblationRow(
        group.values,
        group.paper_values,
        num_clips=len({p.clip_id for seed in replies for p in seed}),
        num_seeds=len(replies),
        scores=_scores_with_intervals(confusion_SKCC, seed_scores, labels, rng),
        seed_accuracies=tuple(float(value) for value in seed_scores["accuracy"]),
        num_unread=int(confusion_SKCC[..., -1].sum()),
        errors=errors,
    )


def _scores_with_intervals(
    confusion_SKCC: NDArray[np.float64], seed_scores: dict, labels: LabelSet, rng: np.random.Generator
) -> dict[str, Score]:
    num_seeds, num_videos = confusion_SKCC.shape[:2]
    video_counts_BK = intervals.resample_counts(num_videos, rng)
    seed_counts_BS = intervals.resample_counts(num_seeds, rng)
    resampled_BSCC = np.einsum("bk,skij->bsij", video_counts_BK, confusion_SKCC, optimize=True)
    resampled = classification.scores(resampled_BSCC, labels.names, labels.anomalous)
    scores: dict[str, Score] = {}
    for name, per_seed in seed_scores.items():
        estimate = float(per_seed.mean())
        means_B = (resampled[name] * seed_counts_BS).sum(axis=1) / num_seeds
        if name in SHARES_OF_ALL:
            interval = intervals.proportion_interval(estimate, means_B, num_videos)
        else:
            interval = intervals.percentile_interval(estimate, means_B)
        scores[name] = Score(estimate, interval)
    return scores


def compare_rows(
    groups: Sequence[RowRuns], rows: Sequence[AblationRow], answers: Answers, rng: np.random.Generator
) -> list[RowComparison]:
    """Paired tests between all rows that finished; `answers` hold the same clips for every run."""
    finished = [(group, row) for group, row in zip(groups, rows, strict=True) if row.scores]
    if len(finished) < 2:
        return []
    first = answers[finished[0][0].finished[0].path]
    video_of = {p.clip_id: p.source_video_id for p in first}
    clips = sorted(video_of)
    clusters = intervals.cluster_index([video_of[clip] for clip in clips])
    correct = {
        row.name: np.stack([_correct_by_clip(answers[run.path], clips) for run in group.finished])
        for group, row in finished
    }
    return [
        RowComparison(a, b, intervals.compare_paired(correct[a], correct[b], clusters, rng))
        for a, b in combinations(correct, 2)
    ]


def _correct_by_clip(predictions: Sequence[Prediction], clips: Sequence[str]) -> NDArray[np.float64]:
    asked: Counter[str] = Counter(p.clip_id for p in predictions)
    right: Counter[str] = Counter(p.clip_id for p in predictions if p.parsed == p.answer)
    return np.array([right[clip] / asked[clip] for clip in clips])
