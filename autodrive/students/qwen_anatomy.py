"""Sizes of Qwen2.5-VL students for plans, and their narrow twins."""

from copy import deepcopy
from typing import Any, cast

from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from autodrive.students.anatomy import Anatomy
from autodrive.students.qwen_processor import QwenProcessor
from autodrive.students.qwen_tokenizer import IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START

HEAD_SIZE = 16  # of a twin's attention heads: the least that rotary positions of three axes take
ROTARY_SECTIONS = [2, 3, 3]
VISION_WIDTH = 64


def anatomy_of(config: Qwen2_5_VLConfig, processor: QwenProcessor) -> Anatomy:
    """The sizes of a model of this configuration."""
    text, vision, form = config.get_text_config(), cast(Any, config.vision_config), processor.vision
    head_size = getattr(text, "head_dim", text.hidden_size // text.num_attention_heads)
    return Anatomy(
        layers=text.num_hidden_layers,
        attention_width=text.num_attention_heads * head_size,
        vocab_size=text.vocab_size,
        blocks=vision.depth,
        block_width=vision.hidden_size,
        full_blocks=len(vision.fullatt_block_indexes),
        window=vision.window_size // vision.patch_size,
        merge_size=form.merge_size,
        patch_bytes=3 * form.temporal_patch_size * form.patch_size**2,  # three channels of a byte
    )


def narrowed(config: Qwen2_5_VLConfig, processor: QwenProcessor, num_layers: int) -> tuple[Any, float, float]:
    """A model with the same shape of heads and layers as `config`, but narrow, and with few layers a tower.

    Returns:
        The model on the CPU, and its widths as shares of those of `config`: language model, vision tower.
    """
    config = deepcopy(config)
    text, vision = config.get_text_config(), cast(Any, config.vision_config)
    heads = text.num_attention_heads // text.num_key_value_heads
    text_scale, vision_scale = heads * HEAD_SIZE / text.hidden_size, VISION_WIDTH / vision.hidden_size
    text.hidden_size, text.num_attention_heads, text.num_key_value_heads = heads * HEAD_SIZE, heads, 1
    text.intermediate_size = max(1, round(text.intermediate_size * text_scale))
    text.num_hidden_layers, text.layer_types = num_layers, ["full_attention"] * num_layers
    text.rope_parameters = {**text.rope_parameters, "mrope_section": ROTARY_SECTIONS}
    vision.intermediate_size = max(1, round(vision.intermediate_size * vision_scale))
    vision.hidden_size, vision.num_heads = VISION_WIDTH, VISION_WIDTH // HEAD_SIZE
    vision.depth, vision.fullatt_block_indexes, vision.out_hidden_size = num_layers, [1], text.hidden_size
    text.vocab_size = len(processor.tokenizer)
    places = {"image": IMAGE_PAD, "video": VIDEO_PAD, "vision_start": VISION_START, "vision_end": VISION_END}
    for name, token in places.items():
        setattr(config, f"{name}_token_id", processor.tokenizer.convert_tokens_to_ids(token))
    return Qwen2_5_VLForConditionalGeneration(config), text_scale, vision_scale
