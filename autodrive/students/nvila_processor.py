"""The weightless half of an NVILA student."""

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
USUAL_FRAMES = 8


@dataclass(frozen=True)
class NvilaVisual(VisualInput):
    """Patches of all frames, (P, D) uint8."""

    patches_PD: Tensor

    @classmethod
    def cat(cls, inputs: Sequence[Self]) -> Self:
        """Join the frames of several trees."""
        return cls(torch.cat([visual.patches_PD for visual in inputs]))

    def to(self, device: torch.device | str) -> Self:
        """The same frames on `device`."""
        return replace(self, patches_PD=self.patches_PD.to(device))


@dataclass(frozen=True)
class NvilaProcessor(ChatProcessor):
    """Every frame is a square of its own with a newline behind it; nothing tells when it was taken.

    Attributes:
        frame_side: Pixels along the side of a frame; 448 in the released ones. Its aspect is not kept.
        patch_size: Pixels along the side of a patch.
        projector: Kind of the projector, by which the number of visual tokens follows.
    """

    special_tokens: ClassVar[tuple[str, ...]] = (START_OF_TURN, END_OF_TURN, VIDEO_MEDIA)

    frame_side: int
    patch_size: int
    projector: ProjectorKind

    @property
    def frames_per_group(self) -> int:
        """Every frame has visual tokens of its own."""
        return 1

    @property
    def fixed_resolution(self) -> bool:
        """Frames have one size."""
        return True

    @property
    def tokens_per_frame(self) -> int:
        """Visual tokens of a frame, without the newline behind it."""
        return tokens_of_side(self.frame_side // self.patch_size, self.projector)

    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        """The same square for every source."""
        return self.frame_side, self.frame_side

    def visual_tokens(self, num_frames: int, width: int, height: int) -> int:
        """Visual tokens that so many frames take."""
        return num_frames * self.tokens_per_frame

    def tokens_between(self, num_frames: int) -> int:
        """A newline a frame."""
        return num_frames * len(self._text("\n"))

    def remarks(self, num_frames: int, fps: float) -> list[str]:
        """How many tokens frames take, and that they do not tell time."""
        per_frame = self.tokens_per_frame + self.tokens_between(1)
        total = f"{num_frames * per_frame:,}"
        lines = [f"{num_frames} frames of {per_frame} tokens each, {total} a clip; nothing tells when they were taken"]
        if num_frames > 2 * USUAL_FRAMES:
            lines.append(f"the released ones were taught with {USUAL_FRAMES} or {2 * USUAL_FRAMES} frames: lower fps")
        return lines

    def encode(self, sample: ClipSample) -> ClipTree:
        """Turn pixels and text into a clip tree; positions count up.

        Raises:
            InputError: The frames are not of the size that `frame_size` returns.
        """
        ids = self._turn("system", sample.system) + self._turn_start("user")
        patch_bytes = 3 * self.patch_size**2
        visuals = [NvilaVisual(torch.empty(0, patch_bytes, dtype=torch.uint8))]
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
            visuals.append(NvilaVisual(patches_PD))
            ids += (self._special(VIDEO_MEDIA) * self.tokens_per_frame + self._text("\n")) * grid[0]
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
        return {"frame_side": self.frame_side, "patch_size": self.patch_size, "projector": self.projector}

    @classmethod
    def from_settings(cls, tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any]) -> Self:
        """The processor that `settings` was called on."""
        return cls(tokenizer, **{name: settings[name] for name in ("frame_side", "patch_size", "projector")})

    def with_resolution(self, resolution: Resolution) -> Self:
        """The same: frames have one size."""
        return self
