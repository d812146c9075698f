"""The clip tree: one video prefix and the annotations that branch from it.

A *prefix* (system prompt + video) is seen by every branch; a *branch* (question + answer) sees the prefix and itself,
never another branch. A packed row holds whole trees: of each the prefix first, then its branches one after the other.
Positions of every branch restart right after the prefix, so the row computes exactly what separate sequences would.
`docs/clip_trees.md` works an example by hand.

Shape letters: N tokens of a row, P vision patches of a row, D values in a patch, S supervised positions of a row.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from autodrive.schema import Clip, Mode
from autodrive.video.decoder import DecodedFrames


@dataclass(frozen=True)
class Branch:
    """One annotation as text. `prompt` never contains the answer; `target` is None at inference.

    `option_targets` are the answer texts of the options, in the order shown, for scoring. `weight` is the annotation's
    share of the loss, relative to the other annotations of its step. `mode` is the inference mode the prompt asks for.
    """

    annotation_id: str
    prompt: str
    target: str | None = None
    option_targets: tuple[str, ...] = ()
    weight: float = 1.0
    mode: Mode = "direct"


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
    mode: Mode = "direct"


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
    """Where a branch lies in its row: prompt at [start, target_start), target at [target_start, end).

    `tree` is the number of its tree in the row.
    """

    tree: int
    annotation_id: str
    mode: Mode
    start: int
    target_start: int
    end: int
    option_ids: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class TreeSpan:
    """Where a tree lies in its row: prefix at [start, prefix_end), its branches at [prefix_end, end)."""

    clip_id: str
    start: int
    prefix_end: int
    end: int


@dataclass(frozen=True)
class TreeRow:
    """A packed row: whole clip trees one after the other, without padding, ready for a student.

    Attributes:
        input_ids: (N,).
        position_ids: (3, N).
        patches_PD: (P, D) uint8, the patches of all trees.
        grid_thw: (trees, 3).
        source_positions: (S,) the positions whose next token is supervised.
        target_ids: (S,) those next tokens.
        target_weights: (S,) loss weights; over all rows of a step they sum to 1.
        trees: in row order.
        spans: one per branch, in row order.
    """

    input_ids: Tensor
    position_ids: Tensor
    patches_PD: Tensor
    grid_thw: Tensor
    source_positions: Tensor
    target_ids: Tensor
    target_weights: Tensor
    trees: tuple[TreeSpan, ...]
    spans: tuple[BranchSpan, ...]

    @property
    def num_tokens(self) -> int:
        """N; every token is a real one."""
        return len(self.input_ids)

    def to(self, device: torch.device | str) -> "TreeRow":
        """The same row with its tensors on `device`."""
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
