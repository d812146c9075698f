"""Clip trees into one padded batch: tokens, positions, the tree mask, and what is supervised with which weight."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from autodrive.mixture.clip_tree import BranchSpan, ClipTree, TreeBatch

PREFIX_SEGMENT = 0
PADDING_SEGMENT = -1


def collate_trees(trees: Sequence[ClipTree], pad_id: int) -> TreeBatch:
    """Lay every tree out as a row (prefix, then its branches one after the other) and pad the rows.

    Loss weights are the weighted mean over the batch's supervised annotations of the mean over an annotation's target
    tokens, so a long answer counts no more than a letter.

    Args:
        trees: one per row.
        pad_id: token that fills short rows.

    Returns:
        The batch, on the CPU.
    """
    rows = [_lay_out(row, tree) for row, tree in enumerate(trees)]
    spans = tuple(span for row in rows for span in row[3])
    segments_BL = pad_sequence([row[2] for row in rows], batch_first=True, padding_value=PADDING_SEGMENT)
    sources, targets, weights = _supervision(trees, spans)
    return TreeBatch(
        clip_ids=tuple(tree.clip_id for tree in trees),
        input_ids=pad_sequence([row[0] for row in rows], batch_first=True, padding_value=pad_id),
        position_ids=pad_sequence([row[1] for row in rows], batch_first=True).permute(2, 0, 1).contiguous(),
        attention_mask=tree_mask(segments_BL),
        patches_PD=torch.cat([tree.patches_PD for tree in trees]),
        grid_thw=torch.tensor([tree.grid_thw for tree in trees]),
        source_positions=sources,
        target_ids=targets,
        target_weights=weights,
        spans=spans,
        prefix_lengths=tuple(len(tree.prefix_ids) for tree in trees),
        num_tokens=int((segments_BL != PADDING_SEGMENT).sum()),
    )


def tree_mask(segments_BL: Tensor) -> Tensor:
    """Who may attend to whom: a token sees the prefix and its own segment, up to itself.

    Args:
        segments_BL: 0 in the prefix, the branch's number (from 1) in a branch, -1 in padding.

    Returns:
        (B, 1, L, L) bool. Padding attends to itself alone, so that no row of the softmax is empty.
    """
    length = segments_BL.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    queries, keys = segments_BL[:, :, None], segments_BL[:, None, :]
    visible = causal & ((keys == queries) | (keys == PREFIX_SEGMENT)) & (queries != PADDING_SEGMENT)
    return (visible | torch.eye(length, dtype=torch.bool))[:, None]


def _lay_out(row: int, tree: ClipTree) -> tuple[Tensor, Tensor, Tensor, list[BranchSpan]]:
    """One row: token ids (L,), positions (L, 3), segments (L,) and the branches' spans."""
    ids = list(tree.prefix_ids)
    positions = [tree.prefix_positions.T]
    segments = [PREFIX_SEGMENT] * len(ids)
    spans = []
    for number, branch in enumerate(tree.branches, 1):
        start = len(ids)
        ids += branch.prompt_ids + branch.target_ids
        count = len(ids) - start
        steps = torch.arange(count).to(tree.prefix_positions) + tree.branch_start
        positions.append(steps[:, None].expand(-1, 3))
        segments += [number] * count
        target_start = start + len(branch.prompt_ids)
        spans.append(BranchSpan(row, branch.annotation_id, start, target_start, len(ids), branch.option_ids))
    return torch.tensor(ids), torch.cat(positions), torch.tensor(segments), spans


def _supervision(trees: Sequence[ClipTree], spans: Sequence[BranchSpan]) -> tuple[Tensor, Tensor, Tensor]:
    """Positions (S, 2) whose next token is supervised, those tokens (S,), and their weights (S,)."""
    branches = [branch for tree in trees for branch in tree.branches]
    supervised = [(branch, span) for branch, span in zip(branches, spans, strict=True) if branch.target_ids]
    total = sum(branch.weight for branch, _ in supervised)
    sources, targets, weights = [], [], []
    for branch, span in supervised:
        sources += [(span.row, position - 1) for position in range(span.target_start, span.end)]
        targets += branch.target_ids
        weights += [branch.weight / (total * len(branch.target_ids))] * len(branch.target_ids)
    return (
        torch.tensor(sources, dtype=torch.long).reshape(-1, 2),
        torch.tensor(targets, dtype=torch.long),
        torch.tensor(weights, dtype=torch.float32),
    )
