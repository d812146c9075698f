"""The weightless half of a student: everything about it that does not need the model."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor

from autodrive.students.resolution import Resolution
from autodrive.trees.clip_tree import ClipTree
from autodrive.trees.sample import ClipSample


class Processor(ABC):
    """Turns clips into clip trees and replies into text; small enough to pickle to loader workers."""

    @property
    @abstractmethod
    def frames_per_group(self) -> int:
        """Frames that share one group of visual tokens."""

    @property
    def fixed_resolution(self) -> bool:
        """Whether all frames have one size, so that a resolution cannot be chosen."""
        return False

    @property
    @abstractmethod
    def end_id(self) -> int:
        """The token that ends an answer."""

    @abstractmethod
    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        """Height and width in pixels to which a source of this size is resized."""

    @abstractmethod
    def visual_tokens(self, num_frames: int, width: int, height: int) -> int:
        """Visual tokens that so many frames of a source of this size take in a clip tree."""

    def tokens_between(self, num_frames: int) -> int:
        """Tokens of text that a video of so many frames takes between its groups of visual tokens."""
        return 0

    @property
    def tells_time(self) -> bool:
        """Whether the number of a video's tokens depends on when its frames were taken."""
        return False

    def video_tokens(self, times_s: Tensor, width: int, height: int) -> int:
        """Tokens of a prefix that grow with a video, visual ones and text; the few that mark it off are not among them.

        Args:
            times_s: (T,) measured times of its frames, seconds.
            width: Width of the source in pixels.
            height: Height of the source in pixels.
        """
        return self.visual_tokens(len(times_s), width, height) + self.tokens_between(len(times_s))

    def remarks(self, num_frames: int, fps: float) -> list[str]:
        """What users should know of how this family reads such a video, a line each."""
        return []

    @abstractmethod
    def encode(self, sample: ClipSample) -> ClipTree:
        """Turn pixels and text into a clip tree."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, without special tokens."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything but the tokenizer as JSON values, for `student.json`."""

    @abstractmethod
    def with_resolution(self, resolution: Resolution) -> Self:
        """The same processor for another resolution.

        Raises:
            InputError: The student cannot see video that way.
        """


def options_told_apart(options: Sequence[Sequence[int]], end_id: int) -> tuple[tuple[int, ...], ...]:
    """Options in tokens, each with the end of the answer where one of them begins another.

    "near" would always beat "near collision"; with the end of the answer counted, each is its own event.
    """
    plain = [tuple(option) for option in options]
    nested = any(one != other and other[: len(one)] == one for one in plain for other in plain)
    return tuple((*option, end_id) for option in plain) if nested else tuple(plain)
