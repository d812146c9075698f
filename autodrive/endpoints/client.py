"""Asks a model behind an OpenAI-compatible server, with that library's own retries, and counts what is sent.

The library sends again what ended with 408, 409, 429 or 500 and above, with a broken connection or a timeout. It waits
as long as `Retry-After` says (up to two minutes), else half a second to eight. Nothing here adds to that.
"""

import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import openai
from annotated_types import Le, MinLen
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError

from autodrive.bounds import Count, CountOrZero, Seconds
from autodrive.endpoints.calls import ChatCall
from autodrive.endpoints.reply_cache import ChatReply, ReplyCache
from autodrive.errors import InputError, Paused

# Statuses after which no other call would fare better, and what to look at. Of 400 that holds only while no call in the
# same words has had a reply; later on it is this one call that is too long, or that a service's filter turns away.
REFUSALS = {
    400: "the server does not take such calls; change what is sent (docs/teachers.md, docs/evaluation.md)",
    401: "the server does not accept the key; put one that it accepts into the environment as {variable}",
    403: "this key may not use the model; choose another model, or a key that may",
    404: "there is no such model or address; fix model=, or base_url= (most end in /v1)",
}
LONGEST_DETAIL = 200


def _http_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    address = urlsplit(url)
    try:
        named = bool(address.hostname) and address.port != 0
    except ValueError:  # the port is no number, or none that there is
        named = False
    if not named or any(letter.isspace() for letter in url):
        raise ValueError("must name a host and, if it has one, its port, as in http://localhost:8000/v1")
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise ValueError("must hold no name or password; the key comes from the environment")
    return url


def _given(value: Any) -> Any:
    if value is None:
        raise ValueError("is missing; give base_url=<address, up to /v1> and model=<name>")
    return value


HttpUrl = Annotated[str, BeforeValidator(_given), AfterValidator(_http_url)]
ModelName = Annotated[str, BeforeValidator(_given), MinLen(1)]


@dataclass(frozen=True)
class Server:
    """How a server is spoken to; the same for all models.

    Attributes:
        key_variable: Environment variable that holds the key. It may be unset where a server asks for none.
        timeout_s: Longest wait for a reply; a server that says nothing for so long is asked again.
        connect_timeout_s: Longest wait for a connection.
        max_retries: How often one call is sent again.
        token_limit_field: What the server calls the longest reply; OpenAI's newest models only know the second name.
        send_schema: Whether the reply's form is sent along as a JSON schema; a server that knows none may refuse the
            call. Replies are checked in any case.
        extra: Further fields of every call, as this server knows them, such as `chat_template_kwargs`.
    """

    key_variable: str = "OPENAI_API_KEY"
    timeout_s: Seconds = 120.0
    connect_timeout_s: Seconds = 10.0
    max_retries: Annotated[CountOrZero, Le(100)] = 5
    token_limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"  # noqa: S105 - no password
    send_schema: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)

    def connect(self, base_url: str) -> openai.OpenAI:
        """A client for one address; no connection is made yet.

        Raises:
            InputError: The key cannot be sent, since it is not plain text.
        """
        key = os.environ.get(self.key_variable, "").strip()
        if not key.isascii() or not key.isprintable():
            raise InputError(f"{self.key_variable}: holds letters that no key has; set it again")
        logging.getLogger("httpx2").setLevel(
            logging.WARNING
        )  # it tells of every request; of those sent again, openai does
        timeout = openai.Timeout(self.timeout_s, connect=self.connect_timeout_s)
        # The library wants some key even where the server does not.
        return openai.OpenAI(api_key=key or "none", base_url=base_url, timeout=timeout, max_retries=self.max_retries)

    def without_key(self, text: str) -> str:
        """A text of the server's in which the key, should it repeat it, is blacked out."""
        key = os.environ.get(self.key_variable, "").strip()
        return text.replace(key, "***") if key else text


def generator(model: str, prompt_hash: str) -> str:
    """Who made an annotation, as records name it: a model with the words that it was given."""
    return f"openai:{model}@{prompt_hash}"


class CallFailed(Exception):  # noqa: N818 - named for what it says about the call
    """One call got no reply; others may.

    Attributes:
        reason: `timeout`, `connection`, `not_a_completion`, or `http_` with the status.
        detail: What the server said.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class RequestBudget:
    """How many calls a run may still send; replies that are at hand are free.

    Args:
        max_requests: The most calls that are sent; None: any number. What the library sends again counts once.
    """

    def __init__(self, max_requests: Count | None = None) -> None:
        self.max_requests = max_requests
        self.sent = 0
        self._lock = Lock()

    def take(self) -> None:
        """Count one call that is about to be sent.

        Raises:
            Paused: All that may be sent has been.
        """
        with self._lock:
            if self.max_requests is not None and self.sent >= self.max_requests:
                raise Paused(f"max_requests={self.max_requests}: all of them are sent")
            self.sent += 1


class _Likely(BaseModel):
    token: str
    logprob: float


class _Token(BaseModel):
    top_logprobs: list[_Likely] = []


class _LogProbs(BaseModel):
    content: list[_Token] | None = None


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _LogProbs | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Tokens(openai.BaseModel):
    tokens: list[int]


class _Completion(BaseModel):
    """What is read of a chat completion; servers add much else."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class ChatClient:
    """Asks one model at one address; several threads may share it.

    Args:
        server: How the server is spoken to.
        base_url: Its address, up to `/v1`.
        model: The model that is asked.
        cache: Replies that are at hand, where new ones are kept.
        budget: How many calls the run may send.

    Raises:
        InputError: The key cannot be sent.
    """

    def __init__(self, server: Server, base_url: str, model: str, cache: ReplyCache, budget: RequestBudget) -> None:
        self.server, self.base_url, self.model, self.cache, self.budget = server, base_url, model, cache, budget
        self._openai = server.connect(base_url)
        self.how = {"send_schema": server.send_schema, **server.extra}
        self._first = Lock()
        self._has_answered = False
        self._refusal: InputError | None = None

    def key(self, call: ChatCall) -> str:
        """The key under which the reply to this call is kept."""
        return call.key(self.model, self.how)

    def delivered(self, call: ChatCall) -> ChatReply | None:
        """The reply to a call if it is at hand; nothing is sent."""
        return self.cache.get(self.key(call))

    def ask(self, call: ChatCall) -> ChatReply:
        """The reply to a call: the one at hand, else a new one, which is on the disk when this returns.

        Raises:
            CallFailed: No reply came, however often the library tried.
            Paused: It would have to be sent, and no more may be.
            InputError: The server refuses, or does not exist, so that every other call would fail as well.
        """
        return self.cache.get_or_ask(self.key(call), partial(self.send, call))

    def send(self, call: ChatCall) -> ChatReply:
        """A new reply to a call, which is not kept; raises as `ask` does."""
        key = self.key(call)
        # Until the server has answered once, calls go one at a time: a wrong key costs one request, not one a thread.
        if not self._has_answered:
            with self._first:
                if not self._has_answered:
                    if self._refusal is None:
                        self._knock()
                    return self._post(call, key)
        return self._post(call, key)

    def _knock(self) -> None:
        """See that somebody listens; for who does not, the library would try again for a quarter of a minute.

        Raises:
            InputError: Nobody does.
        """
        address = urlsplit(self.base_url)
        assert address.hostname is not None
        if {address.scheme, "all"} & getproxies().keys() and not proxy_bypass(address.hostname):
            return  # whom a proxy reaches, this machine need not
        port = address.port or (443 if address.scheme == "https" else 80)
        try:
            socket.create_connection((address.hostname, port), self.server.connect_timeout_s).close()
        except OSError as error:
            raise self._unreachable(str(error)) from None

    def _unreachable(self, detail: str) -> InputError:
        where = f"base_url={self.base_url} model={self.model}"
        self._refusal = InputError(f"{where}: cannot be reached ({detail}); start the server, or fix the address")
        return self._refusal

    def prompt_ids(self, call: ChatCall) -> tuple[int, ...] | None:
        """The tokens of a call's prompt, where the server has an endpoint `tokenize` beside `/v1`, as vLLM has.

        None where it has none; nothing is kept or counted.
        """
        root = self.base_url.rstrip("/").removesuffix("/v1")
        asks = self._openai.with_options(base_url=root, max_retries=0)
        body = {"model": self.model, "messages": call.messages(), "add_generation_prompt": True}
        try:
            return tuple(asks.post("/tokenize", cast_to=_Tokens, body=body).tokens)
        except (openai.OpenAIError, ValueError, AttributeError):
            return None

    def _post(self, call: ChatCall, key: str) -> ChatReply:
        if self._refusal is not None:
            raise self._refusal
        self.budget.take()
        where = f"base_url={self.base_url} model={self.model}"
        try:
            response = self._openai.chat.completions.with_raw_response.create(**self._request(call))
        except openai.APIStatusError as error:
            detail = self._shown(error.response.text)
            is_own = error.status_code == 400 and self.cache.has_answered(
                call.role, generator(self.model, call.prompt_hash)
            )
            if error.status_code in REFUSALS and not is_own:
                fix = REFUSALS[error.status_code].format(variable=self.server.key_variable)
                self._refusal = InputError(f"{where}: {error.status_code} ({detail}): {fix}")
                raise self._refusal from None
            self._has_answered = True
            raise CallFailed(f"http_{error.status_code}", detail) from None
        except openai.APITimeoutError:
            raise CallFailed("timeout", f"no reply within {self.server.timeout_s:g} s") from None
        except openai.APIConnectionError as error:
            detail = self._shown(str(error.__cause__ or error))
            if not self._has_answered:
                raise self._unreachable(detail) from None
            raise CallFailed("connection", detail) from None
        self._has_answered = True
        return self._read(self.server.without_key(response.text), call, key)

    def _request(self, call: ChatCall) -> dict[str, Any]:
        sampling = call.sampling
        fields: dict[str, Any] = {
            self.server.token_limit_field: sampling.max_tokens,
            "temperature": sampling.temperature,
        }
        if sampling.top_p is not None:
            fields["top_p"] = sampling.top_p
        if sampling.seed is not None:
            fields["seed"] = sampling.seed
        if call.top_log_probs:
            fields |= {"logprobs": True, "top_logprobs": call.top_log_probs}
        response_format = call.response_format() if self.server.send_schema else None
        if response_format is not None:
            fields["response_format"] = response_format
        extra = dict(self.server.extra)
        return {"model": self.model, "messages": call.messages(), "extra_body": extra, **fields}

    def _read(self, body: str, call: ChatCall, key: str) -> ChatReply:
        try:
            completion = _Completion.model_validate_json(body)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "body"
            raise CallFailed("not_a_completion", f"{where}: {first['msg']}") from None
        choice, usage = completion.choices[0], completion.usage or _Usage()
        tokens = choice.logprobs.content if choice.logprobs is not None else None
        return ChatReply(
            key=key,
            role=call.role,
            generator=generator(self.model, call.prompt_hash),
            subject=call.subject,
            text=choice.message.content or "",
            finish_reason=choice.finish_reason,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            first_token={each.token: each.logprob for each in tokens[0].top_logprobs} if tokens else None,
        )

    def _shown(self, text: str) -> str:
        """A server's words for one line: without the key, and not all of them."""
        text = " ".join(self.server.without_key(text).split())
        return text if len(text) <= LONGEST_DETAIL else f"{text[:LONGEST_DETAIL]}…"
