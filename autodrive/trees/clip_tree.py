"""The clip tree: one shared prefix and the annotations that branch from it, in tokens.

A *prefix* (system prompt, video, shared text) is seen by every branch; a *branch* (questions and answers) sees the
prefix and itself, never another branch. A packed row holds whole trees: of each the prefix first, then its branches one
after the other. Positions of every branch restart right after the prefix, so the row computes exactly what separate
sequences would. `docs/clip_trees.md` works an example by hand.

Shape letters: N tokens of a row, A position axes, S supervised positions of a row.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from autodrive.schema import Mode
from autodrive.trees.sample import ClipSample
from autodrive.trees.visual import VisualInput


@dataclass(frozen=True)
class TokenTurn:
    """One turn in tokens: `prompt_ids` unsupervised, `target_ids` supervised (empty where the student is asked)."""

    prompt_ids: list[int]
    target_ids: list[int]


@dataclass(frozen=True)
class TokenBranch:
    """One branch in tokens; the fields are those of `sample.Branch`."""

    annotation_id: str
    turns: tuple[TokenTurn, ...]
    option_ids: tuple[tuple[int, ...], ...] = ()
    weight: float = 1.0
    mode: Mode = "direct"

    @property
    def ids(self) -> list[int]:
        """All tokens in order."""
        return [token for turn in self.turns for token in turn.prompt_ids + turn.target_ids]

    @property
    def target_ids(self) -> list[int]:
        """The supervised tokens of all turns."""
        return [token for turn in self.turns for token in turn.target_ids]

    def asked(self) -> "TokenBranch":
        """The branch without its last answer."""
        return replace(self, turns=(*self.turns[:-1], replace(self.turns[-1], target_ids=[])))


@dataclass(frozen=True)
class ClipTree:
    """One clip in tokens.

    Attributes:
        clip_id: Id of the clip.
        visual: Pixels of the prefix, for the student's vision tower.
        prefix_ids: System prompt, user header, shared text and the video's placeholder tokens.
        prefix_positions: (A, len(prefix_ids)) position ids; how many axes there are is the student's own affair.
        branch_start: Position id that every branch's first token takes on all axes.
        branches: The annotations as branches behind the prefix.
    """

    clip_id: str
    visual: VisualInput
    prefix_ids: list[int]
    prefix_positions: Tensor
    branch_start: int
    branches: tuple[TokenBranch, ...]


@dataclass(frozen=True)
class BranchSpan:
    """Where a branch lies in its row: at [start, end).

    Attributes:
        tree: Number of its tree in the row.
        annotation_id: Id of the annotation that the branch shows.
        mode: Inference mode that the branch is asked in.
        start: Place of the branch's first token.
        targets: Start and end of every turn's target; the last one is empty where the student is asked.
        option_ids: Tokens of the last turn's options.
    """

    tree: int
    annotation_id: str
    mode: Mode
    start: int
    targets: tuple[tuple[int, int], ...]
    option_ids: tuple[tuple[int, ...], ...] = ()

    @property
    def target_start(self) -> int:
        """Where the last prompt ends and the answer begins; the token before it predicts the answer's first."""
        return self.targets[-1][0]

    @property
    def end(self) -> int:
        """One past the branch's last token."""
        return self.targets[-1][1]


@dataclass(frozen=True)
class TreeSpan:
    """Where a tree lies in its row: prefix at [start, prefix_end), its branches at [prefix_end, end).

    Attributes:
        clip_id: Id of the clip.
        visit: Place of the tree in its step, whichever process reads it; parts of a tree that was split have the same.
        start: Place of its first token.
        prefix_end: One past the prefix's last token.
        end: One past its last token.
    """

    clip_id: str
    visit: int
    start: int
    prefix_end: int
    end: int


@dataclass(frozen=True)
class TreeRow:
    """A packed row: whole clip trees one after the other, without padding, ready for a student.

    Attributes:
        input_ids: (N,) token ids of all trees, each with its prefix before its branches.
        position_ids: (A, N) position ids.
        visual: Pixels of all trees, in row order.
        source_positions: (S,) the places whose next token is supervised.
        target_ids: (S,) those next tokens.
        target_weights: (S,) what each token's loss is multiplied by; the loss of a step is the sum over its rows.
        trees: Where the trees lie, in row order.
        spans: Where the branches lie, in row order.
        filler: Whether it stands for a row that this process does not have, so that all processes make as many forward
            passes: it has weight 0, and what is read off it is not counted.
    """

    input_ids: Tensor
    position_ids: Tensor
    visual: VisualInput
    source_positions: Tensor
    target_ids: Tensor
    target_weights: Tensor
    trees: tuple[TreeSpan, ...]
    spans: tuple[BranchSpan, ...]
    filler: bool = False

    def as_filler(self) -> "TreeRow":
        """The same row, read only to keep other processes company."""
        return replace(self, target_weights=torch.zeros_like(self.target_weights), filler=True)

    @property
    def num_tokens(self) -> int:
        """N; every token is a real one."""
        return len(self.input_ids)

    def to(self, device: torch.device | str) -> "TreeRow":
        """The same row with its tensors on `device`."""
        # By type, so that a family's visual input moves with the row whatever it holds.
        moved = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, (Tensor, VisualInput))
        }
        return replace(self, **moved)


class FrameSizer(Protocol):
    """What reading a clip's frames needs of a model."""

    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        """Height and width in pixels to which a source of this size is resized."""
        ...


class ClipProcessor(FrameSizer, Protocol):
    """What a loader worker needs of a student: no weights."""

    @property
    def frames_per_group(self) -> int:
        """Frames that share one group of visual tokens."""
        ...

    @property
    def tells_time(self) -> bool:
        """Whether the number of a video's tokens depends on when its frames were taken."""
        ...

    def video_tokens(self, times_s: Tensor, width: int, height: int) -> int:
        """Tokens of a prefix that frames of these times take, visual ones and text, of a source of this size."""
        ...

    def encode(self, sample: ClipSample) -> ClipTree:
        """Turn pixels and text into a clip tree."""
        ...
