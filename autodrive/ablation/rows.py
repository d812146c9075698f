"""Rows of an ablation table: scores of one setting over its seeds, and its values clip by clip."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autodrive.ablation.answers import RunAnswers
from autodrive.ablation.axes import RowRuns
from autodrive.ablation.published import ROW_NAME, same_value
from autodrive.evaluation import classification, intervals
from autodrive.evaluation.by_video import confusion_by_video
from autodrive.evaluation.paired_test import PairedTest, RowValues, SeedNoise, paired_test, seed_noise
from autodrive.labels import LabelSet
from autodrive.runs.folder import Value

Floats = NDArray[np.float64]
Replicates = Sequence[Sequence[RunAnswers]]  # runs of each seed


@dataclass(frozen=True)
class Score:
    """A mean over seeds with its 95 % interval, as fractions, and the mean of each seed."""

    value: float
    interval: intervals.Interval
    by_seed: tuple[float, ...]


@dataclass(frozen=True)
class AblationRow:
    """One row; `scores` is None where nothing of ours finished, `published` None where nothing is printed.

    Attributes:
        values: Axis key to our value.
        paper_values: Axis key to the paper's value that it stands for.
        num_clips: Number of clips scored, those that all rows share.
        num_seeds: Number of different training seeds that scores are averaged over.
        scores: Metric key to mean and interval.
        num_unread: Direct replies to the headline task that could not be read, over all seeds.
        errors: One line per failed job of this row.
        published: The printed row that stands beside ours.
    """

    values: dict[str, Value]
    paper_values: dict[str, Value]
    num_clips: int = 0
    num_seeds: int = 0
    scores: dict[str, Score] | None = None
    num_unread: int = 0
    errors: tuple[str, ...] = ()
    published: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """The row in a few words: our values, with the paper's where they differ, or what the paper prints."""
        if self.scores is None and self.published and ROW_NAME in self.published:
            return str(self.published[ROW_NAME])
        shown = [axis_text(self, key) for key, value in self.values.items() if value is not None]
        return ", ".join(shown) or "default"


def axis_text(row: AblationRow, key: str) -> str:
    """An axis value of ours for people, with the paper's where it differs."""
    value, paper = row.values.get(key), row.paper_values.get(key)
    if same_value(value, paper):
        return format_value(value)
    return f"{format_value(value)} (paper {format_value(paper)})"


def format_value(value: Value) -> str:
    """An axis value for people: 15 rather than 15.0, 1e-06 for small numbers."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def score_row(
    group: RowRuns,
    answers: Mapping[Path, RunAnswers],
    labels: LabelSet | None,
    keys: Sequence[str],
    rng: np.random.Generator,
) -> AblationRow:
    """Average one setting's seeds; a row without scores if none of them finished.

    Scores of the classes come from the replies, and so do means over replies: on the given clips, with intervals that
    resample source videos and seeds. Any other metric is the mean of what `metrics.json` of each run says.

    Args:
        group: The runs of the row, all evaluated on one split.
        answers: Run folder to the answers to score.
        labels: The classes; None if no run finished.
        keys: Metric keys to score besides those of the classes; what the runs do not have is left out.
        rng: Draws the bootstrap resamples.
    """
    errors = tuple(f"{run.path.name}: {run.error}" for run in group.failed)
    if not group.finished or labels is None:
        return AblationRow(group.values, group.paper_values, errors=errors)
    replicates = [[answers[run.path] for run in runs] for runs in group.by_seed().values()]
    scores: dict[str, Score] = {}
    split = replicates[0][0].split
    for prefix in (split, f"{split}_reasoning"):
        scores |= _class_scores(replicates, labels, prefix, rng)
    for key in keys:
        score = None if key in scores else _mean_of_replies(replicates, key, rng) or _mean_of_runs(replicates, key)
        if score is not None:
            scores[key] = score
    everything = [run for runs in replicates for run in runs]
    return AblationRow(
        group.values,
        group.paper_values,
        num_clips=len(set.union(*(run.clips for run in everything))),
        num_seeds=len(replicates),
        scores=scores,
        num_unread=sum(p.parsed is None for run in everything for p in run.headline_of(split)),
        errors=errors,
    )


def _class_scores(replicates: Replicates, labels: LabelSet, prefix: str, rng: np.random.Generator) -> dict[str, Score]:
    asked = [[run.headline_of(prefix) for run in runs] for runs in replicates]
    if not all(replies for runs in asked for replies in runs):
        return {}
    videos = sorted({p.source_video_id for runs in asked for replies in runs for p in replies})
    confusion_SKCC = np.stack(
        [np.mean([confusion_by_video(replies, labels, videos) for replies in runs], axis=0) for runs in asked]
    )
    num_seeds, num_videos = confusion_SKCC.shape[:2]
    by_seed, by_video_alone = (
        classification.scores(confusion, labels.names, labels.anomalous)
        for confusion in (confusion_SKCC.sum(axis=1), confusion_SKCC.sum(axis=0))
    )
    video_counts_BK = intervals.resample_counts(num_videos, rng)
    seed_counts_BS = intervals.resample_counts(num_seeds, rng)
    resampled_BSCC = np.einsum("bk,skij->bsij", video_counts_BK, confusion_SKCC, optimize=True)
    resampled = classification.scores(resampled_BSCC, labels.names, labels.anomalous)
    scores: dict[str, Score] = {}
    for name, values_S in by_seed.items():
        estimate = float(values_S.mean())
        if np.isnan(estimate):  # a mean over seeds exists where each of them has the score
            continue
        drawn_BS = np.where(seed_counts_BS > 0, resampled[name] * seed_counts_BS, 0.0)
        taking_part = int((~np.isnan(by_video_alone[name])).sum())
        interval = intervals.score_interval(estimate, drawn_BS.sum(axis=1) / num_seeds, taking_part)
        scores[f"{prefix}/{name}"] = Score(estimate, interval, tuple(map(float, values_S)))
    return scores


def _mean_of_replies(replicates: Replicates, key: str, rng: np.random.Generator) -> Score | None:
    matrix = _values_by_seed(replicates, key)
    if matrix is None:
        return None
    clips, values_SN = matrix
    num_seeds = len(values_SN)
    video_N = intervals.cluster_index(_videos_of(replicates, clips))
    counts_BN = intervals.resample_counts(int(video_N.max()) + 1, rng)[:, video_N]
    means_BS = counts_BN @ values_SN.T / counts_BN.sum(axis=1, keepdims=True)
    means_B = (means_BS * intervals.resample_counts(num_seeds, rng)).sum(axis=1) / num_seeds
    by_seed = tuple(map(float, values_SN.mean(axis=1)))
    estimate = float(np.mean(by_seed))
    return Score(estimate, intervals.score_interval(estimate, means_B, int(video_N.max()) + 1), by_seed)


def _mean_of_runs(replicates: Replicates, key: str) -> Score | None:
    """The mean over seeds of a metric that each run computed for itself, and of the ends of its interval."""

    def by_seed(name: str) -> Floats:
        return np.array([float(np.mean([run.run.metrics[name] for run in runs])) for runs in replicates])

    names = (key, f"{key}_ci_low", f"{key}_ci_high")
    if not all(name in run.run.metrics for runs in replicates for run in runs for name in names):
        return None
    value, low, high = (float(by_seed(name).mean()) for name in names)
    return Score(value, intervals.Interval(low, high), tuple(map(float, by_seed(key))))


def _values_by_seed(
    replicates: Replicates, key: str, clips: Sequence[str] | None = None
) -> tuple[tuple[str, ...], Floats] | None:
    """The clips that every run has a value for, and (S, N) values; None if there are none."""
    found = [[run.value_by_clip(key) for run in runs] for runs in replicates]
    values = [value for runs in found for value in runs if value is not None]
    if not values or len(values) < sum(map(len, found)):
        return None
    chosen = tuple(sorted(set.intersection(*(set(value) for value in values)))) if clips is None else tuple(clips)
    if not chosen:
        return None
    lines = [np.mean([[value[c] for c in chosen] for value in runs if value is not None], axis=0) for runs in found]
    return chosen, np.stack(lines)


def _videos_of(replicates: Replicates, clips: Sequence[str]) -> list[str]:
    video_of = {p.clip_id: p.source_video_id for p in replicates[0][0].predictions}
    return [video_of[clip] for clip in clips]


@dataclass(frozen=True)
class ClipValues:
    """The values of one metric clip by clip, for every row that has them: what paired tests rest on.

    Attributes:
        key: Key of the metric.
        clips: Clips that all these rows share.
        source_videos: Source video of each clip.
        rows: Row name to its values.
        seeds: Row name to its seeds, in the order of the values.
        noise: Noise between seeds, pooled over these rows.
    """

    key: str
    clips: tuple[str, ...]
    source_videos: tuple[str, ...]
    rows: Mapping[str, RowValues]
    seeds: Mapping[str, tuple[Value, ...]]
    noise: SeedNoise | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise", seed_noise(list(self.rows.values()), self._video_index))

    @property
    def _video_index(self) -> NDArray[np.int64]:
        return intervals.cluster_index(self.source_videos)

    def test(self, a: str, b: str) -> PairedTest:
        """The paired test of row b against row a."""
        return paired_test(self.rows[a], self.rows[b], self._video_index, self.noise)


def clip_values(
    groups: Sequence[RowRuns], rows: Sequence[AblationRow], answers: Mapping[Path, RunAnswers], key: str
) -> ClipValues | None:
    """The values of a metric on the clips that all rows with it share; None if fewer than two rows have it."""
    replicates: dict[str, list[list[RunAnswers]]] = {}
    trained: dict[str, bool] = {}
    seeds: dict[str, tuple[Value, ...]] = {}
    shared: set[str] | None = None
    for group, row in zip(groups, rows, strict=True):
        runs = [[answers[run.path] for run in found] for found in group.by_seed().values()]
        matrix = _values_by_seed(runs, key) if runs else None
        if matrix is not None:
            shared = set(matrix[0]) if shared is None else shared & set(matrix[0])
            replicates[row.name], trained[row.name] = runs, group.trained
            seeds[row.name] = tuple(group.by_seed())
    if len(replicates) < 2 or not shared:
        return None
    clips = tuple(sorted(shared))
    values = {name: _values_by_seed(runs, key, clips) for name, runs in replicates.items()}
    return ClipValues(
        key,
        clips,
        tuple(_videos_of(next(iter(replicates.values())), clips)),
        {name: RowValues(matrix[1], trained[name]) for name, matrix in values.items() if matrix is not None},
        seeds,
    )
