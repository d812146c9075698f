"""Whether two sides that should be the same model are: one question after the other, and what could not be compared."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from autodrive.counted import counted
from autodrive.schema import Mode

# Share of a video's tokens by which a template may differ and the rest still be taken for the video's.
OTHER_TEMPLATE = 0.1


@dataclass(frozen=True)
class Said:
    """What one side makes of a question.

    Attributes:
        reply: The greedy reply.
        scores: Log-probability of each option; None where the side gives none.
        num_tokens: Tokens of the prompt with its video; None where the side counts none.
        ids: Tokens of the prompt, each run of one token taken for one, since sides differ in where they spread a
            video's placeholder; None where the side does not tell.
    """

    reply: str
    scores: tuple[float, ...] | None = None
    num_tokens: int | None = None
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Pair:
    """One question as both sides see it.

    Attributes:
        clip_id: The clip that it is about.
        annotation_id: The id that it is asked under.
        mode: The mode that it is asked in.
        video_tokens: Tokens of the prompt that would not be there without the video.
        group_tokens: Tokens of one of the video's groups of frames.
        ours: The student as this project reads it.
        theirs: The other side.
    """

    clip_id: str
    annotation_id: str
    mode: Mode
    video_tokens: int
    group_tokens: int
    ours: Said
    theirs: Said

    @property
    def difference(self) -> float | None:
        """Largest difference of an option's score; None where a side has no scores."""
        if not self.ours.scores or not self.theirs.scores:
            return None
        return max(abs(a - b) for a, b in zip(self.ours.scores, self.theirs.scores, strict=True))


@dataclass(frozen=True)
class Parity:
    """The comparison of two sides.

    Attributes:
        pairs: All questions.
        tolerance: Most by which the log-probability of an option may differ.
        found: What else was found to differ, a line each.
        not_compared: What could not be compared, and why.
    """

    pairs: Sequence[Pair]
    tolerance: float
    found: Sequence[str] = ()
    not_compared: Mapping[str, str] = field(default_factory=dict)

    @property
    def equal_replies(self) -> float:
        """Share of questions with the same reply on both sides."""
        return sum(pair.ours.reply == pair.theirs.reply for pair in self.pairs) / len(self.pairs)

    @property
    def largest_difference(self) -> float | None:
        """Largest difference of an option's score; None where none could be compared."""
        return max((d for pair in self.pairs if (d := pair.difference) is not None), default=None)

    def differences(self) -> list[str]:
        """Everything that differs, a line each; empty if the sides are the same."""
        lines = [*self.found, *_about_tokens(self.pairs), *_about_ids(self.pairs)]
        largest = self.largest_difference
        if largest is not None and not largest <= self.tolerance:  # nan is not below
            lines.append(f"option scores: differ by up to {largest:.2g}, more than tolerance={self.tolerance:g}")
        others = sum(pair.ours.reply != pair.theirs.reply for pair in self.pairs)
        if others:
            lines.append(f"replies: {others} of {counted(len(self.pairs), 'question')} are replied to in other words")
        return lines

    def record(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return {
            "same": not self.differences(),
            "differences": self.differences(),
            "not_compared": dict(self.not_compared),
            "equal_replies": self.equal_replies,
            "largest_difference": self.largest_difference,
            "questions": [
                {
                    "clip": pair.clip_id,
                    "question": pair.annotation_id,
                    "mode": pair.mode,
                    "replies": [pair.ours.reply, pair.theirs.reply],
                    "scores": [pair.ours.scores, pair.theirs.scores],
                    "prompt_tokens": [pair.ours.num_tokens, pair.theirs.num_tokens],
                }
                for pair in self.pairs
            ],
        }


def without_runs(ids: Sequence[int]) -> tuple[int, ...]:
    """The ids, each run of one token as one."""
    return tuple(token for token, _ in groupby(ids))


def lacking(pairs: Sequence[Pair], what: str, get: Callable[[Said], Any], why: str) -> dict[str, str]:
    """An entry of `not_compared` where one of the sides lacks something in some of the questions.

    Args:
        pairs: The questions.
        what: What is compared.
        get: Gives it; None where a side has none.
        why: Why it may be missing.
    """
    missing = sum(get(pair.ours) is not None and get(pair.theirs) is None for pair in pairs)
    return {what: f"{missing} of {counted(len(pairs), 'question')}: {why}"} if missing else {}


def _about_tokens(pairs: Sequence[Pair]) -> list[str]:
    reasons: Counter[str] = Counter()
    example: dict[str, str] = {}
    for pair in pairs:
        ours, theirs = pair.ours.num_tokens, pair.theirs.num_tokens
        if ours is None or theirs is None or ours == theirs:
            continue
        reason = _why_other_tokens(theirs - ours, pair)
        reasons[reason] += 1
        example.setdefault(reason, f"{ours} here, {theirs} there")
    total = counted(len(pairs), "question")
    return [f"prompt tokens: {reason} ({n} of {total}; {example[reason]})" for reason, n in reasons.items()]


def _why_other_tokens(surplus: int, pair: Pair) -> str:
    """What a difference in prompt tokens most likely comes from."""
    if abs(surplus + pair.video_tokens) <= OTHER_TEMPLATE * pair.video_tokens:
        return "as many are missing as the video has: it was left out"
    if surplus % pair.group_tokens == 0:
        groups = counted(abs(surplus) // pair.group_tokens, "group")
        return f"{groups} of frames {'more' if surplus > 0 else 'fewer'}: another frame count, or size"
    return f"{counted(abs(surplus), 'token')} {'more' if surplus > 0 else 'fewer'}: another template or frame size"


def _about_ids(pairs: Sequence[Pair]) -> list[str]:
    both = [(p.ours.ids, p.theirs.ids) for p in pairs if p.ours.ids is not None and p.theirs.ids is not None]
    other = [(ours, theirs) for ours, theirs in both if ours != theirs]
    if not other:
        return []
    ours, theirs = other[0]
    place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    here, there = (ids[place] if place < len(ids) else "the end" for ids in (ours, theirs))
    first = f"the first at place {place}: {here} here, {there} there"
    return [f"prompt ids: differ in {len(other)} of {counted(len(both), 'question')}, {first}: another template"]
