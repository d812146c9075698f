"""Who sees whom in a packed row, and which of its trees attention reads in one call."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from autodrive.trees.clip_tree import TreeRow, TreeSpan

# Trees are read together whose branches take as many blocks of this size: each is padded by less than one block.
BLOCK_TOKENS = 64


@dataclass(frozen=True)
class TreeBatch:
    """Trees of a row that are read in one call: their prefixes are equally long, their branches nearly so.

    Shape letters: T trees, P prefix tokens, K tokens of the longest tree, B = K - P, S most places asked of a tree.

    Attributes:
        prefix: P.
        branches_TBK: Bool, True where a branch token may attend. Prefix tokens have no rows: they are most of a tree,
            and causal attention is all there is to them.
        asked_TSK: Bool, the same for the places whose next token is wanted.
    """

    prefix: int
    branches_TBK: Tensor
    asked_TSK: Tensor
    _biases: dict[tuple[int, torch.dtype], Tensor] = field(default_factory=dict, compare=False)

    def bias(self, visible: Tensor, dtype: torch.dtype) -> Tensor:
        """One of the masks as something to add to attention scores: 0 or minus infinity, made once for all layers.

        Args:
            visible: `branches_TBK` or `asked_TSK`.
            dtype: Type of the scores.

        Returns:
            (T, 1, rows, K).
        """
        key = id(visible), dtype
        if key not in self._biases:
            bias = torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, -torch.inf)
            self._biases[key] = bias[:, None]
        return self._biases[key]


@dataclass(frozen=True)
class Slots:
    """Where tokens lie once the trees of every batch are padded to one length, tree after tree, batch after batch.

    Attributes:
        of_tokens: (tokens,) slot of each; no slot is taken twice.
        shapes: Trees, and slots of a tree, of each batch.
    """

    of_tokens: Tensor
    shapes: tuple[tuple[int, int], ...]

    def spread(self, states: Tensor) -> list[Tensor]:
        """Turn (1, heads, tokens, head size) into (trees, heads, slots, head size) a batch, 0 where no token is."""
        rows = states[0].transpose(0, 1)
        sizes = [trees * slots for trees, slots in self.shapes]
        padded = rows.new_zeros(sum(sizes), *rows.shape[1:]).index_copy(0, self.of_tokens, rows)
        parts = zip(padded.split(sizes), self.shapes, strict=True)
        return [part.unflatten(0, shape).transpose(1, 2) for part, shape in parts]

    def collect(self, parts: Sequence[Tensor]) -> Tensor:
        """Turn (trees, heads, slots, head size) a batch into (1, tokens, heads, head size)."""
        rows = torch.cat([part.transpose(1, 2).flatten(0, 1) for part in parts])
        return rows.index_select(0, self.of_tokens)[None]


@dataclass(frozen=True)
class TreeLayout:
    """Where the trees of a row lie, and who sees whom among their tokens.

    Attributes:
        trees: Where each tree of the row begins and ends, in row order.
        begins: (N,) where the branch of each token begins, or its tree, for a token of a prefix.
        batches: The trees as attention reads them.
        tokens: Slots of the row's tokens, T x K a batch.
        asked: Slots of the places whose next token is wanted, T x S a batch.
    """

    trees: tuple[TreeSpan, ...]
    begins: Tensor
    batches: tuple[TreeBatch, ...]
    tokens: Slots
    asked: Slots

    @classmethod
    def of(cls, row: TreeRow, places: Tensor | None = None) -> "TreeLayout":
        """The layout of a row, on its device.

        Args:
            row: A packed row.
            places: (L,) places in the row whose next token is wanted, in any order; None: nothing is asked.
        """
        device = row.input_ids.device
        begins = torch.zeros(row.num_tokens, dtype=torch.long)
        for part in (*row.trees, *row.spans):
            begins[part.start : part.end] = part.start
        asked = torch.zeros(0, dtype=torch.long) if places is None else places.cpu()
        together: dict[tuple[int, int], list[TreeSpan]] = {}
        for tree in row.trees:
            alike = tree.prefix_end - tree.start, (tree.end - tree.prefix_end) // BLOCK_TOKENS
            together.setdefault(alike, []).append(tree)
        batches, slots = [], []
        for (prefix, _), trees in together.items():
            tokens = [torch.arange(tree.start, tree.end) for tree in trees]
            wanted = [((asked >= tree.start) & (asked < tree.end)).nonzero().squeeze(1) for tree in trees]
            rows_TK, asked_TS = _padded(trees, tokens), _padded(trees, [asked[indices] for indices in wanted])
            seen = (_visible(trees, some, begins, rows_TK.shape[1]) for some in (rows_TK[:, prefix:], asked_TS))
            branches_TBK, asked_TSK = (visible.to(device) for visible in seen)
            batches.append(TreeBatch(prefix, branches_TBK, asked_TSK))
            slots.append((tokens, wanted))
        of_tokens, of_asked = zip(*slots, strict=True)
        every_token, every_asked = _slots(of_tokens, len(begins), device), _slots(of_asked, len(asked), device)
        return cls(row.trees, begins, tuple(batches), every_token, every_asked)


def _padded(trees: Sequence[TreeSpan], places: Sequence[Tensor]) -> Tensor:
    """(T, Q) places of each tree; padding looks like the tree's first token, as a softmax over nothing would be nan."""
    width = max(map(len, places))
    padded = [F.pad(own, (0, width - len(own)), value=tree.start) for tree, own in zip(trees, places, strict=True)]
    return torch.stack(padded)


def _slots(batches: Sequence[Sequence[Tensor]], count: int, device: torch.device) -> Slots:
    """Slots of tokens, given by their indices in each tree of each batch."""
    of_tokens = torch.empty(count, dtype=torch.long)
    shapes = []
    start = 0
    for trees in batches:
        width = max(map(len, trees))
        for indices in trees:
            of_tokens[indices] = torch.arange(start, start + len(indices))
            start += width
        shapes.append((len(trees), width))
    return Slots(of_tokens.to(device), tuple(shapes))


def _visible(trees: Sequence[TreeSpan], places_TQ: Tensor, begins: Tensor, length: int) -> Tensor:
    """(T, Q, K) bool: what tokens of some trees see of the first K tokens of their tree."""
    starts, ends = (
        torch.tensor([getattr(tree, end) for tree in trees])[:, None, None] for end in ("start", "prefix_end")
    )
    keys = starts + torch.arange(length)
    queries = places_TQ[:, :, None]
    return (keys <= queries) & ((keys < ends) | (keys >= begins[queries]))


def tree_mask(layout: TreeLayout) -> Tensor:
    """Who may attend to whom in a whole row, (N, N) bool: the definition that tree attention is tested against."""
    length = layout.trees[-1].end
    mask = torch.zeros(length, length, dtype=torch.bool)
    for tree in layout.trees:
        own = slice(tree.start, tree.end)
        mask[own, own] = _visible(
            [tree], torch.arange(tree.start, tree.end)[None], layout.begins, tree.end - tree.start
        )
    return mask
