"""Clip trees into packed rows: tokens, positions, and what is supervised with which weight."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from autodrive.errors import InputError
from autodrive.mixture.clip_tree import BranchSpan, ClipTree, TokenBranch, TreeRow, TreeSpan

LossMean = Literal["annotations", "tokens"]


def pack_trees(
    trees: Sequence[ClipTree], tokens_per_row: int, loss_mean: LossMean = "annotations"
) -> tuple[TreeRow, ...]:
    """Pack the trees of one step into as few rows as a simple rule finds.

    Trees go longest first into the first row that has room for them; within a row they keep their order. A tree that
    is longer than a row is split between branches, its prefix repeated, which changes no loss. What is packed follows
    from the trees alone.

    Loss weights are shared over all rows: with `annotations` the weighted mean over the step's annotations of the mean
    over an annotation's target tokens, so that a caption counts no more than a letter; with `tokens` the weighted mean
    over target tokens.

    Args:
        trees: of one optimiser step, or of one batch of questions.
        tokens_per_row: most tokens in a row.
        loss_mean: what the loss is a mean over.

    Returns:
        Rows on the CPU; all of them together are one step.

    Raises:
        InputError: a prefix with a single branch is longer than a row.
    """
    parts = [part for tree in trees for part in _split(tree, tokens_per_row)]
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(parts)), key=lambda i: -_length(parts[i])):
        length = _length(parts[index])
        row = next((r for r, free in enumerate(room) if free >= length), None)
        if row is None:
            row = len(rows)
            rows.append([])
            room.append(tokens_per_row)
        rows[row].append(index)
        room[row] -= length
    scale = _loss_scale([branch for tree in trees for branch in tree.branches], loss_mean)
    return tuple(_row([parts[i] for i in sorted(row)], scale, loss_mean) for row in sorted(rows, key=min))


def _length(tree: ClipTree) -> int:
    return len(tree.prefix_ids) + sum(len(branch.prompt_ids) + len(branch.target_ids) for branch in tree.branches)


def _split(tree: ClipTree, tokens_per_row: int) -> list[ClipTree]:
    """The tree, or several with the same prefix that hold its branches in order and fit a row each."""
    if _length(tree) <= tokens_per_row:
        return [tree]
    parts: list[list[TokenBranch]] = []
    for branch in tree.branches:
        if not parts or _length(replace(tree, branches=(*parts[-1], branch))) > tokens_per_row:
            parts.append([])
        parts[-1].append(branch)
    found = [replace(tree, branches=tuple(branches)) for branches in parts] or [tree]
    longest = max(map(_length, found))
    if longest > tokens_per_row:
        message = (
            f"tokens_per_row={tokens_per_row}: clip {tree.clip_id} needs {longest} tokens with a single annotation"
        )
        raise InputError(f"{message}; raise tokens_per_row, or lower resolution, fps or duration_s")
    return found


def _loss_scale(branches: Sequence[TokenBranch], loss_mean: LossMean) -> float:
    """One over the step's total weight; 0 if nothing is supervised."""
    counts = [len(b.target_ids) if loss_mean == "tokens" else bool(b.target_ids) for b in branches]
    total = sum(branch.weight * count for branch, count in zip(branches, counts, strict=True))
    return 1 / total if total else 0.0


def _row(trees: Sequence[ClipTree], scale: float, loss_mean: LossMean) -> TreeRow:
    """Lay trees out one after the other."""
    ids: list[int] = []
    positions: list[Tensor] = []
    tree_spans: list[TreeSpan] = []
    spans: list[BranchSpan] = []
    sources: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    for number, tree in enumerate(trees):
        start = len(ids)
        ids += tree.prefix_ids
        positions.append(tree.prefix_positions)
        for branch in tree.branches:
            span = _span(number, branch, len(ids))
            spans.append(span)
            ids += branch.prompt_ids + branch.target_ids
            steps = torch.arange(span.end - span.start).to(tree.prefix_positions) + tree.branch_start
            positions.append(steps.expand(3, -1))
            sources += range(span.target_start - 1, span.end - 1)
            targets += branch.target_ids
            share = 1 if loss_mean == "tokens" else max(1, len(branch.target_ids))
            weights += [branch.weight * scale / share] * len(branch.target_ids)
        tree_spans.append(TreeSpan(tree.clip_id, start, start + len(tree.prefix_ids), len(ids)))
    return TreeRow(
        input_ids=torch.tensor(ids),
        position_ids=torch.cat(positions, dim=1),
        patches_PD=torch.cat([tree.patches_PD for tree in trees]),
        grid_thw=torch.tensor([tree.grid_thw for tree in trees]),
        source_positions=torch.tensor(sources, dtype=torch.long),
        target_ids=torch.tensor(targets, dtype=torch.long),
        target_weights=torch.tensor(weights, dtype=torch.float32),
        trees=tuple(tree_spans),
        spans=tuple(spans),
    )


def _span(tree: int, branch: TokenBranch, start: int) -> BranchSpan:
    target_start = start + len(branch.prompt_ids)
    end = target_start + len(branch.target_ids)
    return BranchSpan(tree, branch.annotation_id, branch.mode, start, target_start, end, branch.option_ids)
