"""The weightless half of an NVILA student."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from autodrive.errors import InputError
from autodrive.students.chat_processor import ChatProcessor
from autodrive.students.nvila_model import ProjectorKind, tokens_of_side
from autodrive.students.preprocessing import patchify
from autodrive.students.qwen_tokenizer import END_OF_TURN, START_OF_TURN
from autodrive.students.resolution import Resolution
from autodrive.trees.clip_tree import ClipTree
from autodrive.trees.sample import ClipSample, Text
from autodrive.trees.visual import VisualInput

VIDEO_MEDIA = "<vila/video>"
SETTINGS = ("frame_side", "patch_size", "projector", "pooled_frames")
MOST_USUAL_BLOCKS = 32  # 8 frames by default (`train/args.py` of VILA), of the video model 256 in eights


@dataclass(frozen=True)
class NvilaVisual(VisualInput):
    """Frames in the order in which they are read.

    Attributes:
        patches_PD: Patches of all frames, (P, D) uint8.
        frames_B: How many frames each block of visual tokens is the mean of, (B,).
    """

    patches_PD: Tensor
    frames_B: Tensor

    @classmethod
    def cat(cls, inputs: Sequence[Self]) -> Self:
        """Join the frames of several trees."""
        return cls(*(torch.cat([getattr(visual, name) for visual in inputs]) for name in ("patches_PD", "frames_B")))

    def to(self, device: torch.device | str) -> Self:
        """The same frames on `device`."""
        return replace(self, patches_PD=self.patches_PD.to(device), frames_B=self.frames_B.to(device))


@dataclass(frozen=True)
class NvilaProcessor(ChatProcessor):
    """Every frame is a square of its own with a newline behind it; nothing tells when it was taken.

    With temporal pooling the features of some frames that follow one another are averaged, and one block of tokens and
    a newline stand for all of them; the last block of a clip may stand for fewer. (VILA's `TSPVideoEncoder`, which asks
    for a number of frames that leaves no rest.)

    Attributes:
        frame_side: Pixels along the side of a frame; 448 in the released ones. Its aspect is not kept.
        patch_size: Pixels along the side of a patch.
        projector: Kind of the projector, by which the number of visual tokens follows.
        pooled_frames: Frames whose features are averaged; 1 for none.
    """

    special_tokens: ClassVar[tuple[str, ...]] = (START_OF_TURN, END_OF_TURN, VIDEO_MEDIA)

    frame_side: int
    patch_size: int
    projector: ProjectorKind
    pooled_frames: int = 1

    @property
    def frames_per_group(self) -> int:
        """Frames that a block of visual tokens stands for."""
        return self.pooled_frames

    @property
    def fixed_resolution(self) -> bool:
        """Frames have one size."""
        return True

    @property
    def tokens_per_frame(self) -> int:
        """Visual tokens of a frame, or of some that are averaged, without the newline behind them."""
        return tokens_of_side(self.frame_side // self.patch_size, self.projector)

    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        """The same square for every source."""
        return self.frame_side, self.frame_side

    def visual_tokens(self, num_frames: int, width: int, height: int) -> int:
        """Visual tokens that so many frames take."""
        return math.ceil(num_frames / self.pooled_frames) * self.tokens_per_frame

    def tokens_between(self, num_frames: int) -> int:
        """A newline a block."""
        return math.ceil(num_frames / self.pooled_frames) * len(self._text("\n"))

    def remarks(self, num_frames: int, fps: float) -> list[str]:
        """How many tokens frames take, and that they do not tell time."""
        per_block, blocks = self.tokens_per_frame + self.tokens_between(1), math.ceil(num_frames / self.pooled_frames)
        averaged = f" in {blocks} blocks, the mean of {self.pooled_frames} each," if self.pooled_frames > 1 else ""
        total = f"{num_frames} frames{averaged} of {per_block} tokens each, {blocks * per_block:,} a clip"
        lines = [f"{total}; nothing tells when they were taken"]
        if blocks > MOST_USUAL_BLOCKS:
            fix = "give num_frames=8 fps=null, or average some (student.pooled_frames=8)"
            lines.append(f"{blocks} blocks are more than the {MOST_USUAL_BLOCKS} that released ones were taught: {fix}")
        return lines

    def encode(self, sample: ClipSample) -> ClipTree:
        """Turn pixels and text into a clip tree; positions count up.

        Raises:
            InputError: The frames are not of the size that `frame_size` returns.
        """
        ids = self._turn("system", sample.system) + self._turn_start("user")
        patch_bytes = 3 * self.patch_size**2
        none = torch.empty(0, dtype=torch.long)
        visuals = [NvilaVisual(torch.empty(0, patch_bytes, dtype=torch.uint8), none)]
        for part in sample.prefix:
            if isinstance(part, Text):
                ids += self._text(part.text)
                continue
            frames_TCHW = part.frames.frames_TCHW
            height, width = frames_TCHW.shape[-2:]
            if (height, width) != (self.frame_side, self.frame_side):
                side = self.frame_side
                raise InputError(f"{sample.clip_id}: frames of {width}x{height} pixels; decode them at {side}x{side}")
            patches_PD, grid = patchify(frames_TCHW, self.patch_size, temporal_patch_size=1, merge_size=1)
            frames_B = torch.tensor([len(block) for block in torch.arange(grid[0]).split(self.pooled_frames)])
            visuals.append(NvilaVisual(patches_PD, frames_B))
            ids += (self._special(VIDEO_MEDIA) * self.tokens_per_frame + self._text("\n")) * len(frames_B)
        return ClipTree(
            clip_id=sample.clip_id,
            visual=visuals[1] if len(visuals) == 2 else NvilaVisual.cat(visuals),  # one video: no copy of its pixels
            prefix_ids=ids,
            prefix_positions=torch.arange(len(ids))[None],
            branch_start=len(ids),
            branches=tuple(self._branch(branch) for branch in sample.branches),
        )

    def settings(self) -> dict[str, Any]:
        """Everything but the tokenizer as JSON values; `from_settings` reads it back."""
        return {name: getattr(self, name) for name in SETTINGS}

    @classmethod
    def from_settings(cls, tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any]) -> Self:
        """The processor that `settings` was called on."""
        return cls(tokenizer, **{name: settings[name] for name in SETTINGS})

    def with_resolution(self, resolution: Resolution) -> Self:
        """The same: frames have one size."""
        return self
