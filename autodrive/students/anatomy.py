"""Sizes of a student that a plan computes with, and narrow twins of students; a family says them for itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from autodrive.trees.visual import VisualInput

if TYPE_CHECKING:
    from autodrive.students.student import Student


@dataclass(frozen=True)
class Anatomy:
    """What of a student's sizes its parameters do not tell.

    Attributes:
        layers: Layers of the language model.
        attention_width: Width of their attention, all heads together.
        vocab_size: Entries of the vocabulary.
        blocks: Blocks of the vision tower.
        block_width: Width of their attention, all heads together.
        full_blocks: Blocks in which a patch attends to all of its group of frames; in the others to its window.
        window: Patches along the side of a window.
        merge_size: Patches along the side of a visual token.
        patch_bytes: Bytes of a patch's pixels.
    """

    layers: int
    attention_width: int
    vocab_size: int
    blocks: int
    block_width: int
    full_blocks: int
    window: int
    merge_size: int
    patch_bytes: int


@dataclass(frozen=True)
class Twin:
    """A narrow student of few layers that is like another one in all else.

    Attributes:
        student: The twin, with weights that say nothing.
        text_scale: Its width as a share of the other's, in the language model.
        vision_scale: The same of the vision tower.
        pixels: Gives the patches of what a vision tower takes, uint8, in one tensor.
    """

    student: "Student"
    text_scale: float
    vision_scale: float
    pixels: Callable[[VisualInput], Tensor]
