"""Strict readers of replies. What cannot be read for certain is a failure with a reason; nothing is guessed.

Direct replies are an option's letter (`B`, `B.`, `(B)`), the letter with that option's words (`B. Normal driving`), or
exactly one option's words. Reasoning replies are one think block and then one answer block, with nothing outside them:

    <think>the gap closes, then the horizon jolts</think><answer>B</answer>

or, of tasks that ask for no answer block, a think block and then the answer alone.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from autodrive.schema import Mode

EMPTY: Final = "empty"
LETTER_OUT_OF_RANGE: Final = "letter_out_of_range"
SEVERAL_LETTERS: Final = "several_letters"
LETTER_IN_PROSE: Final = "letter_in_prose"
LETTER_CONTRADICTS_WORDS: Final = "letter_contradicts_words"
AMBIGUOUS_OPTIONS: Final = "ambiguous_options"
NOT_AN_OPTION: Final = "not_an_option"
MISSING_TAGS: Final = "missing_tags"
REPEATED_TAGS: Final = "repeated_tags"
MISPLACED_TAGS: Final = "misplaced_tags"
FAILURES: Final = frozenset(
    {
        EMPTY,
        LETTER_OUT_OF_RANGE,
        SEVERAL_LETTERS,
        LETTER_IN_PROSE,
        LETTER_CONTRADICTS_WORDS,
        AMBIGUOUS_OPTIONS,
        NOT_AN_OPTION,
        MISSING_TAGS,
        REPEATED_TAGS,
        MISPLACED_TAGS,
    }
)

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_REASONING = re.compile(r"\s*<think>(.*)</think>\s*<answer>(.*)</answer>\s*", re.DOTALL)
_THINK_ALONE = re.compile(r"\s*<think>(.*)</think>(.*)", re.DOTALL)
_THINK = re.compile(r"\s*<think>(.*?)</think>", re.DOTALL)
_LETTER = re.compile(r"(?:\(([A-Z])\)|([A-Z])[.):]?)")
_LETTER_AND_WORDS = re.compile(r"(?:\(([A-Z])\)|([A-Z])[.):])\s+(.+)", re.DOTALL)
_LONE_LETTERS = re.compile(r"(?<![A-Za-z'])[A-Z](?![A-Za-z'])")


@dataclass(frozen=True)
class ParsedReply:
    """What was read from a reply: a canonical option value, or the reason why none could be read.

    Exactly one of `value` and `failure` is set. `think` is the text of a well-formed think block, else None.
    """

    value: str | None = None
    failure: str | None = None
    think: str | None = None


def parse_reply(
    reply: str,
    mode: Mode,
    options: Sequence[str],
    option_texts: Sequence[str],
    lettered: bool = True,
    answer_block: bool = True,
) -> ParsedReply:
    """What one reply says, as a canonical value.

    Args:
        reply: The model's text, verbatim.
        mode: `direct`, or `reasoning` for replies with a think block and an answer block.
        options: Canonical values, in the order shown.
        option_texts: The words shown for each of them.
        lettered: Whether the options were shown with letters; if not, only words are read.
        answer_block: Whether the answer after a trace stands in a block of its own; if not, it is all that follows.
    """

    def read(text: str) -> ParsedReply:
        return _parse_direct(text, options, option_texts, lettered)

    return read(reply) if mode == "direct" else _after_a_trace(reply, read, answer_block)


def parse_free_reply(reply: str, mode: Mode, answer_block: bool = True) -> ParsedReply:
    """What a reply in free words says: all of it as it is, or in `reasoning` mode the words after its trace."""

    def read(text: str) -> ParsedReply:
        return ParsedReply(value=text.strip()) if text.strip() else ParsedReply(failure=EMPTY)

    return ParsedReply(value=reply) if mode == "direct" else _after_a_trace(reply, read, answer_block)


def _after_a_trace(reply: str, read: Callable[[str], ParsedReply], answer_block: bool) -> ParsedReply:
    """Read the answer of a reply that has a think block before it, and nothing else."""
    counts = [reply.count(tag) for tag in (_TAGS if answer_block else _TAGS[:2])]
    if 0 in counts:
        return ParsedReply(failure=MISSING_TAGS if reply.strip() else EMPTY, think=think_block(reply))
    if max(counts) > 1:
        return ParsedReply(failure=REPEATED_TAGS, think=think_block(reply))
    match = (_REASONING if answer_block else _THINK_ALONE).fullmatch(reply)
    if match is None:
        return ParsedReply(failure=MISPLACED_TAGS, think=think_block(reply))
    return replace(read(match[2]), think=think_block(reply))


def think_block(reply: str) -> str | None:
    """The text of a reply's think block if it opens the reply, occurs once and holds words; None otherwise."""
    if reply.count("<think>") != 1 or reply.count("</think>") != 1:
        return None
    match = _THINK.match(reply)
    return match[1].strip() or None if match else None


def _parse_direct(reply: str, options: Sequence[str], option_texts: Sequence[str], lettered: bool) -> ParsedReply:
    text = reply.strip()
    if not text:
        return ParsedReply(failure=EMPTY)
    named = {option for option, words in zip(options, option_texts, strict=True) if _words(words) == _words(text)}
    if not lettered:
        return _only(named, NOT_AN_OPTION)
    if match := _LETTER.fullmatch(text):
        position = ord(match[1] or match[2]) - ord("A")
        if position < len(options):
            # An option whose own words are a single letter would be read in two ways: then nothing is read.
            return _only(named | {options[position]}, AMBIGUOUS_OPTIONS)
        return _only(named, LETTER_OUT_OF_RANGE)
    if named:
        return _only(named, AMBIGUOUS_OPTIONS)
    if match := _LETTER_AND_WORDS.fullmatch(text):
        return _letter_and_words(match, options, option_texts)
    return ParsedReply(failure=_why_unreadable(text))


def _letter_and_words(match: re.Match[str], options: Sequence[str], option_texts: Sequence[str]) -> ParsedReply:
    position = ord(match[1] or match[2]) - ord("A")
    words = _words(match[3])
    if position >= len(options):
        return ParsedReply(failure=LETTER_OUT_OF_RANGE)
    if words == _words(option_texts[position]):
        return ParsedReply(value=options[position])
    if any(words == _words(other) for other in option_texts):
        return ParsedReply(failure=LETTER_CONTRADICTS_WORDS)
    return ParsedReply(failure=_why_unreadable(match[0]))


def _only(candidates: set[str], reason: str) -> ParsedReply:
    if len(candidates) == 1:
        return ParsedReply(value=next(iter(candidates)))
    return ParsedReply(failure=AMBIGUOUS_OPTIONS if candidates else reason)


def _why_unreadable(text: str) -> str:
    letters = _LONE_LETTERS.findall(text)
    if len(letters) > 1:
        return SEVERAL_LETTERS
    return LETTER_IN_PROSE if letters else NOT_AN_OPTION


def _words(text: str) -> str:
    """Words for comparison: case, runs of spaces and a closing full stop do not matter."""
    return " ".join(text.casefold().split()).removesuffix(".").rstrip()
