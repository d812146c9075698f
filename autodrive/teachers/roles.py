"""What a teacher can be asked to write: a role is a prompt, the form of its replies, and what is made of them.

A role declares which values its prompt may hold (`may_see`). A template that names any other is refused, so that no
wording, however it is edited, shows a role what it must not see.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from string import Formatter
from typing import ClassVar, Literal

from autodrive.annotation.stages import Item, Setting
from autodrive.endpoints.calls import ChatCall, Sampling
from autodrive.endpoints.client import HttpUrl, ModelName, generator
from autodrive.errors import InputError
from autodrive.schema import Annotation, Question, Record
from autodrive.teachers.frames import AttachedFrames
from autodrive.teachers.reading import Unreadable, read_reply

Value = Literal["rule_caption", "figures", "vlm_caption", "question", "label", "wrong_trace", "duration_s"]
"""What a prompt can say about a clip.

Its caption by rules; the times and figures that this may leave out; the caption by a model that saw it; the question of
its class with the options; its true class; a trace of it that was not kept; its length.
"""


@dataclass(frozen=True)
class Role(ABC):
    """One kind of request, built from `conf/teacher_prompts/*.yaml`.

    Attributes:
        name: Name of its stage.
        base_url: Address of the server that is asked.
        model: The model that is asked.
        system: The system message; says in which form to reply. Braces are text.
        user: The user message; `{rule_caption}` and other values that the role may see are filled in. A clip that lacks
            one of them is not asked about.
        sampling: How replies are drawn.
    """

    may_see: ClassVar[frozenset[Value]]
    reply_form: ClassVar[type[Record]]

    name: str
    base_url: HttpUrl
    model: ModelName
    system: str
    user: str
    sampling: Sampling

    def __post_init__(self) -> None:
        where = f"teacher.roles.{self.name}.user"
        try:
            unseen = sorted(self._named() - self.may_see)
        except ValueError as error:
            raise InputError(f"{where}: {error}; write {{{{ for a brace that is text") from None
        if unseen:
            raise InputError(
                f"{where}: {{{unseen[0]}}} is not for this role, which sees {', '.join(sorted(self.may_see))}"
            )

    @property
    def values(self) -> frozenset[Value]:
        """The values that its prompt holds."""
        named = self._named()
        return frozenset(value for value in self.may_see if value in named)

    def _named(self) -> set[str]:
        return {name for _, name, _, _ in Formatter().parse(self.user) if name is not None}

    @property
    def prompt_hash(self) -> str:
        """Identifies the wording and the form of replies: 12 hexadecimal digits."""
        text = json.dumps([self.system, self.user, self.reply_form.model_json_schema()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def generator(self) -> str:
        """Who made its annotations, as records name it."""
        return generator(self.model, self.prompt_hash)

    @property
    def frames(self) -> AttachedFrames | None:
        """Which frames go with its calls; None for a role that reads only."""
        return None

    def wants(self, item: Item) -> bool:
        """Whether there is anything to ask about a clip."""
        return True

    def call(self, item: Item, values: dict[Value, str]) -> ChatCall:
        """The call about one clip.

        Args:
            item: The clip; only its frames are read.
            values: What is filled in, at least `self.values`.

        Raises:
            FrameRateUnavailable: The clip has fewer frames per second than are wanted.
            UnusableVideo: Its video cannot be read.
        """
        attached = () if self.frames is None else self.frames.parts(item.clip)
        return self.call_with(values, attached)

    def call_with(self, values: dict[Value, str], attached: tuple) -> ChatCall:
        """The call whose frames are at hand."""
        user = (*attached, self.user.format(**values).strip())
        return ChatCall(self.name, self.prompt_hash, self.system.strip(), user, self.sampling, self.reply_form)

    def read(self, text: str, item: Item, setting: Setting) -> list[Annotation]:
        """The annotations that a reply holds; filters have not seen them yet.

        Raises:
            Unreadable: The reply is not of the role's form.
        """
        return list(self.annotations(read_reply(text, self.reply_form), item, setting))

    @abstractmethod
    def annotations(self, reply: Record, item: Item, setting: Setting) -> Iterator[Annotation]:
        """What is made of a reply of the role's form; may raise Unreadable."""

    def annotation(self, item: Item, task: str, question: str, answer: str, think: str | None = None) -> Annotation:
        """An annotation in this role's name about a question in free words."""
        return Annotation.create(item.clip.id, task, question.strip(), answer.strip(), self.generator, think=think)


def read_choice(answer: str, question: Question, setting: Setting) -> str:
    """The class that a reply chooses, read as strictly as a student's reply.

    Raises:
        Unreadable: It is not exactly one of the options; the reason is that of `autodrive/tasks/reading.py`.
    """
    task = setting.book[question.task]
    read = task.read(task.after_trace("-", answer), question, "reasoning", setting.labels)
    if read.value is None:
        assert read.failure is not None
        raise Unreadable(read.failure, f"answer {answer[:60]!r}")
    return read.value
