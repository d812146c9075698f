"""What a run answered, and the value that each clip contributes to a metric."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from autodrive.ablation.published import TEST_SPLIT
from autodrive.errors import InputError
from autodrive.labels import LabelSet
from autodrive.runs.folder import RunFolder
from autodrive.runs.foreign import check_foreign, unbuilt_as_data
from autodrive.schema import Prediction
from autodrive.tasks.scorecard import TRACE_RATE, trace_values
from autodrive.tasks.task_book import TaskBook


@dataclass(frozen=True)
class RunAnswers:
    """The predictions of one finished run.

    Attributes:
        run: The folder that the run wrote.
        predictions: The replies that are scored.
        labels: The classes that the run tells apart.
        book: The tasks that the run was asked, which know what a reply is worth.
    """

    run: RunFolder
    predictions: tuple[Prediction, ...]
    labels: LabelSet
    book: TaskBook

    @classmethod
    def read(cls, run: RunFolder) -> "RunAnswers":
        """Read a finished run.

        Raises:
            InputError: It has no predictions, no label set or no tasks.
        """
        predictions = tuple(run.predictions())
        if not predictions:
            raise InputError(f"{run.path / 'predictions.jsonl'}: holds no reply; evaluate this run again")
        return cls(run, predictions, run.labels(), _book_of(run))

    @property
    def split(self) -> str:
        """The split that the run was evaluated on, whose name begins its metric keys."""
        return self.run.split()

    @property
    def clips(self) -> set[str]:
        """Clips that have a reply."""
        return {p.clip_id for p in self.predictions}

    def on(self, clips: Collection[str]) -> "RunAnswers":
        """The same, restricted to these clips."""
        return replace(self, predictions=tuple(p for p in self.predictions if p.clip_id in clips))

    def headline_of(self, prefix: str) -> list[Prediction]:
        """Replies to the headline task in the mode of a metric prefix (such as `test` or `test_reasoning`)."""
        return [p for p in self._in_mode(prefix) if p.task == self.book.headline]

    def value_by_clip(self, key: str) -> dict[str, float] | None:
        """What each clip contributes to a metric that is a mean over replies, averaged over the clip's replies.

        Args:
            key: Metric key such as `test/accuracy`, `test_reasoning/trace_emission_rate` or `test/<task>_accuracy`.

        Returns:
            None if the metric is no mean over replies, or the run has no such reply.

        Raises:
            InputError: The run's configuration does not hold the task.
        """
        prefix, _, name = key.partition("/")
        if prefix not in (self.split, f"{self.split}_reasoning"):
            return None  # of retention and of probes there are no replies here
        asked = self._in_mode(prefix)
        if name == TRACE_RATE:
            found = trace_values(asked)
        else:
            tasks = [task for task in dict.fromkeys(p.task for p in asked) if name.startswith(f"{task}_")]
            task = max(tasks, key=len, default=self.book.headline)
            asked = [p for p in asked if p.task == task]
            found = self.book[task].values(asked, self.labels).get(name.removeprefix(f"{task}_"))
        if found is None or not asked:
            return None
        values: dict[str, list[float]] = defaultdict(list)
        for prediction, value in zip(asked, found.tolist(), strict=True):
            values[prediction.clip_id].append(value)
        return {clip: float(np.mean(of_clip)) for clip, of_clip in values.items()}

    def _in_mode(self, prefix: str) -> list[Prediction]:
        mode = "reasoning" if prefix.endswith("_reasoning") else "direct"
        return [p for p in self.predictions if p.mode == mode]


def _book_of(run: RunFolder) -> TaskBook:
    run.headline_task()  # an error in one line where the folder holds no tasks at all
    config = unbuilt_as_data(run.config, [str(key) for key in run.config if key != "prompts"])
    check_foreign(config, run.files.config, fix="evaluate this run again")
    try:
        book = instantiate(config.prompts)
    except InstantiationException as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{run.files.config}: prompts: {reason}; evaluate this run again") from None
    if not isinstance(book, TaskBook):
        raise InputError(f"{run.files.config}: `prompts` is no book of tasks; evaluate this run again")
    return book


def common_split(answers: Sequence[RunAnswers]) -> str:
    """The split that all runs were evaluated on; `test` if there are no runs.

    Raises:
        InputError: Two runs were evaluated on different splits.
    """
    for other in answers[1:]:
        if other.split != answers[0].split:
            raise InputError(
                f"{other.run.path}: evaluated on split={other.split}, {answers[0].run.path} on split="
                f"{answers[0].split}; report runs of one split together"
            )
    return answers[0].split if answers else TEST_SPLIT


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
