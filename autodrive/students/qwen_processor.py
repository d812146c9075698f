"""The weightless half of a Qwen2.5-VL student: pixels and text to tokens, patches and positions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import Annotated, Any, Self

import torch
from pydantic import AllowInfNan, Field, PositiveFloat, PositiveInt, TypeAdapter, ValidationError
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from autodrive.errors import InputError
from autodrive.students.preprocessing import patchify, smart_frame_size
from autodrive.students.processor import Processor, options_told_apart
from autodrive.students.qwen_positions import PositionMode, Segment, prefix_positions, real_times, reference_times
from autodrive.students.qwen_tokenizer import (
    END_OF_TURN,
    SPECIAL_TOKENS,
    START_OF_TURN,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
)
from autodrive.students.resolution import Resolution
from autodrive.trees.clip_tree import ClipTree, TokenBranch, TokenTurn
from autodrive.trees.sample import Branch, ClipSample, Text, Video
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


@dataclass(frozen=True)
class VisionFormat:
    """How a checkpoint wants its video.

    Attributes:
        tokens_per_second: Temporal position ids per second of video.
        image_mean: Mean per channel, in units of the full pixel range.
        image_std: Standard deviation per channel, in the same units.
        patch_size: Pixels along a patch's side.
        temporal_patch_size: Frames in a patch.
        merge_size: Patches along a visual token's side.
    """

    tokens_per_second: Annotated[PositiveFloat, AllowInfNan(False)]
    image_mean: Annotated[tuple[float, ...], Field(min_length=3, max_length=3)]
    image_std: Annotated[tuple[PositiveFloat, ...], Field(min_length=3, max_length=3)]
    patch_size: PositiveInt = 14
    temporal_patch_size: PositiveInt = 2
    merge_size: PositiveInt = 2


@dataclass(frozen=True)
class QwenProcessor(Processor):
    """Turns clip samples into clip trees in Qwen's chat format.

    Attributes:
        tokenizer: A tokenizer with Qwen's special tokens.
        vision: Pixel format of the checkpoint.
        resolution: Bounds on visual tokens per temporal patch.
        position_mode: `reference` or `real_time`, see `qwen_positions`.
    """

    tokenizer: PreTrainedTokenizerBase
    vision: VisionFormat
    resolution: Resolution
    position_mode: PositionMode = "reference"

    def __post_init__(self) -> None:
        missing = [token for token in SPECIAL_TOKENS if token not in self._special_ids]
        if missing:
            raise InputError(f"the student's tokenizer lacks {', '.join(missing)}; use a Qwen2.5-VL tokenizer")

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
        ids = self._turn("system", sample.system) + self._turn_start("user")
        segments: list[Segment] = []
        num_placed = 0  # tokens whose positions are settled
        patch_bytes = 3 * self.vision.temporal_patch_size * self.vision.patch_size**2
        visuals = [QwenVisual(torch.empty(0, patch_bytes, dtype=torch.uint8), torch.empty(0, 3, dtype=torch.long))]
        for part in sample.prefix:
            if isinstance(part, Text):
                ids += self._text(part.text)
                continue
            visual, grid = self._patches(sample.clip_id, part.frames)
            visuals.append(visual)
            ids += self._special(VISION_START)
            times = self._times(grid[0], part)
            segments += [len(ids) - num_placed, (times, grid[1:])]
            ids += self._special(VIDEO_PAD) * (math.prod(grid) // self.vision.merge_size**2)
            num_placed = len(ids)
            ids += self._special(VISION_END)
        segments.append(len(ids) - num_placed)
        positions, branch_start = prefix_positions(segments, self.vision.merge_size)
        return ClipTree(
            clip_id=sample.clip_id,
            visual=visuals[1] if len(visuals) == 2 else QwenVisual.cat(visuals),  # one video: no copy of its pixels
            prefix_ids=ids,
            prefix_positions=positions,
            branch_start=branch_start,
            branches=tuple(self._branch(branch) for branch in sample.branches),
        )

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    @property
    def end_id(self) -> int:
        """The token that ends an answer."""
        return self._special(END_OF_TURN)[0]

    def settings(self) -> dict[str, Any]:
        """Everything but the tokenizer as JSON values; `from_settings` reads it back."""
        return {
            "vision": asdict(self.vision),
            "resolution": str(self.resolution),
            "position_mode": self.position_mode,
        }

    def with_resolution(self, resolution: Resolution) -> "QwenProcessor":
        """The same processor for another resolution."""
        return replace(self, resolution=resolution)

    @classmethod
    def from_settings(cls, tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any]) -> "QwenProcessor":
        """The processor that `settings` was called on.

        Raises:
            InputError: They are not settings of such a processor.
        """
        unknown = set(settings["vision"]) - {field.name for field in fields(VisionFormat)}
        if unknown:
            raise InputError(f"student.json: unknown keys {sorted(unknown)} under vision; remove them")
        try:
            vision = TypeAdapter(VisionFormat).validate_python(settings["vision"])
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in ("vision", *first["loc"]))
            raise InputError(f"student.json: {key}: {first['msg']}; restore the student's folder") from None
        return cls(
            tokenizer=tokenizer,
            vision=vision,
            resolution=Resolution.parse(settings["resolution"]),
            position_mode=settings["position_mode"],
        )

    def _times(self, num_patches: int, video: Video) -> Tensor:
        vision = self.vision
        if self.position_mode == "real_time":
            return real_times(video.frames.timestamps_s, vision.tokens_per_second, vision.temporal_patch_size)
        return reference_times(num_patches, video.fps, vision.tokens_per_second, vision.temporal_patch_size)

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

    def _branch(self, branch: Branch) -> TokenBranch:
        turns = []
        for number, turn in enumerate(branch.turns):
            # The first user turn began in the prefix, before the video; later ones follow an answer and its end.
            opening = self._text("\n") + self._turn_start("user") if number else []
            prompt = opening + self._text(turn.prompt) + self._turn_end() + self._turn_start("assistant")
            target = [] if turn.target is None else self._text(turn.target) + self._special(END_OF_TURN)
            turns.append(TokenTurn(prompt, target))
        options = options_told_apart([self._text(text) for text in branch.option_targets], self.end_id)
        return TokenBranch(branch.annotation_id, tuple(turns), options, branch.weight, branch.mode)

    def _turn(self, role: str, text: str) -> list[int]:
        return self._special(START_OF_TURN) + self._text(f"{role}\n{text}") + self._turn_end()

    def _turn_start(self, role: str) -> list[int]:
        return self._special(START_OF_TURN) + self._text(f"{role}\n")

    def _turn_end(self) -> list[int]:
        return self._special(END_OF_TURN) + self._text("\n")

    @cached_property
    def _special_ids(self) -> dict[str, int]:
        vocabulary = self.tokenizer.get_vocab()
        return {token: vocabulary[token] for token in SPECIAL_TOKENS if token in vocabulary}

    def _special(self, token: str) -> list[int]:
        return [self._special_ids[token]]

    def _text(self, text: str) -> list[int]:
        return list(_ids_of_text(self.tokenizer, text))


@lru_cache(maxsize=2**14)
def _ids_of_text(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Ids of a text; clips are asked the same questions over and over, and a call takes 0.1 ms."""
    # Text that spells a special token stays text: questions and telemetry come from files.
    return tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
