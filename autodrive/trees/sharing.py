"""The rows of one step on several processes: as many on each, about equally expensive, with all trees exactly once.

Every process works this out for itself, from the numbers of tokens of all trees of the step. So nothing is exchanged,
and each decodes only what it was dealt.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from autodrive.ranks.group import Group
from autodrive.trees.clip_tree import ClipTree, TreeRow
from autodrive.trees.packing import LossMean, TreeSize, first_fit, lay_out, split


@dataclass(frozen=True)
class Share:
    """One process's part of work that several share.

    Attributes:
        rank: Number of the process, from 0.
        num_ranks: How many there are.
    """

    rank: int = 0
    num_ranks: int = 1


class Piece(NamedTuple):
    """A tree of the step by its place, with some of its branches."""

    tree: int
    branches: range


class SharedRow(NamedTuple):
    """A row by its pieces; a filler stands where a process has no row of its own."""

    pieces: list[Piece]
    filler: bool


def passes(size: TreeSize, width: int) -> float:
    """What a forward pass over a tree takes, in the passes of a token through the layers' matrices.

    A layer of width d takes about 24 d² operations a token and 4 d a pair of tokens of which one attends to the other
    (Kaplan et al. 2020, table 1): the prefix within itself, every branch to the prefix and within itself.

    Args:
        size: The tree.
        width: Width d of the language model's layers.
    """
    pairs = size.prefix**2 / 2 + sum(branch * size.prefix + branch**2 / 2 for branch in size.branches)
    return size.tokens + pairs / (6 * width)


def shared_rows(
    sizes: Sequence[TreeSize], tokens_per_row: int, num_ranks: int, cost: Callable[[TreeSize], float]
) -> list[list[SharedRow]]:
    """The rows of every process, all of the same number.

    That number is the smallest with which the trees fit. The most expensive piece goes first, to the cheapest row that
    has room (Graham 1969: at most a third more than the best possible); then rows of similar cost are dealt to the
    processes, since those that shard weights wait for each other at every row.

    Args:
        sizes: All trees of the step.
        tokens_per_row: Most tokens of a row.
        num_ranks: Processes that share the step.
        cost: What a forward pass over a tree takes, in any unit.

    Returns:
        For each process its rows.

    Raises:
        InputError: A prefix with a single branch is longer than a row.
    """
    pieces = [Piece(number, part) for number, size in enumerate(sizes) for part in split(size, tokens_per_row)]
    parts = [sizes[piece.tree].part(piece.branches) for piece in pieces]
    lengths, costs = [part.tokens for part in parts], [cost(part) for part in parts]
    rows_each = -(-len(first_fit(lengths, tokens_per_row)) // num_ranks)
    while (rows := _levelled(lengths, costs, rows_each * num_ranks, tokens_per_row)) is None:
        rows_each += 1  # first fit may fill rows that levelling leaves ragged; at one piece a row both fit
    rows.sort(key=lambda row: -sum(costs[i] for i in row))
    shares: list[list[SharedRow]] = [[] for _ in range(num_ranks)]
    for turn in range(rows_each):
        dealt = rows[turn * num_ranks : (turn + 1) * num_ranks]
        # There and back again: whoever got the most expensive row of one turn gets the cheapest of the next.
        for share, row in zip(shares[:: 1 if turn % 2 == 0 else -1], dealt, strict=True):
            own = sorted(row) or _cheapest(share, pieces, costs)
            share.append(SharedRow([pieces[i] for i in own], filler=not row))
    return shares


def laid_out(
    share: Sequence[SharedRow], trees: Mapping[int, ClipTree], normaliser: float, loss_mean: LossMean
) -> tuple[TreeRow, ...]:
    """A process's rows with their tokens.

    Args:
        share: Its rows, as `shared_rows` deals them.
        trees: The trees that it needs for them, by their places in the step.
        normaliser: What the weighted losses of the whole step are divided by.
        loss_mean: What the loss of a step is a mean over.
    """
    rows = []
    for pieces, filler in share:
        parts = [
            (place, replace(trees[place], branches=trees[place].branches[part.start : part.stop]))
            for place, part in pieces
        ]
        row = lay_out(parts, normaliser, loss_mean)
        rows.append(row.as_filler() if filler else row)
    return tuple(rows)


def side_by_side(rows: Iterable[TreeRow], lockstep: Group | None) -> Iterator[TreeRow]:
    """A process's rows, and behind them fillers as long as another process has more.

    Args:
        rows: The rows, at least one; fillers among them are left out where each process is free.
        lockstep: The processes that must read as many rows each; None where each is free.
    """
    if lockstep is None:
        yield from (row for row in rows if not row.filler)
        return
    own, last = iter(rows), None
    while True:
        row = next(own, None)
        if not lockstep.any(row is not None):
            return
        if row is None:
            assert last is not None
            row = last.as_filler()
        yield row
        last = row


def _levelled(
    lengths: Sequence[int], costs: Sequence[float], num_rows: int, tokens_per_row: int
) -> list[list[int]] | None:
    """Pieces by row, costs about equal; None if a piece finds no room."""
    rows: list[list[int]] = [[] for _ in range(num_rows)]
    spent, room = [0.0] * num_rows, [tokens_per_row] * num_rows
    for index in sorted(range(len(lengths)), key=lambda i: -costs[i]):
        free = [row for row in range(num_rows) if room[row] >= lengths[index]]
        if not free:
            return None
        row = min(free, key=spent.__getitem__)
        rows[row].append(index)
        spent[row] += costs[index]
        room[row] -= lengths[index]
    return rows


def _cheapest(share: Sequence[SharedRow], pieces: Sequence[Piece], costs: Sequence[float]) -> list[int]:
    """What a process without a row of its own reads: a piece that it has decoded anyway, if there is one."""
    own = {piece for row in share for piece in row.pieces}
    known = [index for index, piece in enumerate(pieces) if piece in own]
    return [min(known or range(len(pieces)), key=costs.__getitem__)]
