"""From a model's words to a record: strict, with a reason for whatever cannot be read, whatever the server promised."""

import json
import re
from typing import Any, TypeVar

from pydantic import ValidationError

from autodrive.schema import Record

FormT = TypeVar("FormT", bound=Record)
# How a JSON object begins. A brace in prose, as in "{see below}", is none.
_OBJECT = re.compile(r'\{\s*["}]')


class Unreadable(Exception):  # noqa: N818 - named for what it says about the reply
    """A reply from which nothing is taken.

    Attributes:
        reason: One of `empty`, `no_json`, `cut_off`, `broken_json`, `several_objects`, `wrong_schema`.
        detail: Where and what, in a few words.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def read_reply(text: str, form: type[FormT]) -> FormT:
    """Read the one JSON object of a reply, which prose or code fences may surround.

    A trace that a reasoning model puts in front of its reply, in `<think>` tags, is passed over: objects that it plays
    with there are no answer.

    Args:
        text: The reply, verbatim.
        form: Record that the object must be; unknown and missing fields, and values of other types, are refused.

    Raises:
        Unreadable: There is no object, more than one, a broken one, or one of another form.
    """
    if text.lstrip().startswith("<think>"):
        _, end, text = text.partition("</think>")
        if not end:
            raise Unreadable("cut_off", "the trace in front of the reply has no end")
    if not text.strip():
        raise Unreadable("empty", "no words")
    found, position = [], 0
    while begin := _OBJECT.search(text, position):
        value, position = _decode(text, begin.start())
        found.append(value)
    if not found:
        raise Unreadable("no_json", f"begins with {text.strip()[:60]!r}")
    if len(found) > 1:
        raise Unreadable("several_objects", f"{len(found)} JSON objects, one is wanted")
    try:
        # As JSON, lists become tuples; strict, so that "3" is no number.
        return form.model_validate_json(json.dumps(found[0]), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "object"
        raise Unreadable("wrong_schema", f"{where}: {first['msg']}") from None


def _decode(text: str, start: int) -> tuple[Any, int]:
    """The object that begins at `start`, and where it ends."""
    decoder = json.JSONDecoder(object_pairs_hook=_without_repeated_keys, parse_constant=_refuse_constant)
    try:
        return decoder.raw_decode(text, start)
    except RecursionError:
        raise Unreadable("broken_json", "nested too deeply") from None
    except ValueError as error:
        position = error.pos if isinstance(error, json.JSONDecodeError) else start
        detail = f"{error.msg if isinstance(error, json.JSONDecodeError) else error} at character {position}"
        # An unterminated string is reported where it begins.
        unfinished = position >= len(text.rstrip().rstrip("`").rstrip()) or "Unterminated" in detail
        raise Unreadable("cut_off" if unfinished else "broken_json", detail) from None


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
