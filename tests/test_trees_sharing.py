"""A step's rows on several processes: every branch once, as many rows on each, about equally expensive."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodrive.trees.packing import TreeSize, first_fit
from autodrive.trees.sharing import passes, shared_rows

SIZES = st.lists(
    st.tuples(st.integers(1, 40), st.lists(st.integers(1, 18), min_size=1, max_size=7)), min_size=1, max_size=12
)
COST = partial(passes, width=64)


@given(SIZES, st.integers(60, 200), st.integers(1, 5))
def test_every_branch_is_dealt_once_and_every_process_has_as_many_rows(sizes, budget, num_ranks):
    trees = [TreeSize(f"clip{i}", prefix, tuple(branches)) for i, (prefix, branches) in enumerate(sizes)]
    shares = shared_rows(trees, budget, num_ranks, COST)
    assert shares == shared_rows(trees, budget, num_ranks, COST)
    assert len(shares) == num_ranks
    assert len({len(share) for share in shares}) == 1
    dealt = sorted(
        (piece.tree, branch)
        for share in shares
        for row in share
        if not row.filler
        for piece in row.pieces
        for branch in piece.branches
    )
    assert dealt == [(number, branch) for number, tree in enumerate(trees) for branch in range(len(tree.branches))]
    for share in shares:
        own = {piece for row in share if not row.filler for piece in row.pieces}
        for row in share:
            assert row.pieces
            assert sum(trees[piece.tree].part(piece.branches).tokens for piece in row.pieces) <= budget
            if row.filler and own:  # no clip is decoded for the sake of a filler
                assert set(row.pieces) <= own


def test_no_process_waits_long_for_another():
    """36 trees of very different lengths: whole steps differ by 2 %, rows that are read side by side by 10 %."""
    trees = [TreeSize(str(i), 100 + 37 * (i % 11), (20,) * (1 + i % 7)) for i in range(36)]
    shares = shared_rows(trees, 1500, 4, COST)
    costs = [
        [sum(COST(trees[piece.tree].part(piece.branches)) for piece in row.pieces) for row in share] for share in shares
    ]
    steps = [sum(of_rank) for of_rank in costs]
    assert max(steps) < 1.02 * min(steps)
    for side_by_side in zip(*costs, strict=True):
        assert max(side_by_side) < 1.1 * min(side_by_side)
    fewest = len(first_fit([tree.tokens for tree in trees], 1500))
    assert len(costs[0]) == -(-fewest // 4)


def test_attention_counts_in_what_a_tree_costs():
    """A prefix of 6 d tokens costs half as much again as its tokens alone; branches see the prefix, not each other."""
    assert passes(TreeSize("a", 600, ()), width=100) == 600 + 600**2 / 2 / 600
    one, two = (passes(TreeSize("a", 600, (10,) * count), width=100) for count in (1, 2))
    assert two - one == pytest.approx(one - passes(TreeSize("a", 600, ()), width=100))
