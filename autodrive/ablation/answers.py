"""What a run answered, and the value that each clip contributes to a metric."""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autodrive.errors import InputError
from autodrive.labels import LabelSet
from autodrive.runs.folder import RunFolder
from autodrive.schema import Prediction
from autodrive.tasks.caption import closest_rouge_l
from autodrive.tasks.reading import think_block


@dataclass(frozen=True)
class RunAnswers:
    """The predictions of one finished run.

    Attributes:
        run: The run's folder.
        predictions: What is scored of it.
        labels: Its classes.
        headline: The task whose scores carry no task name in `metrics.json`.
    """

    run: RunFolder
    predictions: tuple[Prediction, ...]
    labels: LabelSet
    headline: str

    @classmethod
    def read(cls, run: RunFolder) -> "RunAnswers":
        """Read a finished run.

        Raises:
            InputError: It has no predictions, no label set or no headline task.
        """
        predictions = tuple(run.predictions())
        if not predictions:
            raise InputError(f"{run.path / 'predictions.jsonl'}: holds no reply; evaluate this run again")
        return cls(run, predictions, run.labels(), run.headline_task())

    @property
    def clips(self) -> set[str]:
        """Clips that have a reply."""
        return {p.clip_id for p in self.predictions}

    def on(self, clips: Collection[str]) -> "RunAnswers":
        """The same, restricted to these clips."""
        return replace(self, predictions=tuple(p for p in self.predictions if p.clip_id in clips))

    def headline_of(self, prefix: str) -> list[Prediction]:
        """Replies to the headline task in the mode of a metric prefix (`test` or `test_reasoning`)."""
        return [p for p in self._in_mode(prefix) if p.task == self.headline]

    def value_by_clip(self, key: str) -> dict[str, float] | None:
        """What each clip contributes to a metric that is a mean over replies, averaged over the clip's replies.

        Args:
            key: Metric key such as `test/accuracy`, `test_reasoning/trace_emission_rate` or `test/<task>_accuracy`.

        Returns:
            None if the metric is no mean over replies, or the run has no such reply.
        """
        prefix, _, name = key.partition("/")
        asked = self._in_mode(prefix)
        if name != "trace_emission_rate":
            tasks = [task for task in dict.fromkeys(p.task for p in asked) if name.startswith(f"{task}_")]
            task = max(tasks, key=len, default=self.headline)
            asked = [p for p in asked if p.task == task]
            name = name.removeprefix(f"{task}_")
        rule = _RULES.get(name)
        if rule is None or not asked:
            return None
        values: dict[str, list[float]] = defaultdict(list)
        for prediction in asked:
            values[prediction.clip_id].append(float(rule(prediction, self.labels)))
        return {clip: float(np.mean(found)) for clip, found in values.items()}

    def _in_mode(self, prefix: str) -> list[Prediction]:
        mode = "reasoning" if prefix.endswith("_reasoning") else "direct"
        return [p for p in self.predictions if p.mode == mode]


def _same_side(prediction: Prediction, labels: LabelSet) -> bool:
    read = prediction.parsed
    return read in labels.names and (read in labels.anomalous) == (prediction.answer in labels.anomalous)


# The last part of a metric key to what one reply contributes to it.
_RULES: dict[str, Callable[[Prediction, LabelSet], float]] = {
    "accuracy": lambda prediction, _: prediction.parsed == prediction.answer,
    "binary_accuracy": _same_side,
    "parse_failures": lambda prediction, _: prediction.parsed is None,
    "rouge_l": lambda prediction, _: closest_rouge_l(prediction),
    "trace_emission_rate": lambda prediction, _: think_block(prediction.reply) is not None,
}


def common_labels(answers: Sequence[RunAnswers]) -> LabelSet | None:
    """The label set of all runs; None if there are no runs.

    Raises:
        InputError: Two runs have different classes.
    """
    for other in answers[1:]:
        if other.labels.names != answers[0].labels.names:
            raise InputError(
                f"{other.run.path}: its classes ({', '.join(other.labels.names)}) differ from those of "
                f"{answers[0].run.path} ({', '.join(answers[0].labels.names)}); report runs of one label set together"
            )
    return answers[0].labels if answers else None
