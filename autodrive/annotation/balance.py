"""Which clips are asked a question, so that nobody can answer it without watching."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from autodrive.schema import Clip

MOST_ABOVE_CHANCE = 0.05


class Asked(NamedTuple):
    """A clip that is asked a question.

    Attributes:
        answer: What is true of it.
        rank: Its place, from 0, among the clips with the same answer. Whoever words a question by it gives every answer
            the same wordings equally often, so that wordings do not tell answers either.
    """

    answer: str
    rank: int


def ask_fairly(clips: Sequence[Clip], answers: Sequence[str | None], rng: np.random.Generator) -> list[Asked | None]:
    """Leave clips out so that within each split no answer is much more frequent than others; see `fair_choice`.

    Args:
        clips: The clips that could be asked a question.
        answers: What is true of each of them; None where it is not known.
        rng: Draws who is left out.

    Returns:
        For each clip how it is asked; None for those that are not.
    """
    asked: list[Asked | None] = [None] * len(answers)
    for split in dict.fromkeys(clip.split for clip in clips):
        places = [place for place, answer in enumerate(answers) if answer is not None and clips[place].split == split]
        for chosen, found in fair_choice([str(answers[place]) for place in places], rng).items():
            asked[places[chosen]] = found
    return asked


def fair_choice(answers: Sequence[str], rng: np.random.Generator) -> dict[int, Asked]:
    """Choose among clips that could be asked the same question; what is true of them is not touched.

    The most frequent answer is then right for at most `MOST_ABOVE_CHANCE` more than one in k clips, k being the number
    of different answers. A question that all clips answer alike is not asked at all.

    Args:
        answers: What is true of each clip.
        rng: Draws who is left out among clips with the same answer, and the ranks.

    Returns:
        The clips to ask by their index; all of them if their answers are even enough as they are.
    """
    counts = Counter(answers)
    if len(counts) < 2:
        return {}
    most = _largest_cap(np.array(list(counts.values())), 1 / len(counts) + MOST_ABOVE_CHANCE)
    taken: Counter[str] = Counter()
    chosen = {}
    for index in map(int, rng.permutation(len(answers))):
        answer = answers[index]
        if taken[answer] < most:
            chosen[index] = Asked(answer, taken[answer])
            taken[answer] += 1
    return chosen


def _largest_cap(counts: np.ndarray, share: float) -> int:
    """The most clips of one answer, so that they are no more than this share of those that are left."""
    low, high = 1, int(counts.max())  # one of each is always fair
    while low < high:  # the share that a cap allows grows with the cap
        middle = (low + high + 1) // 2
        if middle <= share * np.minimum(counts, middle).sum():
            low = middle
        else:
            high = middle - 1
    return low
