"""One call of a model: its words, pictures and sampling, and the key under which its reply is kept."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from autodrive.bounds import Count, Seed
from autodrive.schema import Record


@dataclass(frozen=True)
class Sampling:
    """How a reply is drawn.

    Attributes:
        max_tokens: Longest reply, in tokens of the model.
        temperature: 0 takes the most probable token; writers of varied text want more.
        top_p: Share of the probability that is drawn from; None: the server's own.
        seed: Tells one draw from the next, and is sent; None: there is one.
    """

    max_tokens: Annotated[Count, Le(100_000)]
    temperature: Annotated[float, Ge(0), Le(2)] = 0.0
    top_p: Annotated[float, Gt(0), Le(1)] | None = None
    seed: Seed | None = None


@dataclass(frozen=True)
class Picture:
    """A picture that goes with the words.

    Attributes:
        file: The bytes of the file.
        form: What kind of file it is.
    """

    file: bytes
    form: Literal["jpeg", "png"] = "jpeg"

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the bytes that are sent."""
        return hashlib.sha256(self.file).hexdigest()

    @property
    def data_url(self) -> str:
        """The picture inside a URL, as chat completions take it."""
        return f"data:image/{self.form};base64,{self.base64}"

    @property
    def base64(self) -> str:
        """The bytes as text."""
        return base64.b64encode(self.file).decode()

    def identity(self) -> Any:
        """What a call's key says of it."""
        return {self.form: self.content_hash}

    def part(self) -> dict[str, Any]:
        """The picture as part of a message."""
        return {"type": "image_url", "image_url": {"url": self.data_url}}


@dataclass(frozen=True)
class Film:
    """The frames of a video that goes with the words, in one part, as vLLM takes them.

    Attributes:
        pictures: The frames in order.
    """

    pictures: tuple[Picture, ...]

    def identity(self) -> Any:
        """What a call's key says of it."""
        return {"film": [picture.identity() for picture in self.pictures]}

    def part(self) -> dict[str, Any]:
        """The film as part of a message: its frames, separated by commas."""
        frames = ",".join(picture.base64 for picture in self.pictures)
        return {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{frames}"}}


Part = str | Picture | Film


@dataclass(frozen=True)
class ChatCall:
    """What is sent to a model, whichever it is.

    Attributes:
        role: Name of the role that asks.
        prompt_hash: Identifies the role's words.
        system: The system message.
        user: The user message: texts, pictures and films in their order.
        sampling: How the reply is drawn.
        reply_form: Record that the reply must hold as JSON; None: the reply is read as it is.
        top_log_probs: How many of the likeliest first tokens are wanted with their log-probabilities; 0: none.
        subject: What is asked about, as whoever asks finds the reply again; not sent, and no part of the key.
    """

    role: str
    prompt_hash: str
    system: str
    user: tuple[Part, ...]
    sampling: Sampling
    reply_form: type[Record] | None = None
    top_log_probs: int = 0
    subject: str = ""

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures among what is sent, those of films included."""
        own = [part.pictures if isinstance(part, Film) else (part,) for part in self.user if not isinstance(part, str)]
        return tuple(picture for pictures in own for picture in pictures)

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
        parts = [part if isinstance(part, str) else part.identity() for part in self.user]
        sampling = {name: value for name, value in asdict(self.sampling).items() if name != "seed" or value is not None}
        sent = [
            model,
            self.role,
            self.prompt_hash,
            self.system,
            parts,
            sampling,
            self._schema(),
            dict(how),
            *([{"top_log_probs": self.top_log_probs}] if self.top_log_probs else ()),
        ]
        return hashlib.sha256(json.dumps(sent, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def messages(self) -> list[dict[str, Any]]:
        """The conversation in the form of chat completions; without pictures, the user message is one text.

        Servers of models that read text only do not all take a list of parts.
        """
        if not self.pictures:
            content: Any = "\n".join(part for part in self.user if isinstance(part, str))
        else:
            content = [{"type": "text", "text": part} if isinstance(part, str) else part.part() for part in self.user]
        return [{"role": "system", "content": self.system}, {"role": "user", "content": content}]

    def response_format(self) -> dict[str, Any] | None:
        """What a server that can is asked to keep to; none where a reply is read as it is."""
        schema = self._schema()
        if schema is None:
            return None
        return {"type": "json_schema", "json_schema": {"name": self.role, "schema": schema}}

    def _schema(self) -> dict[str, Any] | None:
        return None if self.reply_form is None else self.reply_form.model_json_schema()
