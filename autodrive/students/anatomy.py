"""Sizes of a student that a plan computes with; a family says them for itself."""

from dataclasses import dataclass

from torch import nn

MATRIX_PRODUCTS = (nn.Linear, nn.Conv2d, nn.Conv3d)  # kernels are as large as their strides


@dataclass(frozen=True)
class Anatomy:
    """What of a student's sizes its parameters do not tell.

    Attributes:
        layers: Layers of the language model.
        attention_width: Width of their attention, all heads together.
        vocab_size: Entries of the vocabulary.
        blocks: Blocks of the vision tower.
        block_width: Width of their attention, all heads together.
        full_blocks: Blocks in which a patch attends to all patches of its picture; in the others to its window.
        window: Visual tokens along the side of a window.
        pictures_per_group: Pictures of a group of frames that the tower and its projector read apart; the features of
            several are averaged.
        patches_per_token: Patches of a picture for each of its visual tokens; a fraction where frames are padded.
        patch_bytes: Bytes of a patch's pixels.
    """

    layers: int
    attention_width: int
    vocab_size: int
    blocks: int
    block_width: int
    full_blocks: int
    window: int
    pictures_per_group: int
    patches_per_token: float
    patch_bytes: int
