"""Sizes of a student that a plan computes with; a family says them for itself."""

from dataclasses import dataclass


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
