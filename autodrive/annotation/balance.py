"""Which clips are asked a question, so that nobody can answer it without watching."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from autodrive.schema import Clip

MOST_ABOVE_CHANCE = 0.05


def ask_fairly(clips: Sequence[Clip], answers: Sequence[str | None], rng: np.random.Generator) -> list[str | None]:
    """Leave answers out so that within each split none is much more frequent than others; see `fair_choice`.

    Args:
        clips: The clips that could be asked a question.
        answers: What is true of each of them; None where it is not known.
        rng: Draws who is left out.

    Returns:
        The answers of those that are asked; None for the others.
    """
    asked: list[str | None] = [None] * len(answers)
    for split in dict.fromkeys(clip.split for clip in clips):
        places = [place for place, answer in enumerate(answers) if answer is not None and clips[place].split == split]
        for chosen in fair_choice([str(answers[place]) for place in places], rng):
            asked[places[chosen]] = answers[places[chosen]]
    return asked


def fair_choice(answers: Sequence[str], rng: np.random.Generator) -> list[int]:
    """Choose among clips that could be asked the same question; what is true of them is not touched.

    The most frequent answer is then right for at most `MOST_ABOVE_CHANCE` more than one in k clips, k being the number
    of different answers. A question that all clips answer alike is not asked at all.

    Args:
        answers: What is true of each clip.
        rng: Draws who is left out among clips with the same answer.

    Returns:
        Indices of the clips to ask, ascending; all of them if their answers are even enough as they are.
    """
    counts = Counter(answers)
    if len(counts) < 2:
        return []
    most = _largest_cap(np.array(list(counts.values())), 1 / len(counts) + MOST_ABOVE_CHANCE)
    left = dict.fromkeys(counts, most)
    chosen = []
    for index in rng.permutation(len(answers)):
        if left[answers[index]]:
            left[answers[index]] -= 1
            chosen.append(int(index))
    return sorted(chosen)


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
