"""Replies that were delivered, on the disk before they are used: no reply is paid for twice."""

from collections.abc import Callable
from pathlib import Path
from threading import Condition
from types import TracebackType

from pydantic import ValidationError

from autodrive.errors import InputError
from autodrive.journal import Journal
from autodrive.schema import Record


class ChatReply(Record):
    """What a model said to one call: a line of replies.jsonl.

    Attributes:
        key: Hash of the call and of the model; see `ChatCall.key`.
        role: Name of the role or task that asked.
        generator: The model that was asked, and the hash of the words.
        subject: What was asked about; see `ChatCall.subject`.
        text: Its words, verbatim.
        finish_reason: Why it ended, as the server says; `length` if it was cut at the token limit.
        prompt_tokens: Tokens of the call, as the server counted them.
        completion_tokens: Tokens of the reply.
        first_token: The likeliest first tokens of the reply with their log-probabilities, where the server gave them.
    """

    key: str
    role: str
    generator: str
    subject: str = ""
    text: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    first_token: dict[str, float] | None = None


class ReplyCache:
    """All replies of one file, by key; several threads may ask at once, one process at a time may write.

    Two calls with the same key are one: the second waits for the first one's reply, so that an interrupted run that
    goes on uses the same replies as one that was not interrupted.

    Args:
        path: The file; it need not exist. Nothing is written before the first reply.

    Raises:
        InputError: A line of the file is not a reply.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._journal = Journal(path)
        self._opened = False
        self._replies: dict[str, ChatReply] = {}
        self._subjects: set[str] = set()
        self._answered: set[tuple[str, str]] = set()
        self._asked: set[str] = set()
        self._changed = Condition()
        for number, record in enumerate(self._journal.read(), 1):
            try:
                reply = ChatReply.model_validate(record)
            except ValidationError:
                raise InputError(f"{path}:{number}: not a model's reply; remove that line") from None
            self._take(reply)

    def get(self, key: str) -> ChatReply | None:
        """The reply to a call, if it has been delivered."""
        with self._changed:
            return self._replies.get(key)

    def knows_about(self, subject: str) -> bool:
        """Whether a call about this subject has had its reply."""
        with self._changed:
            return subject in self._subjects

    def has_answered(self, role: str, generator: str) -> bool:
        """Whether any call of a role in these words has had a reply of a model."""
        with self._changed:
            return (role, generator) in self._answered

    def _take(self, reply: ChatReply) -> None:
        self._replies[reply.key] = reply
        self._subjects.add(reply.subject)
        self._answered.add((reply.role, reply.generator))

    def get_or_ask(self, key: str, ask: Callable[[], ChatReply]) -> ChatReply:
        """The reply to a call; if there is none yet, ask for it and write it down before it is returned.

        Raises:
            Exception: Whatever `ask` raises; the next one who wants the same reply asks again.
        """
        with self._changed:
            self._changed.wait_for(lambda: key not in self._asked)
            if key in self._replies:
                return self._replies[key]
            self._asked.add(key)
        try:
            reply = ask()
            with self._changed:
                if not self._opened:
                    self._journal.__enter__()
                    self._opened = True
                self._journal.append(reply.model_dump())
                self._take(reply)
            return reply
        finally:
            with self._changed:
                self._asked.discard(key)
                self._changed.notify_all()

    def __enter__(self) -> "ReplyCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            if self._opened:
                self._journal.__exit__(kind, error, trace)
                self._opened = False
