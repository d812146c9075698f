"""The weightless half of a Qwen2.5-VL student: pixels and text to tokens, patches and positions."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from autodrive.errors import InputError
from autodrive.mixture.clip_tree import Branch, ClipSample, ClipTree, TokenBranch
from autodrive.students.positions import PositionMode, prefix_positions, real_times, reference_times
from autodrive.students.preprocessing import Resolution, patchify, smart_frame_size
from autodrive.students.tokenizer import (
    END_OF_TURN,
    SPECIAL_TOKENS,
    START_OF_TURN,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
)


@dataclass(frozen=True)
class VisionFormat:
    """How a checkpoint wants its video.

    Attributes:
        tokens_per_second: temporal position ids per second of video.
        image_mean: per channel, in units of the full pixel range.
        image_std: per channel, in the same units.
        patch_size: pixels along a patch's side.
        temporal_patch_size: frames in a patch.
        merge_size: patches along a visual token's side.
    """

    tokens_per_second: float
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2


@dataclass(frozen=True)
class QwenProcessor:
    """Turns clip samples into clip trees (`ClipProcessor`); small enough to pickle to loader workers.

    Attributes:
        tokenizer: with Qwen's special tokens.
        vision: pixel format of the checkpoint.
        resolution: bounds on visual tokens per temporal patch.
        fps: requested frames per second, the time grid of the `reference` positions.
        position_mode: `reference` or `real_time`, see `positions`.
    """

    tokenizer: PreTrainedTokenizerBase
    vision: VisionFormat
    resolution: Resolution
    fps: float
    position_mode: PositionMode = "reference"

    def __post_init__(self) -> None:
        missing = [token for token in SPECIAL_TOKENS if token not in self._special_ids]
        if missing:
            raise InputError(f"the student's tokenizer lacks {', '.join(missing)}; use a Qwen2.5-VL tokenizer")

    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        """Height and width in pixels to which a source of this size is resized."""
        return smart_frame_size(width, height, self.resolution, self.vision.patch_size * self.vision.merge_size)

    def encode(self, sample: ClipSample) -> ClipTree:
        """Turn pixels and text into a clip tree.

        Raises:
            InputError: the frames are not of a size that `frame_size` returns.
        """
        vision = self.vision
        height, width = sample.frames.frames_TCHW.shape[-2:]
        factor = vision.patch_size * vision.merge_size
        if height % factor or width % factor:
            raise InputError(
                f"{sample.clip.id}: frames of {width}x{height} pixels are not multiples of {factor}; "
                "decode them at the processor's frame_size"
            )
        patches_PD, grid = patchify(
            sample.frames.frames_TCHW, vision.patch_size, vision.temporal_patch_size, vision.merge_size
        )
        before = self._turn("system", sample.system) + self._turn_start("user") + self._special(VISION_START)
        num_visual = grid[0] * grid[1] * grid[2] // vision.merge_size**2
        after = self._special(VISION_END)
        times = self._times(grid[0], sample.frames.timestamps_s)
        positions, branch_start = prefix_positions(len(before), times, grid[1:], len(after), vision.merge_size)
        return ClipTree(
            clip_id=sample.clip.id,
            patches_PD=patches_PD,
            grid_thw=grid,
            prefix_ids=before + self._special(VIDEO_PAD) * num_visual + after,
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
        """Everything but the tokenizer, as JSON values; `from_settings` reads it back."""
        return {
            "vision": asdict(self.vision),
            "resolution": str(self.resolution),
            "fps": self.fps,
            "position_mode": self.position_mode,
        }

    @classmethod
    def from_settings(cls, tokenizer: PreTrainedTokenizerBase, settings: dict[str, Any]) -> "QwenProcessor":
        """The processor that `settings` was called on."""
        vision: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in settings["vision"].items()
        }
        unknown = set(vision) - {field.name for field in fields(VisionFormat)}
        if unknown:
            raise InputError(f"student.json: unknown keys {sorted(unknown)} under vision; remove them")
        return cls(
            tokenizer=tokenizer,
            vision=VisionFormat(**vision),
            resolution=Resolution.parse(settings["resolution"]),
            fps=settings["fps"],
            position_mode=settings["position_mode"],
        )

    def _times(self, num_patches: int, timestamps_s: Tensor) -> Tensor:
        vision = self.vision
        if self.position_mode == "real_time":
            return real_times(timestamps_s, vision.tokens_per_second, vision.temporal_patch_size)
        return reference_times(num_patches, self.fps, vision.tokens_per_second, vision.temporal_patch_size)

    def _branch(self, branch: Branch) -> TokenBranch:
        # The user's turn began in the prefix, before the video.
        prompt = self._text(branch.prompt) + self._turn_end() + self._turn_start("assistant")
        target = [] if branch.target is None else self._text(branch.target) + self._special(END_OF_TURN)
        options = self._options(branch.option_targets)
        return TokenBranch(branch.annotation_id, prompt, target, options, branch.weight, branch.mode)

    def _options(self, texts: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        options = [tuple(self._text(text)) for text in texts]
        nested = any(one != other and other[: len(one)] == one for one in options for other in options)
        # "near" would always beat "near collision"; with the end of the answer counted, each is its own event.
        return tuple((*option, self.end_id) for option in options) if nested else tuple(options)

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
        # Text that spells a special token stays text: questions and telemetry come from files.
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
