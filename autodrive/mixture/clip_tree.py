"""The clip tree: one video prefix and the annotations that branch from it.

A *prefix* (system prompt + video) is seen by every branch; a *branch* (question + answer) sees the prefix and itself,
never another branch. A row of a batch is one clip: prefix tokens first, then the branches one after the other.
Positions of every branch restart right after the prefix, so the row computes exactly what separate sequences would.

Shape letters: B rows (clips), L padded row length, P vision patches over the whole batch, D values in a patch,
S supervised positions over the whole batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from autodrive.schema import Clip
from autodrive.video.decoder import DecodedFrames


@dataclass(frozen=True)
class Branch:
    """One annotation as text. `prompt` never contains the answer; `target` is None at inference.

    `option_targets` are the answer texts of the options, in the order shown, for scoring. `weight` is the annotation's
    share of the loss, relative to the other annotations of its batch.
    """

    annotation_id: str
    prompt: str
    target: str | None = None
    option_targets: tuple[str, ...] = ()
    weight: float = 1.0


@dataclass(frozen=True)
class ClipSample:
    """A clip as it leaves the loader's decoder: pixels and text, no tokens yet."""

    clip: Clip
    frames: DecodedFrames
    system: str
    branches: tuple[Branch, ...]


@dataclass(frozen=True)
class TokenBranch:
    """One branch in tokens: `prompt_ids` unsupervised, `target_ids` supervised (empty at inference)."""

    annotation_id: str
    prompt_ids: list[int]
    target_ids: list[int]
    option_ids: tuple[tuple[int, ...], ...] = ()
    weight: float = 1.0


@dataclass(frozen=True)
class ClipTree:
    """One clip in tokens.

    Attributes:
        patches_PD: uint8 pixels in the vision tower's patch order; normalised later, on the device.
        grid_thw: patch grid of the video: temporal patches, rows, columns.
        prefix_ids: system prompt, user header and the video's placeholder tokens.
        prefix_positions: (3, len(prefix_ids)) temporal, height and width position ids.
        branch_start: position id that every branch's first token takes on all three axes.
    """

    clip_id: str
    patches_PD: Tensor
    grid_thw: tuple[int, int, int]
    prefix_ids: list[int]
    prefix_positions: Tensor
    branch_start: int
    branches: tuple[TokenBranch, ...]


@dataclass(frozen=True)
class BranchSpan:
    """Where a branch lies in its row: prompt at [start, target_start), target at [target_start, end)."""

    row: int
    annotation_id: str
    start: int
    target_start: int
    end: int
    option_ids: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class TreeBatch:
    """Rows of clip trees, ready for a student.

    Attributes:
        input_ids: (B, L).
        position_ids: (3, B, L).
        attention_mask: (B, 1, L, L) bool, True where the query (row of the last two axes) may attend.
        patches_PD: (P, D) uint8.
        grid_thw: (B, 3).
        source_positions: (S, 2) row and column of the positions whose next token is supervised.
        target_ids: (S,) those next tokens.
        target_weights: (S,) loss weights; they sum to 1 over the batch (or are empty).
        spans: one per branch, in row order.
        prefix_lengths: one per row.
        num_tokens: tokens that are not padding.
    """

    clip_ids: tuple[str, ...]
    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor
    patches_PD: Tensor
    grid_thw: Tensor
    source_positions: Tensor
    target_ids: Tensor
    target_weights: Tensor
    spans: tuple[BranchSpan, ...]
    prefix_lengths: tuple[int, ...]
    num_tokens: int

    def to(self, device: torch.device | str) -> "TreeBatch":
        """The same batch with its tensors on `device`."""
        tensors = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)


class ClipProcessor(Protocol):
    """The weightless half of a student: everything about it that a loader worker needs."""

    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        """Height and width in pixels to which a source of this size is resized."""
        ...

    def encode(self, sample: ClipSample) -> ClipTree:
        """Turn pixels and text into a clip tree."""
        ...

    def collate(self, trees: Sequence[ClipTree]) -> TreeBatch:
        """Put clip trees into one padded batch."""
        ...
