"""Clip trees into packed rows: tokens, positions, and what is supervised with which weight."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from autodrive.errors import InputError
from autodrive.trees.clip_tree import BranchSpan, ClipTree, TokenBranch, TreeRow, TreeSpan

LossMean = Literal["annotations", "tokens"]


@dataclass(frozen=True)
class TreeSize:
    """A clip tree in numbers of tokens: all that packing looks at, and known before its video is decoded.

    Attributes:
        clip_id: Id of the clip.
        prefix: Tokens that all branches share.
        branches: Tokens of each branch.
    """

    clip_id: str
    prefix: int
    branches: tuple[int, ...]

    @classmethod
    def of(cls, tree: ClipTree) -> "TreeSize":
        """The size of a tree."""
        return cls(tree.clip_id, len(tree.prefix_ids), tuple(len(branch.ids) for branch in tree.branches))

    @property
    def tokens(self) -> int:
        """Tokens of the whole tree."""
        return self.prefix + sum(self.branches)

    def part(self, branches: range) -> "TreeSize":
        """The same prefix with some of the branches."""
        return replace(self, branches=self.branches[branches.start : branches.stop])


def pack_trees(
    trees: Sequence[ClipTree],
    tokens_per_row: int,
    loss_mean: LossMean = "annotations",
    normaliser: float | None = None,
) -> tuple[TreeRow, ...]:
    """Pack the trees of one step into as few rows as a simple rule finds.

    Trees go longest first into the first row that has room for them; within a row they keep their order. A tree that
    is longer than a row is split between branches, its prefix repeated, which changes no loss. What is packed follows
    from the trees alone.

    The loss of a step is `sum(weight x loss of the annotation) / normaliser` over all rows. With `annotations` the loss
    of an annotation is the mean over its target tokens, so that a caption counts no more than a letter; with `tokens`
    it is their sum.

    Args:
        trees: Trees of one optimiser step, or of one batch of questions.
        tokens_per_row: Most tokens in a row.
        loss_mean: What the loss is a mean over.
        normaliser: What the weighted losses are divided by. Left out, it is the sum of the weights (of annotations, or
            of target tokens), which makes the loss a weighted mean; where weights are signed their sum means nothing,
            and the number of replies, say, has to be given.

    Returns:
        Rows on the CPU; all of them together are one step.

    Raises:
        InputError: A prefix with a single branch is longer than a row.
        ValueError: A weight is negative and no normaliser is given.
    """
    if normaliser is None:
        normaliser = sum_of_weights([branch for tree in trees for branch in tree.branches], loss_mean)
    parts = [
        (visit, replace(tree, branches=tree.branches[part.start : part.stop]))
        for visit, tree in enumerate(trees)
        for part in split(TreeSize.of(tree), tokens_per_row)
    ]
    rows = first_fit([TreeSize.of(part).tokens for _, part in parts], tokens_per_row)
    return tuple(lay_out([parts[i] for i in row], normaliser, loss_mean) for row in rows)


def sum_of_weights(branches: Sequence[TokenBranch], loss_mean: LossMean) -> float:
    """What the weighted losses of a step are divided by, so that they are a mean.

    Raises:
        ValueError: A weight is negative.
    """
    if any(branch.weight < 0 for branch in branches):
        raise ValueError("signed weights do not add up to what their losses are divided by: give a normaliser")
    counts = [len(b.target_ids) if loss_mean == "tokens" else bool(b.target_ids) for b in branches]
    return sum(branch.weight * count for branch, count in zip(branches, counts, strict=True))


def split(size: TreeSize, tokens_per_row: int) -> list[range]:
    """Which branches of a tree go together: all, or where it is longer than a row, as many in order as fit a row each.

    Raises:
        InputError: A prefix with a single branch is longer than a row.
    """
    if size.tokens <= tokens_per_row:
        return [range(len(size.branches))]
    parts: list[range] = []
    for branch in range(len(size.branches)):
        longer = range(parts[-1].start, branch + 1) if parts else None
        if longer is None or size.part(longer).tokens > tokens_per_row:
            parts.append(range(branch, branch + 1))
        else:
            parts[-1] = longer
    parts = parts or [range(0)]
    longest = max(size.part(part).tokens for part in parts)
    if longest > tokens_per_row:
        message = (
            f"tokens_per_row={tokens_per_row}: clip {size.clip_id} needs {longest} tokens with a single annotation"
        )
        raise InputError(f"{message}; raise tokens_per_row, or lower resolution, fps or duration_s")
    return parts


def first_fit(lengths: Sequence[int], tokens_per_row: int) -> list[list[int]]:
    """Places of what goes into each row: longest first, into the first row that has room.

    That takes at most 11/9 of the fewest possible rows, and the same lengths always give the same rows, which a resumed
    run depends on. Rows are in the order of their first members, and members in their own.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((r for r, free in enumerate(room) if free >= lengths[index]), None)
        if row is None:
            row = len(rows)
            rows.append([])
            room.append(tokens_per_row)
        rows[row].append(index)
        room[row] -= lengths[index]
    return sorted((sorted(row) for row in rows), key=min)


def lay_out(parts: Sequence[tuple[int, ClipTree]], normaliser: float, loss_mean: LossMean) -> TreeRow:
    """One row of trees, one after the other.

    Args:
        parts: The row's trees, each behind its place in the step.
        normaliser: What the weighted losses of the whole step are divided by; 0 where nothing is supervised.
        loss_mean: What the loss of a step is a mean over.
    """
    scale = 1 / normaliser if normaliser else 0.0  # a batch of questions supervises nothing
    ids: list[int] = []
    positions: list[Tensor] = []
    tree_spans: list[TreeSpan] = []
    spans: list[BranchSpan] = []
    sources: list[int] = []
    weights: list[float] = []
    for number, (visit, tree) in enumerate(parts):
        start = len(ids)
        ids += tree.prefix_ids
        positions.append(tree.prefix_positions)
        for branch in tree.branches:
            branch_start = len(ids)
            targets = []
            for turn in branch.turns:
                ids += turn.prompt_ids
                targets.append((len(ids), len(ids) + len(turn.target_ids)))
                # A target is predicted from the token before it: the first from the end of its prompt.
                sources += range(targets[-1][0] - 1, targets[-1][1] - 1)
                ids += turn.target_ids
            spans.append(
                BranchSpan(number, branch.annotation_id, branch.mode, branch_start, tuple(targets), branch.option_ids)
            )
            # Every branch restarts at the same id, on all axes alike, as if it alone followed the prefix.
            steps = torch.arange(len(ids) - branch_start).to(tree.prefix_positions) + tree.branch_start
            positions.append(steps.expand(len(tree.prefix_positions), -1))
            # The mean over a branch's targets is folded into the weight of each, so that the loss of a step is one
            # plain sum over tokens, whichever rows they lie in.
            num_targets = len(branch.target_ids)
            share = 1 if loss_mean == "tokens" else max(1, num_targets)
            weights += [branch.weight * scale / share] * num_targets
        tree_spans.append(TreeSpan(tree.clip_id, visit, start, start + len(tree.prefix_ids), len(ids)))
    input_ids = torch.tensor(ids)
    source_positions = torch.tensor(sources, dtype=torch.long)
    return TreeRow(
        input_ids=input_ids,
        position_ids=torch.cat(positions, dim=1),
        visual=type(parts[0][1].visual).cat([tree.visual for _, tree in parts]),
        source_positions=source_positions,
        target_ids=input_ids[source_positions + 1],
        target_weights=torch.tensor(weights, dtype=torch.float32),
        trees=tuple(tree_spans),
        spans=tuple(spans),
    )
