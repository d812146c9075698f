"""Turns questions into the words a student reads, and answers into the words it should reply.

Prompts are rendered from a `Question`, which has no answer field, so nothing here can leak one. Targets are rendered by
a separate function that only training calls.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from autodrive.errors import InputError
from autodrive.labels import LabelSet
from autodrive.schema import Annotation, Mode, Question

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class RenderedPrompt:
    """A question as shown.

    Attributes:
        text: the user turn, without chat markup.
        option_texts: the options' display words, in the order shown.
        option_targets: what a direct reply that chooses each option consists of.
    """

    text: str
    option_texts: tuple[str, ...]
    option_targets: tuple[str, ...]


class PromptBook:
    """The templates of a run, built from `conf/prompts/*.yaml`."""

    def __init__(self, system: str, templates: Mapping[str, Mapping[str, str]]) -> None:
        self.system = system
        self.templates = {task: dict(modes) for task, modes in templates.items()}

    @property
    def hash(self) -> str:
        """Identifies the wording: 12 hexadecimal digits."""
        text = json.dumps([self.system, self.templates], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def render(self, question: Question, mode: Mode, labels: LabelSet) -> RenderedPrompt:
        """Render a question for one inference mode.

        Raises:
            InputError: there is no template for this task and mode.
        """
        template = self.templates.get(question.task, {}).get(mode)
        if template is None:
            raise InputError(f"prompts: no template for task {question.task!r}, mode {mode!r}; add it to conf/prompts")
        texts = option_texts(question, labels)
        if question.task == "mcq":
            targets = tuple(LETTERS[i] for i in range(len(texts)))
            shown = "\n".join(f"{letter}. {text}" for letter, text in zip(targets, texts, strict=True))
        else:
            targets = texts
            shown = ", ".join(texts)
        text = template.format(question=question.question, options=shown)
        return RenderedPrompt(text=text, option_texts=texts, option_targets=targets)


def option_texts(question: Question, labels: LabelSet) -> tuple[str, ...]:
    """Display words of a question's options: a class's option text in an MCQ, else the value with spaces."""
    if question.task == "mcq":
        return tuple(labels[name].option for name in question.options)
    return tuple(value.replace("_", " ") for value in question.options)


def render_target(annotation: Annotation, prompt: RenderedPrompt, mode: Mode) -> str:
    """The reply a student is trained to give.

    Raises:
        ValueError: reasoning mode is asked of an annotation that has no trace.
    """
    if annotation.options:
        answer = prompt.option_targets[annotation.options.index(annotation.answer)]
    else:
        answer = annotation.answer
    if mode == "direct":
        return answer
    if annotation.think is None:
        raise ValueError(f"annotation {annotation.id} has no think trace to train reasoning mode with")
    return f"<think>{annotation.think}</think>\n\n<answer>{answer}</answer>"
