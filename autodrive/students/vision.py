"""Two exact replacements for slow parts of the stock Qwen2.5-VL vision tower.

Both compute what transformers computes, take over the stock modules' parameters, and leave the checkpoint's parameter
names and shapes as they are.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionPatchEmbed,
    Qwen2_5_VLVisionAttention,
    apply_rotary_pos_emb_vision,
)


class LinearPatchEmbed(nn.Module):
    """Patch embedding as one matrix product; the kernel is as large as the stride, so the convolution is one."""

    def __init__(self, stock: Qwen2_5_VisionPatchEmbed) -> None:
        """Take over the convolution of `stock`, whose weight keeps its name and shape."""
        super().__init__()
        self.proj = stock.proj

    def forward(self, patches_PD: Tensor) -> Tensor:
        """Embed (P, D) patches as (P, width)."""
        kernel = self.proj.weight.flatten(1)
        return F.linear(patches_PD.to(kernel.dtype), kernel)


class ChunkedVisionAttention(nn.Module):
    """Attention within temporal patches or windows, one sdpa call for all of them that are equally long.

    The stock sdpa path makes one call per temporal patch and window.
    """

    def __init__(self, stock: Qwen2_5_VLVisionAttention) -> None:
        """Take over the projections of `stock`."""
        super().__init__()
        self.num_heads = stock.num_heads
        self.scaling = stock.scaling
        self.qkv = stock.qkv
        self.proj = stock.proj

    def forward(
        self, hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: tuple[Tensor, Tensor], **_: Any
    ) -> Tensor:
        """Attend within chunks.

        Args:
            hidden_states: (P, width).
            cu_seqlens: (chunks + 1,) cumulative chunk lengths.
            position_embeddings: cosines and sines, each (P, head size).

        Returns:
            (P, width).
        """
        query, key, value = self.qkv(hidden_states).unflatten(1, (3, self.num_heads, -1)).unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        return self.proj(self._attend((query, key, value), cu_seqlens.diff()).flatten(1))

    def _attend(self, packed: tuple[Tensor, Tensor, Tensor], lengths: Tensor) -> Tensor:
        """Attention over (P, heads, head size) tensors whose chunks have these lengths."""
        sizes = lengths.unique().tolist()
        if len(sizes) == 1:
            return self._attend_equal(packed, sizes[0])
        size_of_patch = lengths.repeat_interleave(lengths)
        output = torch.empty_like(packed[2])
        for size in sizes:
            chosen = (size_of_patch == size).nonzero().squeeze(1)
            query, key, value = (tensor[chosen] for tensor in packed)
            output = output.index_copy(0, chosen, self._attend_equal((query, key, value), size))
        return output

    def _attend_equal(self, packed: tuple[Tensor, Tensor, Tensor], size: int) -> Tensor:
        """Attention over (P, heads, head size) tensors made of chunks of `size` patches."""
        query, key, value = (tensor.unflatten(0, (-1, size)).transpose(1, 2) for tensor in packed)
        output = F.scaled_dot_product_attention(query, key, value, scale=self.scaling)
        return output.transpose(1, 2).flatten(0, 1)


def use_fast_vision(model: Qwen2_5_VLForConditionalGeneration) -> None:
    """Put both replacements into a model's vision tower."""
    visual = model.model.visual
    visual.add_module("patch_embed", LinearPatchEmbed(visual.patch_embed))
    for block in visual.blocks:
        block.add_module("attn", ChunkedVisionAttention(cast(Qwen2_5_VLVisionAttention, block.attn)))
