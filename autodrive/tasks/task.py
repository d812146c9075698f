"""What every task does: it renders a question, renders the target, reads a reply and scores predictions.

Prompts are rendered from a `Question`, which has no answer field, so nothing here can leak one. Targets are rendered by
a separate method that only training calls.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Annotated, get_args

import numpy as np
from annotated_types import Le
from numpy.typing import NDArray

from autodrive.bounds import Count
from autodrive.errors import InputError
from autodrive.labels import LabelSet
from autodrive.schema import Annotation, Mode, Prediction, Question
from autodrive.tasks.reading import ParsedReply


@dataclass(frozen=True)
class ShownOptions:
    """The options of a question as a student meets them, in the order shown.

    Attributes:
        text: The options as they stand in the prompt.
        targets: What a direct reply that chooses each option consists of.
    """

    text: str = ""
    targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class RenderedPrompt:
    """A question as shown.

    Attributes:
        text: The user turn, without chat markup.
        option_targets: What a direct reply that chooses each option consists of.
    """

    text: str
    option_targets: tuple[str, ...]


@dataclass(frozen=True)
class Task(ABC):
    """One kind of question, built from `conf/tasks/*.yaml`.

    Attributes:
        name: Value of `task` in the records of this task.
        templates: The user turn of each mode the task can be asked in; `{question}` and `{options}` are filled in.
        max_new_tokens: Longest reply in each of these modes.
        answer_block: Whether the answer after a trace stands inside `<answer></answer>`, as taught and as read; if not,
            it is all that follows the trace. The templates must ask for the same.
    """

    name: str
    templates: Mapping[Mode, str]
    max_new_tokens: Mapping[Mode, Annotated[Count, Le(100_000)]]
    answer_block: bool = True

    def __post_init__(self) -> None:
        where = f"prompts.tasks.{self.name}"
        unknown = sorted(set(self.templates) - set(get_args(Mode)))
        if unknown:
            raise InputError(f"{where}.templates.{unknown[0]}: no such mode; choose from {', '.join(get_args(Mode))}")
        if set(self.max_new_tokens) != set(self.templates):
            raise InputError(f"{where}.max_new_tokens: name exactly the modes of the templates, {list(self.templates)}")
        for mode, template in self.templates.items():
            try:
                names = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
            except ValueError as error:
                raise InputError(f"{where}.templates.{mode}: {error}; write {{{{ for a brace that is text") from None
            if "question" not in names or not names <= {"question", "options"}:
                raise InputError(
                    f"{where}.templates.{mode}: needs {{question}}, may have {{options}}, and nothing else"
                )

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes that the task has words for."""
        return tuple(self.templates)

    @property
    def wording(self) -> Mapping[str, str]:
        """Everything on which it depends how a question is shown."""
        return {str(mode): template for mode, template in self.templates.items()}

    def render(self, question: Question, mode: Mode, labels: LabelSet) -> RenderedPrompt:
        """Render a question for one inference mode.

        Raises:
            InputError: The task has no template for this mode.
        """
        if mode not in self.templates:
            raise InputError(f"prompts.tasks.{self.name}.templates: none for mode {mode!r}; add it to conf/tasks")
        options = self.options(question, labels)
        text = self.templates[mode].format(question=question.question, options=options.text)
        return RenderedPrompt(text, options.targets)

    def target(self, annotation: Annotation, labels: LabelSet) -> str:
        """The reply a student is trained to give: with the trace where the annotation has one."""
        answer = annotation.answer
        if annotation.options:
            position = annotation.answers.index(answer)
            answer = self.options(annotation.without_answer(), labels).targets[position]
        return answer if annotation.think is None else self.after_trace(annotation.think, answer)

    def after_trace(self, think: str, answer: str) -> str:
        """A reply in reasoning mode."""
        return f"<think>{think}</think>\n\n" + (f"<answer>{answer}</answer>" if self.answer_block else answer)

    def why_not_teachable(self, annotation: Annotation, labels: LabelSet) -> str | None:
        """The reason why a student cannot be taught this annotation; None if it can.

        What is taught must be readable: the target's answer is read back by the reader that evaluation uses.
        """
        if annotation.mode not in self.templates:
            return f"task_has_no_{annotation.mode}_mode"
        question = annotation.without_answer()
        if not self.can_show(question, labels):
            return "option_not_in_label_set"
        read = self.read(self.target(annotation, labels), question, annotation.mode, labels)
        return None if read.value == annotation.answer else f"target_unreadable: {read.failure}"

    def can_show(self, question: Question, labels: LabelSet) -> bool:
        """Whether the label set has words for the question's options."""
        return True

    def folded(self, annotation: Annotation, labels: LabelSet) -> Annotation:
        """The annotation with its answer in the run's label set, where a student answers in another one."""
        return annotation

    @abstractmethod
    def options(self, question: Question, labels: LabelSet) -> ShownOptions:
        """The options of a question as they are shown and replied."""

    @abstractmethod
    def read(self, reply: str, question: Question, mode: Mode, labels: LabelSet) -> ParsedReply:
        """Read a model's reply, verbatim, to a question as asked; what is read can be compared with a reference."""

    def values(self, predictions: Sequence[Prediction], labels: LabelSet) -> dict[str, NDArray[np.float64]]:
        """What each prediction contributes to every score that is a mean over predictions, from 0 to 1.

        Here it is whether the answer was read; a task with other scores overrides this.
        """
        return {"accuracy": np.array([p.parsed == p.answer for p in predictions], dtype=np.float64)}

    @abstractmethod
    def score(self, predictions: Sequence[Prediction], labels: LabelSet, rng: np.random.Generator) -> dict[str, float]:
        """Scores of this task's predictions in one mode, without prefix; fractions have `_ci_low` and `_ci_high`."""
