"""Sizes of students that are trained from scratch: the same keys in every family, and what is asked of their heads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from autodrive.bounds import Layers, Width
from autodrive.errors import InputError


@dataclass(frozen=True)
class TinySizes:
    """Part of the recipe of a tiny student: what both of its towers have, whatever its family.

    Attributes:
        full_size: See `StudentSpec`.
        multiple_of_heads: By tower what the width of a head must be a multiple of, for its positions.
        name: Name of the student, kept in records.
        vision_width: Width of the vision blocks.
        vision_heads: Attention heads of the vision blocks.
        vision_mlp: Hidden width of the vision blocks' MLP.
        text_layers: Number of language-model layers.
        text_width: Width of the language model.
        text_heads: Attention heads of the language model.
        text_kv_heads: Key and value heads of the language model.
        text_mlp: Hidden width of the language model's MLP.
    """

    full_size: ClassVar[bool] = False
    multiple_of_heads: ClassVar[Mapping[str, int]]

    name: str
    vision_width: Width = 96
    vision_heads: Width = 3
    vision_mlp: Width = 192
    text_layers: Layers = 2
    text_width: Width = 128
    text_heads: Width = 4
    text_kv_heads: Width = 2
    text_mlp: Width = 256

    def __post_init__(self) -> None:
        for tower, multiple in self.multiple_of_heads.items():
            width, heads = getattr(self, f"{tower}_width"), getattr(self, f"{tower}_heads")
            if width % (heads * multiple):
                message = f"student.{tower}_heads={heads}: student.{tower}_width={width} must be a multiple of"
                raise InputError(f"{message} {heads * multiple}")
        if self.text_heads % self.text_kv_heads:
            message = f"student.text_kv_heads={self.text_kv_heads}: must divide student.text_heads"
            raise InputError(f"{message}={self.text_heads}")

    def base(self) -> None:
        """No file holds its weights."""
