"""What a run's further replies say of it: those under probes, beside its own, and those that were drawn."""

from collections.abc import Mapping, Sequence

import numpy as np

from autodrive.evaluation import by_video, intervals, stability
from autodrive.evaluation.paired_test import RowValues, corrected, paired_test
from autodrive.labels import LabelSet
from autodrive.schema import Prediction
from autodrive.tasks.task_book import TaskBook

ACCURACY = "accuracy"


def probe_losses(
    own: Sequence[Prediction],
    probed: Mapping[str, Sequence[Prediction]],
    book: TaskBook,
    labels: LabelSet,
) -> dict[str, float]:
    """How much of the headline task's accuracy is lost under each probe: paired tests on the clips that both answered.

    It is one student each time, so that nothing but the clips varies: the tests are those of rows that nobody trained
    (`evaluation.paired_test`), and their p values are corrected for the number of probes.

    Args:
        own: The student's replies, in the mode of those under probes.
        probed: Replies under each probe, by the first part of the probe's keys, such as `test_blind`.
        book: Its headline task scores.
        labels: The run's classes.

    Returns:
        For each probe `{prefix}/accuracy_lost` with `_ci_low` and `_ci_high`, `_p_value`, and `_detectable`, the
        smallest loss that would be found with 80 % power; without those four where there is one source video. Nothing
        for a probe under which the headline task was not asked.
    """
    real = _accuracy_by_clip(own, book, labels)
    videos = {p.clip_id: p.source_video_id for p in own}
    tests = {}
    for prefix, predictions in probed.items():
        values = _accuracy_by_clip(predictions, book, labels)
        if clips := sorted(real.keys() & values.keys()):
            there, here = (
                RowValues(np.array([[found[clip] for clip in clips]]), trained=False) for found in (values, real)
            )
            video_of_clip_N = intervals.cluster_index([videos[clip] for clip in clips])
            tests[prefix] = paired_test(there, here, video_of_clip_N, None)
    metrics: dict[str, float] = {}
    for (prefix, test), p_value in zip(tests.items(), corrected(list(tests.values())), strict=True):
        found = {"": test.difference, "_ci_low": test.low, "_ci_high": test.high, "_p_value": p_value}
        found["_detectable"] = test.smallest_detectable
        metrics |= {f"{prefix}/accuracy_lost{end}": value for end, value in found.items() if value is not None}
    return metrics


def sampled_scores(drawn: Sequence[Prediction], book: TaskBook, labels: LabelSet, prefix: str) -> dict[str, float]:
    """How steady a student is, task by task, from several drawn replies to each question in one mode.

    Args:
        drawn: The replies. Questions of which some are missing do not count, nor tasks of which no question has two.
        book: The tasks that score them; those without an accuracy are left out.
        labels: The run's classes.
        prefix: First part of every key.

    Returns:
        `{prefix}/agreement`, the share of pairs of replies that say the same, and `{prefix}/sampled_accuracy`, both
        with `_ci_low` and `_ci_high`; `{prefix}/sampled_accuracy_spread`, the standard deviation from one reply of
        every question to the next. Other tasks than the headline one have their name before the score's.
    """
    metrics: dict[str, float] = {}
    for name, task in book.tasks.items():
        by_question: dict[str, list[Prediction]] = {}
        for prediction in (p for p in drawn if p.task == name):
            by_question.setdefault(prediction.annotation_id, []).append(prediction)
        most = max(map(len, by_question.values()), default=0)
        if most < 2:
            continue
        asked = [p for replies in by_question.values() if len(replies) == most for p in replies]
        right = task.values(asked, labels).get(ACCURACY)
        if right is None:
            continue
        right_NS = right.reshape(-1, most)
        first = asked[::most]
        said_NS = [[p.parsed for p in asked[i : i + most]] for i in range(0, len(asked), most)]
        start = f"{prefix}/" if name == book.headline else f"{prefix}/{name}_"
        for score, values_N in (
            ("agreement", stability.agreement(said_NS)),
            ("sampled_accuracy", right_NS.mean(axis=1)),
        ):
            rng = np.random.default_rng(0)
            metrics |= by_video.mean_with_interval(f"{start}{score}", values_N, first, rng)
        metrics[f"{start}sampled_accuracy_spread"] = stability.spread(right_NS)
    return metrics


def _accuracy_by_clip(predictions: Sequence[Prediction], book: TaskBook, labels: LabelSet) -> dict[str, float]:
    asked = [p for p in predictions if p.task == book.headline]
    found = book[book.headline].values(asked, labels).get(ACCURACY) if asked else None
    if found is None:
        return {}
    values: dict[str, list[float]] = {}
    for prediction, value in zip(asked, found.tolist(), strict=True):
        values.setdefault(prediction.clip_id, []).append(value)
    return {clip: float(np.mean(of_clip)) for clip, of_clip in values.items()}
