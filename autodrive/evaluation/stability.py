"""How steady replies are when they are drawn: whether a model says the same again, and how right it then is.

Letters in shapes: N questions, S replies to each of them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def agreement(said_NS: Sequence[Sequence[str | None]]) -> Floats:
    """The share of pairs of replies to a question that say the same, (N,).

    It is 1 - Gini-Simpson, without replacement: the probability that two replies which are drawn agree. One that could
    not be read says nothing, and so agrees with none.

    Args:
        said_NS: What was read from each reply; two or more of each question.
    """
    shares: list[float] = []
    for said in said_NS:
        counts = [sum(other == value for other in said) for value in set(said) if value is not None]
        shares.append(sum(count * (count - 1) for count in counts) / (len(said) * (len(said) - 1)))
    return np.array(shares, dtype=np.float64)


def spread(right_NS: Floats) -> float:
    """Standard deviation of the accuracy from one drawn reply of every question to the next.

    Args:
        right_NS: 1 where the reply is right, else 0; two or more of each question.
    """
    return float(right_NS.mean(axis=0).std(ddof=1))
