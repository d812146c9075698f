"""One call of a teacher: its words, pictures and sampling, and the key under which its reply is kept."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le

from autodrive.bounds import Count
from autodrive.schema import Record


@dataclass(frozen=True)
class Sampling:
    """How a reply is drawn.

    Attributes:
        max_tokens: Longest reply, in tokens of the teacher.
        temperature: 0 takes the most probable token; writers of varied text want more.
        top_p: Share of the probability that is drawn from; None: the server's own.
    """

    max_tokens: Annotated[Count, Le(100_000)]
    temperature: Annotated[float, Ge(0), Le(2)] = 0.0
    top_p: Annotated[float, Gt(0), Le(1)] | None = None


@dataclass(frozen=True)
class Picture:
    """A picture that goes with the words, as JPEG."""

    jpeg: bytes

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the bytes that are sent."""
        return hashlib.sha256(self.jpeg).hexdigest()

    @property
    def data_url(self) -> str:
        """The picture inside a URL, as chat completions take it."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.jpeg).decode()}"


@dataclass(frozen=True)
class TeacherCall:
    """What is sent to a model, whichever it is.

    Attributes:
        role: Name of the role that asks.
        prompt_hash: Identifies the role's words.
        system: The system message.
        user: The user message: texts and pictures in their order.
        sampling: How the reply is drawn.
        reply_form: Record that the reply must hold as JSON; None: the reply is read as it is.
    """

    role: str
    prompt_hash: str
    system: str
    user: tuple[str | Picture, ...]
    sampling: Sampling
    reply_form: type[Record] | None = None

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures among what is sent."""
        return tuple(part for part in self.user if isinstance(part, Picture))

    @property
    def text(self) -> str:
        """All words that are sent; what a price is estimated from."""
        return "\n".join([self.system, *(part for part in self.user if isinstance(part, str))])

    def key(self, model: str, how: Mapping[str, Any]) -> str:
        """Hash of all that a reply depends on: another model, prompt, text, picture or sampling is another call.

        Args:
            model: The model that is asked.
            how: Whatever else is sent with every call.
        """
        parts = [part if isinstance(part, str) else {"jpeg": part.content_hash} for part in self.user]
        sent = [
            model,
            self.role,
            self.prompt_hash,
            self.system,
            parts,
            asdict(self.sampling),
            self._schema(),
            dict(how),
        ]
        return hashlib.sha256(json.dumps(sent, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def messages(self) -> list[dict[str, Any]]:
        """The conversation in the form of chat completions; without pictures, the user message is one text.

        Servers of models that read text only do not all take a list of parts.
        """
        if not self.pictures:
            content: Any = "\n".join(part for part in self.user if isinstance(part, str))
        else:
            content = [
                {"type": "text", "text": part}
                if isinstance(part, str)
                else {"type": "image_url", "image_url": {"url": part.data_url}}
                for part in self.user
            ]
        return [{"role": "system", "content": self.system}, {"role": "user", "content": content}]

    def response_format(self) -> dict[str, Any] | None:
        """What a server that can is asked to keep to; none where a reply is read as it is."""
        schema = self._schema()
        if schema is None:
            return None
        return {"type": "json_schema", "json_schema": {"name": self.role, "schema": schema}}

    def _schema(self) -> dict[str, Any] | None:
        return None if self.reply_form is None else self.reply_form.model_json_schema()
