"""Who sees whom in a packed row."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from autodrive.trees.clip_tree import BranchSpan, TreeRow, TreeSpan


@dataclass(frozen=True)
class TreeLayout:
    """Where the trees of a row lie, and who sees whom among their branches.

    Attributes:
        trees: Where each tree of the row begins and ends, in row order.
        visible: For each tree (branch tokens, tree tokens) bool, True where the branch token may attend. Prefix tokens
            have no rows: they are most of a tree, and causal attention is all there is to them.
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
        # The rows begin after the prefix, the columns with it: a branch's own block lies `prefix` further right.
        visible[own.start - prefix : own.stop - prefix, own] = torch.ones(length, length, dtype=torch.bool).tril()
    return visible


def tree_mask(layout: TreeLayout) -> Tensor:
    """Who may attend to whom in a whole row, (N, N) bool: the definition that tree attention is tested against."""
    length = layout.trees[-1].end
    mask = torch.zeros(length, length, dtype=torch.bool)
    for tree, visible in zip(layout.trees, layout.visible, strict=True):
        prefix = slice(tree.start, tree.prefix_end)
        mask[prefix, prefix] = torch.ones(tree.prefix_end - tree.start, tree.prefix_end - tree.start).tril().bool()
        mask[tree.prefix_end : tree.end, tree.start : tree.end] = visible.cpu()
    return mask
