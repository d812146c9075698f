"""The weightless half of a Qwen-VL student: pixels and text to tokens, patches and positions."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import torch
from pydantic import AllowInfNan, Field, PositiveFloat, PositiveInt, TypeAdapter, ValidationError
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from autodrive.errors import InputError
from autodrive.students.chat_processor import ChatProcessor
from autodrive.students.preprocessing import patchify, smart_frame_size
from autodrive.students.qwen_positions import PositionMode, Segment, prefix_positions, real_times, reference_times
from autodrive.students.qwen_tokenizer import SPECIAL_TOKENS, VIDEO_PAD, VISION_END, VISION_START
from autodrive.students.resolution import Resolution
from autodrive.trees.clip_tree import ClipTree
from autodrive.trees.sample import ClipSample, Text, Video
from autodrive.trees.visual import VisualInput
from autodrive.video.decoder import DecodedFrames


@dataclass(frozen=True)
class QwenVisual(VisualInput):
    """Videos in patches. Shape letters: P patches, D values in a patch.

    Attributes:
        patches_PD: The pixels, uint8, in the vision tower's patch order; normalised later, on the device.
        grid_thw: (videos, 3) numbers of temporal patches, rows and columns of each video.
    """

    patches_PD: Tensor
    grid_thw: Tensor

    @classmethod
    def cat(cls, inputs: Sequence[Self]) -> Self:
        """Join the videos of several trees."""
        return cls(torch.cat([v.patches_PD for v in inputs]), torch.cat([v.grid_thw for v in inputs]))

    def to(self, device: torch.device | str) -> Self:
        """The same videos on `device`."""
        return replace(self, patches_PD=self.patches_PD.to(device), grid_thw=self.grid_thw.to(device))


@dataclass(frozen=True, kw_only=True)
class VisionFormat:
    """How a checkpoint wants its video.

    Attributes:
        image_mean: Mean per channel, in units of the full pixel range.
        image_std: Standard deviation per channel, in the same units.
        patch_size: Pixels along a patch's side.
        temporal_patch_size: Frames in a patch.
        merge_size: Patches along a visual token's side.
    """

    image_mean: Annotated[tuple[float, ...], Field(min_length=3, max_length=3)]
    image_std: Annotated[tuple[PositiveFloat, ...], Field(min_length=3, max_length=3)]
    patch_size: PositiveInt = 14
    temporal_patch_size: PositiveInt = 2
    merge_size: PositiveInt = 2


@dataclass(frozen=True, kw_only=True)
class TimedVisionFormat(VisionFormat):
    """The format of a checkpoint whose position ids tell time.

    Attributes:
        tokens_per_second: Temporal position ids per second of video.
    """

    tokens_per_second: Annotated[PositiveFloat, AllowInfNan(False)]


class Piece(NamedTuple):
    """A run of a prefix's tokens.

    Attributes:
        ids: The tokens.
        segment: How their positions are counted, see `prefix_positions`.
    """

    ids: list[int]
    segment: Segment

    @classmethod
    def of_text(cls, ids: list[int]) -> "Piece":
        """Tokens whose positions count up."""
        return cls(ids, len(ids))


@dataclass(frozen=True)
class QwenVLProcessor(ChatProcessor):
    """Turns clip samples into clip trees in Qwen's chat format; the generations differ in how they tell time.

    Attributes:
        vision_format: Class of `vision`.
        further_settings: Names of the attributes that a generation adds.
        vision: Pixel format of the checkpoint.
        resolution: Bounds on visual tokens per temporal patch.
    """

    special_tokens: ClassVar[tuple[str, ...]] = SPECIAL_TOKENS
    vision_format: ClassVar[type[VisionFormat]] = VisionFormat
    further_settings: ClassVar[tuple[str, ...]] = ()

    vision: VisionFormat
    resolution: Resolution

    @abstractmethod
    def video_pieces(self, video: Video, grid: tuple[int, int, int]) -> list[Piece]:
        """A video's tokens: placeholders, what marks them off, and what is said of time.

        Args:
            video: The video.
            grid: Its temporal patches, and the patch rows and columns of a frame.
        """

    @property
    def frames_per_group(self) -> int:
        """Frames in a temporal patch."""
        return self.vision.temporal_patch_size

    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        """Height and width in pixels to which a source of this size is resized."""
        return smart_frame_size(width, height, self.resolution, self._token_side)

    def visual_tokens(self, num_frames: int, width: int, height: int) -> int:
        """Visual tokens that so many frames of a source of this size take."""
        rows, columns = (side // self._token_side for side in self.frame_size(width, height))
        return math.ceil(num_frames / self.frames_per_group) * rows * columns

    def encode(self, sample: ClipSample) -> ClipTree:
        """Turn pixels and text into a clip tree; the user's turn begins in the prefix and ends in each branch.

        Raises:
            InputError: The frames are not of a size that `frame_size` returns.
        """
        pieces = [Piece.of_text(self._turn("system", sample.system) + self._turn_start("user"))]
        patch_bytes = 3 * self.vision.temporal_patch_size * self.vision.patch_size**2
        visuals = [QwenVisual(torch.empty(0, patch_bytes, dtype=torch.uint8), torch.empty(0, 3, dtype=torch.long))]
        for part in sample.prefix:
            if isinstance(part, Text):
                pieces.append(Piece.of_text(self._text(part.text)))
                continue
            visual, grid = self._patches(sample.clip_id, part.frames)
            visuals.append(visual)
            pieces += self.video_pieces(part, grid)
        positions, branch_start = prefix_positions([piece.segment for piece in pieces], self.vision.merge_size)
        return ClipTree(
            clip_id=sample.clip_id,
            visual=visuals[1] if len(visuals) == 2 else QwenVisual.cat(visuals),  # one video: no copy of its pixels
            prefix_ids=[token for piece in pieces for token in piece.ids],
            prefix_positions=positions,
            branch_start=branch_start,
            branches=tuple(self._branch(branch) for branch in sample.branches),
        )

    def settings(self) -> dict[str, Any]:
        """Everything but the tokenizer as JSON values; `from_settings` reads it back."""
        further = {name: getattr(self, name) for name in self.further_settings}
        return {"vision": asdict(self.vision), "resolution": str(self.resolution), **further}

    def with_resolution(self, resolution: Resolution) -> Self:
        """The same processor for another resolution."""
        return replace(self, resolution=resolution)

    @classmethod
    def from_settings(cls, tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any]) -> Self:
        """The processor that `settings` was called on.

        Raises:
            InputError: They are not settings of such a processor.
        """
        unknown = set(settings["vision"]) - {field.name for field in fields(cls.vision_format)}
        if unknown:
            raise InputError(f"student.json: unknown keys {sorted(unknown)} under vision; remove them")
        try:
            vision = TypeAdapter(cls.vision_format).validate_python(settings["vision"])
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in ("vision", *first["loc"]))
            raise InputError(f"student.json: {key}: {first['msg']}; restore the student's folder") from None
        return cls(
            tokenizer=tokenizer,
            vision=vision,
            resolution=Resolution.parse(settings["resolution"]),
            **{name: settings[name] for name in cls.further_settings},
        )

    def _placeholders(self, grid: tuple[int, int, int]) -> list[int]:
        return self._special(VIDEO_PAD) * (math.prod(grid) // self.vision.merge_size**2)

    @property
    def _token_side(self) -> int:
        """Pixels along the side of a visual token."""
        return self.vision.patch_size * self.vision.merge_size

    def _patches(self, clip_id: str, frames: DecodedFrames) -> tuple[QwenVisual, tuple[int, int, int]]:
        vision, side = self.vision, self._token_side
        height, width = frames.frames_TCHW.shape[-2:]
        if height % side or width % side:
            raise InputError(
                f"{clip_id}: frames of {width}x{height} pixels are not multiples of {side}; "
                "decode them at the processor's frame_size"
            )
        patches_PD, grid = patchify(
            frames.frames_TCHW, vision.patch_size, vision.temporal_patch_size, vision.merge_size
        )
        return QwenVisual(patches_PD, torch.tensor([grid])), grid


@dataclass(frozen=True)
class QwenProcessor(QwenVLProcessor):
    """The processor of Qwen2.5-VL, which tells time by temporal position ids.

    Attributes:
        position_mode: `reference` or `real_time`, see `qwen_positions`.
    """

    vision_format: ClassVar[type[VisionFormat]] = TimedVisionFormat
    further_settings: ClassVar[tuple[str, ...]] = ("position_mode",)

    vision: TimedVisionFormat
    position_mode: PositionMode = "reference"

    def video_pieces(self, video: Video, grid: tuple[int, int, int]) -> list[Piece]:
        """All temporal patches behind one another, between one start and one end."""
        placeholders = Piece(self._placeholders(grid), (self._times(grid[0], video), grid[1:]))
        return [Piece.of_text(self._special(VISION_START)), placeholders, Piece.of_text(self._special(VISION_END))]

    def _times(self, num_patches: int, video: Video) -> Tensor:
        vision = self.vision
        if self.position_mode == "real_time":
            return real_times(video.frames.timestamps_s, vision.tokens_per_second, vision.temporal_patch_size)
        return reference_times(num_patches, video.fps, vision.tokens_per_second, vision.temporal_patch_size)
