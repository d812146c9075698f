"""Attention over packed rows of clip trees, exact and without a mask of row length squared.

A prefix attends to itself, causally: a plain causal call. The branches of a tree attend to the prefix and each to
itself: one call whose mask has only the branches' rows. Registered with transformers as `clip_trees`; everything but a
packed row (the steps of generation, which bring their own small mask) is passed on to its sdpa.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

from autodrive.mixture.clip_tree import BranchSpan, TreeRow, TreeSpan

CLIP_TREES = "clip_trees"


@dataclass(frozen=True)
class TreeLayout:
    """Where the trees of a row lie, and who sees whom among their branches.

    Attributes:
        trees: the row's trees.
        visible: per tree (branch tokens, tree tokens) bool, True where the branch token may attend.
    """

    trees: tuple[TreeSpan, ...]
    visible: tuple[Tensor, ...]
    _biases: dict[torch.dtype, tuple[Tensor, ...]] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, row: TreeRow) -> "TreeLayout":
        """The layout of a row, on its device."""
        device = row.input_ids.device
        by_tree = [[s for s in row.spans if s.tree == number] for number in range(len(row.trees))]
        visible = [_branch_visibility(tree, spans).to(device) for tree, spans in zip(row.trees, by_tree, strict=True)]
        return cls(row.trees, tuple(visible))

    def biases(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """`visible` as something to add to attention scores: 0 or minus infinity, made once for all layers."""
        if dtype not in self._biases:
            self._biases[dtype] = tuple(
                torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)
                for seen in self.visible
            )
        return self._biases[dtype]


def _branch_visibility(tree: TreeSpan, spans: Sequence[BranchSpan]) -> Tensor:
    """(branch tokens, tree tokens) bool of one tree."""
    prefix, total = tree.prefix_end - tree.start, tree.end - tree.start
    visible = torch.zeros(total - prefix, total, dtype=torch.bool)
    visible[:, :prefix] = True
    for span in spans:
        own = slice(span.start - tree.start, span.end - tree.start)
        length = span.end - span.start
        visible[own.start - prefix : own.stop - prefix, own] = torch.ones(length, length, dtype=torch.bool).tril()
    return visible


def tree_mask(layout: TreeLayout) -> Tensor:
    """Who may attend to whom in a whole row, (N, N) bool: the definition that the attention here is tested against."""
    length = layout.trees[-1].end
    mask = torch.zeros(length, length, dtype=torch.bool)
    for tree, visible in zip(layout.trees, layout.visible, strict=True):
        prefix = slice(tree.start, tree.prefix_end)
        mask[prefix, prefix] = torch.ones(tree.prefix_end - tree.start, tree.prefix_end - tree.start).tril().bool()
        mask[tree.prefix_end : tree.end, tree.start : tree.end] = visible.cpu()
    return mask


def clip_tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    tree_layout: TreeLayout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend within the trees of a packed row; the signature is transformers'.

    Args:
        module: the attention module that calls.
        query: (1, heads, N, head size).
        key: (1, key-value heads, N, head size).
        value: likewise.
        attention_mask: of a call that is no packed row.
        scaling: of the scores.
        dropout: of the attention weights.
        tree_layout: of the packed row; None passes the call on.
        kwargs: passed on.

    Returns:
        (1, N, heads, head size), and no weights.
    """
    if tree_layout is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    # CUDA's kernels take grouped heads or a mask, not both, so only the causal call keeps them grouped.
    groups = query.shape[1] // key.shape[1]
    how: dict[str, Any] = {"dropout_p": dropout, "scale": scaling}
    outputs = []
    for tree, bias in zip(tree_layout.trees, tree_layout.biases(query.dtype), strict=True):
        q, k, v = (tensor[:, :, tree.start : tree.prefix_end] for tensor in (query, key, value))
        outputs.append(F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=groups > 1, **how))
        if tree.end > tree.prefix_end:
            q = query[:, :, tree.prefix_end : tree.end]
            k, v = (repeat_kv(tensor[:, :, tree.start : tree.end], groups) for tensor in (key, value))
            outputs.append(F.scaled_dot_product_attention(q, k, v, attn_mask=bias, **how))
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def use_tree_attention(model: nn.Module) -> None:
    """Make a transformers model's text layers attend within clip trees; its vision tower stays as it is."""
    AttentionInterface.register(CLIP_TREES, clip_tree_attention)
    model.set_attn_implementation({"text_config": CLIP_TREES})  # pyright: ignore[reportCallIssue]
