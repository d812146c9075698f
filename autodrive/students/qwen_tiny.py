"""A Qwen2.5-VL of under a million parameters, trained from scratch: the embedded default."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from autodrive.bounds import Count, Layers, Width
from autodrive.errors import InputError
from autodrive.students.qwen_initialisation import initialise_from_scratch
from autodrive.students.qwen_positions import PositionMode
from autodrive.students.qwen_processor import QwenProcessor, VisionFormat
from autodrive.students.qwen_student import QwenStudent, qwen_towers
from autodrive.students.qwen_tokenizer import (
    END_OF_TEXT,
    END_OF_TURN,
    IMAGE_PAD,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
    train_tokenizer,
)
from autodrive.students.resolution import Resolution
from autodrive.students.towers import Towers

SMALLEST_VOCABULARY = 263  # every byte, and Qwen's seven special tokens
PIXEL_MEAN = 120 / 255
PIXEL_STD = 60 / 255


@dataclass(frozen=True)
class TinyQwen2_5_VL:  # noqa: N801
    """Recipe of the tiny student (`conf/student/tiny_qwen2_5_vl.yaml`).

    Attributes:
        name: Name of the student, kept in records.
        vocab_size: Most entries of the byte-level tokenizer that is trained on the run's texts; all bytes and Qwen's
            special tokens are among them.
        tokens_per_second: Temporal position ids per second; 15 gives every temporal patch its own id up to 30 fps.
        position_mode: How video frames get their temporal ids, see `qwen_positions`.
        vision_layers: Number of vision blocks.
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
    frames_per_group: ClassVar[int] = 2

    name: str
    vocab_size: Annotated[int, Ge(SMALLEST_VOCABULARY), Le(1_000_000)] = 768
    tokens_per_second: Annotated[Count, Le(1000)] = 15
    position_mode: PositionMode = "reference"
    vision_layers: Layers = 2
    vision_width: Width = 96
    vision_heads: Width = 3
    vision_mlp: Width = 192
    text_layers: Layers = 2
    text_width: Width = 128
    text_heads: Width = 4
    text_kv_heads: Width = 2
    text_mlp: Width = 256

    def __post_init__(self) -> None:
        for tower, smallest in (("vision", 4), ("text", 16)):  # what the rotary positions of two and of three axes need
            width, heads = getattr(self, f"{tower}_width"), getattr(self, f"{tower}_heads")
            if width % heads or (width // heads) % smallest:
                message = f"student.{tower}_heads={heads}: student.{tower}_width={width} must be this many times"
                raise InputError(f"{message} a multiple of {smallest}")
        if self.text_heads % self.text_kv_heads:
            raise InputError(
                f"student.text_kv_heads={self.text_kv_heads}: must divide student.text_heads={self.text_heads}"
            )

    def base(self) -> None:
        """No file holds its weights."""

    def outline(self) -> Towers:
        """The model on `meta` with as large a vocabulary as the tokenizer may get, see `StudentSpec`."""
        special = (END_OF_TEXT, END_OF_TURN, IMAGE_PAD, VIDEO_PAD, VISION_START, VISION_END)
        names = [*special, *map(str, range(self.vocab_size - len(special)))]
        with torch.device("meta"):
            config = self._config({name: number for number, name in enumerate(names)})
            return qwen_towers(Qwen2_5_VLForConditionalGeneration(config))

    def build(self, texts: Iterable[str], resolution: Resolution, seed: int) -> QwenStudent:
        """Train the tokenizer, draw the weights, and wrap both; see `StudentSpec`."""
        tokenizer = train_tokenizer(texts, self.vocab_size)
        model = Qwen2_5_VLForConditionalGeneration(self._config(tokenizer.get_vocab()))
        initialise_from_scratch(model, torch.Generator().manual_seed(seed))
        vision = VisionFormat(
            tokens_per_second=self.tokens_per_second,
            image_mean=(PIXEL_MEAN,) * 3,
            image_std=(PIXEL_STD,) * 3,
        )
        processor = QwenProcessor(tokenizer, vision, resolution, self.position_mode)
        return QwenStudent(self.name, model, processor)

    def _config(self, vocabulary: dict[str, int]) -> Qwen2_5_VLConfig:
        head_size = self.text_width // self.text_heads
        time_section = head_size // 8
        rest = head_size // 2 - time_section
        return Qwen2_5_VLConfig(
            text_config={
                "vocab_size": len(vocabulary),
                "hidden_size": self.text_width,
                "intermediate_size": self.text_mlp,
                "num_hidden_layers": self.text_layers,
                "num_attention_heads": self.text_heads,
                "num_key_value_heads": self.text_kv_heads,
                "bos_token_id": vocabulary[END_OF_TEXT],
                "eos_token_id": vocabulary[END_OF_TURN],
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10_000.0,
                    # Qwen2.5-VL gives time 1/4 of the rotary frequencies and each image axis 3/8.
                    "mrope_section": [time_section, rest - rest // 2, rest // 2],
                },
            },
            vision_config={
                "depth": self.vision_layers,
                "hidden_size": self.vision_width,
                "num_heads": self.vision_heads,
                "intermediate_size": self.vision_mlp,
                "out_hidden_size": self.text_width,
                "tokens_per_second": self.tokens_per_second,
                # A window would cover a 112-pixel frame anyway, so every block attends to the whole frame.
                "fullatt_block_indexes": list(range(self.vision_layers)),
            },
            image_token_id=vocabulary[IMAGE_PAD],
            video_token_id=vocabulary[VIDEO_PAD],
            vision_start_token_id=vocabulary[VISION_START],
            vision_end_token_id=vocabulary[VISION_END],
        )
