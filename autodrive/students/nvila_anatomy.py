"""Sizes of NVILA students for plans, and their narrow twins."""

from copy import deepcopy
from typing import Any, cast

from autodrive.students.anatomy import Anatomy
from autodrive.students.nvila_model import NvilaModel, NvilaSizes
from autodrive.students.nvila_processor import VIDEO_MEDIA, NvilaProcessor

HEAD_SIZE = 16  # of a twin's attention heads
VISION_WIDTH = 64


def anatomy_of_nvila(sizes: NvilaSizes, processor: NvilaProcessor) -> Anatomy:
    """The sizes of an NVILA; every frame is a picture of its own to the tower and the projector."""
    text, vision = sizes.text, cast(Any, sizes.vision)
    blocks = vision.num_hidden_layers - 1  # features are those of the last but one
    head_size = text.hidden_size // text.num_attention_heads
    return Anatomy(
        layers=text.num_hidden_layers,
        attention_width=text.num_attention_heads * head_size,
        vocab_size=text.vocab_size,
        blocks=blocks,
        block_width=vision.hidden_size,
        full_blocks=blocks,
        window=1,
        pictures_per_group=processor.frames_per_group,
        patches_per_token=(processor.frame_side // processor.patch_size) ** 2 / processor.tokens_per_frame,
        patch_bytes=3 * processor.patch_size**2,  # three channels of a byte
    )


def narrowed_nvila(sizes: NvilaSizes, processor: NvilaProcessor, num_layers: int) -> tuple[NvilaModel, float, float]:
    """A model with the same shape of heads, projector and frames as `sizes`, but narrow, and with few layers a tower.

    Returns:
        The model on the CPU, and its widths as shares of those of `sizes`: language model, vision tower.
    """
    text, vision = cast(Any, deepcopy(sizes.text)), cast(Any, deepcopy(sizes.vision))
    heads = text.num_attention_heads // text.num_key_value_heads
    text_scale, vision_scale = heads * HEAD_SIZE / text.hidden_size, VISION_WIDTH / vision.hidden_size
    text.hidden_size, text.num_attention_heads, text.num_key_value_heads = heads * HEAD_SIZE, heads, 1
    text.intermediate_size = max(1, round(text.intermediate_size * text_scale))
    text.num_hidden_layers, text.layer_types = num_layers, ["full_attention"] * num_layers
    text.vocab_size = len(processor.tokenizer)
    vision.intermediate_size = max(1, round(vision.intermediate_size * vision_scale))
    vision.hidden_size, vision.num_attention_heads = VISION_WIDTH, VISION_WIDTH // HEAD_SIZE
    vision.num_hidden_layers = num_layers + 1
    media_id = processor.tokenizer.get_vocab()[VIDEO_MEDIA]
    model = NvilaModel(NvilaSizes(vision, text, sizes.projector, media_id))
    model.llm.tie_weights()
    return model, text_scale, vision_scale
