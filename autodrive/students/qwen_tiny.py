"""Qwen-VL models of about a million parameters, trained from scratch; a Qwen2.5-VL is the embedded default."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Le
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from autodrive.bounds import Count, Layers
from autodrive.students.qwen3_processor import Qwen3VLProcessor
from autodrive.students.qwen3_student import Qwen3VLStudent
from autodrive.students.qwen_initialisation import initialise_from_scratch
from autodrive.students.qwen_positions import PositionMode
from autodrive.students.qwen_processor import QwenProcessor, TimedVisionFormat, VisionFormat
from autodrive.students.qwen_student import QwenStudent, QwenVLStudent
from autodrive.students.qwen_tokenizer import (
    END_OF_TEXT,
    END_OF_TURN,
    IMAGE_PAD,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
    byte_tokenizer,
    train_tokenizer,
)
from autodrive.students.resolution import Resolution
from autodrive.students.tiny_sizes import TinySizes

SMALLEST_VOCABULARY = 263  # every byte, and Qwen's seven special tokens
PIXEL_MEAN = 120 / 255
PIXEL_STD = 60 / 255
LEARNT_POSITIONS = 64  # of a square grid that every frame's patches are laid over


PIXELS: dict[str, Any] = {"image_mean": (PIXEL_MEAN,) * 3, "image_std": (PIXEL_STD,) * 3}


@dataclass(frozen=True)
class TinyQwenVL(TinySizes):
    """Recipe of a tiny student; what its generation adds is in the classes below.

    Attributes:
        model_class: Class of its model.
        vocab_size: Most entries of the byte-level tokenizer that is trained on the run's texts; all bytes and Qwen's
            special tokens are among them.
        vision_layers: Number of vision blocks.
    """

    frames_per_group: ClassVar[int] = 2
    fixed_resolution: ClassVar[bool] = False
    # What the rotary positions of two and of three axes need.
    multiple_of_heads: ClassVar[Mapping[str, int]] = {"vision": 4, "text": 16}
    model_class: ClassVar[type[PreTrainedModel]]

    vocab_size: Annotated[int, Ge(SMALLEST_VOCABULARY), Le(1_000_000)] = 768
    vision_layers: Layers = 2

    def build(self, texts: Iterable[str], resolution: Resolution, seed: int) -> QwenVLStudent:
        """Train the tokenizer, draw the weights, and wrap both; see `StudentSpec`."""
        tokenizer = train_tokenizer(texts, self.vocab_size)
        model: Any = self.model_class(self._config(tokenizer.get_vocab()))
        initialise_from_scratch(model, torch.Generator().manual_seed(seed))
        return self._wrapped(model, tokenizer, resolution)

    def sketch(self, resolution: Resolution) -> QwenVLStudent:
        """The student without weights; its vocabulary is as large as it may become. See `StudentSpec`."""
        tokenizer = byte_tokenizer()
        config = self._config(tokenizer.get_vocab())
        config.get_text_config().vocab_size = self.vocab_size
        with torch.device("meta"):
            model = self.model_class(config)
        return self._wrapped(model, tokenizer, resolution)

    def _wrapped(self, model: Any, tokenizer: PreTrainedTokenizerBase, resolution: Resolution) -> QwenVLStudent:
        """The student of this generation around a model and its tokenizer."""
        raise NotImplementedError

    def _config(self, vocabulary: dict[str, int]) -> Any:
        """The model's configuration, for a tokenizer of these ids."""
        raise NotImplementedError

    def _of_both(self, vocabulary: dict[str, int]) -> dict[str, Any]:
        """What the generations' configurations have in common."""
        head_size = self.text_width // self.text_heads
        time_section = head_size // 8
        rest = head_size // 2 - time_section
        return {
            "text_config": {
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
            "vision_config": {
                "depth": self.vision_layers,
                "hidden_size": self.vision_width,
                "num_heads": self.vision_heads,
                "intermediate_size": self.vision_mlp,
                "out_hidden_size": self.text_width,
            },
            "image_token_id": vocabulary[IMAGE_PAD],
            "video_token_id": vocabulary[VIDEO_PAD],
            "vision_start_token_id": vocabulary[VISION_START],
            "vision_end_token_id": vocabulary[VISION_END],
        }


@dataclass(frozen=True)
class TinyQwen2_5_VL(TinyQwenVL):  # noqa: N801
    """Recipe of the embedded default (`conf/student/tiny_qwen2_5_vl.yaml`).

    Attributes:
        tokens_per_second: Temporal position ids per second; 15 gives every temporal patch its own id up to 30 fps.
        position_mode: How video frames get their temporal ids, see `qwen_positions`.
    """

    model_class: ClassVar[type[PreTrainedModel]] = Qwen2_5_VLForConditionalGeneration

    tokens_per_second: Annotated[Count, Le(1000)] = 15
    position_mode: PositionMode = "reference"

    def _wrapped(self, model: Any, tokenizer: PreTrainedTokenizerBase, resolution: Resolution) -> QwenStudent:
        vision = TimedVisionFormat(tokens_per_second=self.tokens_per_second, **PIXELS)
        return QwenStudent(self.name, model, QwenProcessor(tokenizer, vision, resolution, self.position_mode))

    def _config(self, vocabulary: dict[str, int]) -> Qwen2_5_VLConfig:
        config = self._of_both(vocabulary)
        config["vision_config"] |= {
            "tokens_per_second": self.tokens_per_second,
            # A window would cover a 112-pixel frame anyway, so every block attends to the whole frame.
            "fullatt_block_indexes": list(range(self.vision_layers)),
        }
        return Qwen2_5_VLConfig(**config)


@dataclass(frozen=True)
class TinyQwen3VL(TinyQwenVL):
    """Recipe of the tiny twin of Qwen3-VL (`conf/student/tiny_qwen3_vl.yaml`).

    Every vision block but the last is handed over to a layer of the language model (deepstack), as many as that has.

    Attributes:
        patch_size: Pixels along a patch's side; 16 as in the released ones.
    """

    model_class: ClassVar[type[PreTrainedModel]] = Qwen3VLForConditionalGeneration

    patch_size: Annotated[Count, Le(64)] = 16

    def build(self, texts: Iterable[str], resolution: Resolution, seed: int) -> QwenVLStudent:
        """As `TinyQwenVL.build`, with a tokenizer that knows stamps, whose digits would be most of a clip's tokens."""
        stamps = (f"<{tenths / 10:.1f} seconds>" for tenths in range(100))
        return super().build(chain(texts, stamps), resolution, seed)

    def _wrapped(self, model: Any, tokenizer: PreTrainedTokenizerBase, resolution: Resolution) -> Qwen3VLStudent:
        vision = VisionFormat(patch_size=self.patch_size, **PIXELS)
        return Qwen3VLStudent(self.name, model, Qwen3VLProcessor(tokenizer, vision, resolution))

    def _config(self, vocabulary: dict[str, int]) -> Qwen3VLConfig:
        config = self._of_both(vocabulary)
        config["text_config"]["head_dim"] = self.text_width // self.text_heads
        config["vision_config"] |= {
            "patch_size": self.patch_size,
            "num_position_embeddings": LEARNT_POSITIONS,
            "deepstack_visual_indexes": list(range(min(self.vision_layers - 1, self.text_layers))),
        }
        return Qwen3VLConfig(**config)
