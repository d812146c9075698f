"""Packing clip trees into rows: nothing lost, nothing twice, never more than the budget, the same every time."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autodrive.errors import InputError
from autodrive.students.qwen_processor import QwenVisual
from autodrive.trees.clip_tree import ClipTree, TokenBranch, TokenTurn
from autodrive.trees.packing import pack_trees


def tree(name: str, prefix: int, branches: list[tuple[int, int]]) -> ClipTree:
    """A tree of made-up tokens; every branch is (prompt tokens, target tokens)."""
    return ClipTree(
        clip_id=name,
        visual=QwenVisual(torch.full((4, 6), hash(name) % 256, dtype=torch.uint8), torch.tensor([[1, 2, 2]])),
        prefix_ids=list(range(100, 100 + prefix)),
        prefix_positions=torch.arange(prefix).expand(3, -1),
        branch_start=prefix,
        branches=tuple(
            TokenBranch(f"{name}/{i}", (TokenTurn([1000 + i] * prompt, [2000 + i] * target),))
            for i, (prompt, target) in enumerate(branches)
        ),
    )


SIZES = st.lists(
    st.tuples(st.integers(1, 40), st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=5)),
    min_size=1,
    max_size=8,
)


@given(SIZES, st.integers(60, 200), st.sampled_from(["annotations", "tokens"]))
def test_rows_hold_every_branch_once_within_the_budget(sizes, budget, loss_mean):
    trees = [tree(f"clip{i}", prefix, branches) for i, (prefix, branches) in enumerate(sizes)]
    rows = pack_trees(trees, budget, loss_mean)
    assert all(0 < row.num_tokens <= budget for row in rows)
    packed = sorted(span.annotation_id for row in rows for span in row.spans)
    assert packed == sorted(branch.annotation_id for t in trees for branch in t.branches)
    by_name = {t.clip_id: t for t in trees}
    for row in rows:
        assert row.position_ids.shape == (3, row.num_tokens)
        assert isinstance(row.visual, QwenVisual)
        assert len(row.visual.grid_thw) == len(row.trees)
        for span in row.spans:
            owner = row.trees[span.tree]
            branch = next(b for b in by_name[owner.clip_id].branches if b.annotation_id == span.annotation_id)
            assert row.input_ids[owner.start : owner.prefix_end].tolist() == by_name[owner.clip_id].prefix_ids
            assert row.input_ids[span.start : span.end].tolist() == branch.ids
            assert row.position_ids[0, span.start].item() == by_name[owner.clip_id].branch_start
        assert torch.equal(row.input_ids[row.source_positions + 1], row.target_ids)
    weights = torch.cat([row.target_weights for row in rows])
    supervised = any(target for _, branches in sizes for _, target in branches)
    assert weights.sum().item() == pytest.approx(1 if supervised else 0, abs=1e-5)


def test_rows_are_filled():
    """Longest first into the first row with room: 60 + 40, 50 + 30 + 20 in two rows of 100."""
    trees = [tree(str(i), length - 2, [(1, 1)]) for i, length in enumerate((20, 60, 30, 50, 40))]
    rows = pack_trees(trees, 100)
    assert [[t.clip_id for t in row.trees] for row in rows] == [["0", "2", "3"], ["1", "4"]]
    assert [row.num_tokens for row in rows] == [100, 100]


def test_the_mean_is_over_annotations_or_over_tokens():
    long_and_short = tree("clip", 5, [(2, 6), (2, 2)])
    by_annotation = pack_trees([long_and_short], 100, "annotations")[0].target_weights
    assert by_annotation.tolist() == pytest.approx([1 / 12] * 6 + [1 / 4] * 2)
    by_token = pack_trees([long_and_short], 100, "tokens")[0].target_weights
    assert by_token.tolist() == pytest.approx([1 / 8] * 8)
    heavy = replace(
        long_and_short, branches=(replace(long_and_short.branches[0], weight=3.0), *long_and_short.branches[1:])
    )
    assert pack_trees([heavy], 100)[0].target_weights.tolist() == pytest.approx([3 / 24] * 6 + [1 / 8] * 2)


def test_signed_weights_need_a_normaliser_and_are_not_their_own():
    """+1 and -1, as reinforcement learning has them: their sum is nothing to divide by."""
    good, bad = tree("clip", 5, [(2, 1), (2, 4)]).branches
    pair = replace(tree("clip", 5, []), branches=(replace(good, weight=1.0), replace(bad, weight=-1.0)))
    with pytest.raises(ValueError, match="give a normaliser"):
        pack_trees([pair], 100)
    assert pack_trees([pair], 100, normaliser=8.0)[0].target_weights.tolist() == [1 / 8] + [-1 / 32] * 4
    assert pack_trees([pair], 100, "tokens", normaliser=8.0)[0].target_weights.tolist() == [1 / 8] + [-1 / 8] * 4


def test_every_turn_s_target_is_supervised_from_the_token_before_it():
    turns = (TokenTurn([10, 11], [12, 13]), TokenTurn([14], [15]), TokenTurn([16, 17], []))
    talk = replace(tree("clip", 3, []), branches=(TokenBranch("talk", turns, weight=2.0),))
    (row,) = pack_trees([talk], 100)
    assert row.input_ids[row.source_positions].tolist() == [11, 12, 14]
    assert row.target_ids.tolist() == [12, 13, 15]
    assert row.target_weights.tolist() == pytest.approx([1 / 3] * 3)
    (span,) = row.spans
    assert span.targets == ((5, 7), (8, 9), (11, 11))
    assert (span.start, span.target_start, span.end) == (3, 11, 11)


def test_a_clip_that_fits_no_row_is_named_with_the_fix():
    with pytest.raises(InputError, match=r"tokens_per_row=20: clip long needs 33 tokens .* raise tokens_per_row"):
        pack_trees([tree("long", 30, [(2, 1)])], 20)
