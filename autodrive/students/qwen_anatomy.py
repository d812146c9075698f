"""Sizes of Qwen-VL students for plans, and their narrow twins."""

from copy import deepcopy
from typing import Any, cast

from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from autodrive.students.anatomy import Anatomy
from autodrive.students.qwen_processor import QwenProcessor, QwenVLProcessor
from autodrive.students.qwen_tokenizer import IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START

HEAD_SIZE = 16  # of a twin's attention heads: the least that rotary positions of three axes take
ROTARY_SECTIONS = [2, 3, 3]
VISION_WIDTH = 64


def anatomy_of(config: Qwen2_5_VLConfig, processor: QwenProcessor) -> Anatomy:
    """The sizes of a Qwen2.5-VL of this configuration."""
    vision = cast(Any, config.vision_config)
    token_side = vision.patch_size * processor.vision.merge_size
    return _anatomy(config, processor, len(vision.fullatt_block_indexes), vision.window_size // token_side)


def anatomy_of_qwen3(config: Qwen3VLConfig, processor: QwenVLProcessor) -> Anatomy:
    """The sizes of a Qwen3-VL of this configuration; its vision tower has no windows."""
    return _anatomy(config, processor, cast(Any, config.vision_config).depth, window=1)


def _anatomy(config: Any, processor: QwenVLProcessor, full_blocks: int, window: int) -> Anatomy:
    text, vision, form = config.get_text_config(), config.vision_config, processor.vision
    head_size = getattr(text, "head_dim", text.hidden_size // text.num_attention_heads)
    return Anatomy(
        layers=text.num_hidden_layers,
        attention_width=text.num_attention_heads * head_size,
        vocab_size=text.vocab_size,
        blocks=vision.depth,
        block_width=vision.hidden_size,
        full_blocks=full_blocks,
        window=window,
        pictures_per_group=1,
        patches_per_token=form.merge_size**2,
        patch_bytes=3 * form.temporal_patch_size * form.patch_size**2,  # three channels of a byte
    )


def narrowed(config: Qwen2_5_VLConfig, processor: QwenProcessor, num_layers: int) -> tuple[Any, float, float]:
    """A model with the same shape of heads and layers as `config`, but narrow, and with few layers a tower.

    Returns:
        The model on the CPU, and its widths as shares of those of `config`: language model, vision tower.
    """
    config = deepcopy(config)
    scales = _narrow(config, processor, num_layers)
    text, vision = config.get_text_config(), cast(Any, config.vision_config)
    text.layer_types, vision.fullatt_block_indexes = ["full_attention"] * num_layers, [1]
    return Qwen2_5_VLForConditionalGeneration(config), *scales


def narrowed_qwen3(config: Qwen3VLConfig, processor: QwenVLProcessor, num_layers: int) -> tuple[Any, float, float]:
    """As `narrowed`, of a Qwen3-VL; heads that are wider than the model together stay that much wider."""
    config = deepcopy(config)
    text = config.get_text_config()
    heads_of_width = text.num_attention_heads * text.head_dim / text.hidden_size
    scales = _narrow(config, processor, num_layers, heads_of_width)
    text.head_dim, cast(Any, config.vision_config).deepstack_visual_indexes = HEAD_SIZE, [0]
    return Qwen3VLForConditionalGeneration(config), *scales


def _narrow(
    config: Any, processor: QwenVLProcessor, num_layers: int, heads_of_width: float = 1.0
) -> tuple[float, float]:
    """Make a configuration narrow and shallow in place, and return its widths as shares of what they were."""
    text, vision = config.get_text_config(), config.vision_config
    heads = text.num_attention_heads // text.num_key_value_heads
    width = round(heads * HEAD_SIZE / heads_of_width)
    text_scale, vision_scale = width / text.hidden_size, VISION_WIDTH / vision.hidden_size
    text.hidden_size, text.num_attention_heads, text.num_key_value_heads = width, heads, 1
    text.intermediate_size = max(1, round(text.intermediate_size * text_scale))
    text.num_hidden_layers = num_layers
    text.rope_parameters = {**text.rope_parameters, "mrope_section": ROTARY_SECTIONS}
    vision.intermediate_size = max(1, round(vision.intermediate_size * vision_scale))
    vision.hidden_size, vision.num_heads = VISION_WIDTH, VISION_WIDTH // HEAD_SIZE
    vision.depth, vision.out_hidden_size = num_layers, text.hidden_size
    text.vocab_size = len(processor.tokenizer)
    places = {"image": IMAGE_PAD, "video": VIDEO_PAD, "vision_start": VISION_START, "vision_end": VISION_END}
    for name, token in places.items():
        setattr(config, f"{name}_token_id", processor.tokenizer.convert_tokens_to_ids(token))
    return text_scale, vision_scale
