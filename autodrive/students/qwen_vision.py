"""Exact replacements for slow parts of the stock vision towers of Qwen2.5-VL and Qwen3-VL.

They compute what transformers computes, take over the stock modules' parameters, and leave the checkpoint's parameter
names and shapes as they are.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import Function, FunctionCtx, once_differentiable
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionPatchEmbed, Qwen2_5_VLVisionAttention
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionAttention, Qwen3VLVisionPatchEmbed

from autodrive.students.pixel_embedding import embed_pixels


class PixelPatchEmbed(nn.Module):
    """Patch embedding from uint8 pixels, see `embed_pixels`.

    Mean and deviation are no buffers: those would be rounded with the weights.
    """

    def __init__(
        self,
        stock: Qwen2_5_VisionPatchEmbed | Qwen3VLVisionPatchEmbed,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        """Take over the convolution of `stock`, whose weights keep their names and shapes."""
        super().__init__()
        self.proj = stock.proj
        self.mean, self.std = tuple(mean), tuple(std)

    def forward(self, patches_PD: Tensor) -> Tensor:
        """Embed (P, D) uint8 patches as (P, width)."""
        return embed_pixels(patches_PD, self.proj, self.mean, self.std)


class _Rotate(Function):
    """Rotary embedding of (P, …, head size) by angles whose cosines and sines are (P, half head size).

    Its gradient is the rotation back, so nothing but the angles is kept.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(states, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotated(gradients[0], cos, -sin), None, None


def _rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """In float32, as transformers does, and back in the dtype of `states`."""
    half = states.shape[-1] // 2
    shape = (len(cos), *[1] * (states.ndim - 2), half)
    cos, sin = cos.view(shape), sin.view(shape)
    first, second = states[..., :half].float(), states[..., half:].float()
    output = torch.empty(states.shape, dtype=torch.float32, device=states.device)
    torch.mul(first, cos, out=output[..., :half]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=output[..., half:]).addcmul_(first, sin)
    return output.to(states.dtype)


class ChunkedVisionAttention(nn.Module):
    """Attention within temporal patches or windows, one sdpa call for all of them that are equally long.

    The stock sdpa path makes one call per temporal patch and window.
    """

    def __init__(self, stock: Qwen2_5_VLVisionAttention | Qwen3VLVisionAttention) -> None:
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
            hidden_states: (P, width) features of the patches, chunk after chunk.
            cu_seqlens: (chunks + 1,) cumulative chunk lengths.
            position_embeddings: Cosines and sines, each (P, head size), both halves alike.

        Returns:
            (P, width) features in the same order.
        """
        packed = self.qkv(hidden_states).unflatten(1, (3, self.num_heads, -1))
        half = packed.shape[-1] // 2
        cos, sin = (table[:, :half].float() for table in position_embeddings)
        to_rotate, value = packed.split([2, 1], dim=1)  # one copy in the backward pass, where indexing makes two
        query, key = cast(Tensor, _Rotate.apply(to_rotate, cos, sin)).unbind(1)
        return self.proj(self._attend((query, key, value.squeeze(1)), cu_seqlens.diff()).flatten(1))

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


def use_fast_vision(
    model: Qwen2_5_VLForConditionalGeneration | Qwen3VLForConditionalGeneration,
    mean: Sequence[float],
    std: Sequence[float],
) -> None:
    """Put the replacements into a model's vision tower, which then takes uint8 patches.

    Args:
        model: The model; it is changed in place.
        mean: Mean per channel, in units of the full pixel range.
        std: Standard deviation per channel, in the same units.
    """
    visual: Any = model.model.visual
    visual.add_module("patch_embed", PixelPatchEmbed(visual.patch_embed, mean, std))
    for block in visual.blocks:
        block.add_module("attn", ChunkedVisionAttention(block.attn))
