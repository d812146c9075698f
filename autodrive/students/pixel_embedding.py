"""Patches of pixels into a vision tower, without ever holding all of them as floats."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import Function, FunctionCtx, once_differentiable

from autodrive.students.preprocessing import normalise

# Patches that are floats at one time: on a CPU they and the kernel stay in its cache, on a GPU they fill it.
CHUNK_PATCHES = {"cpu": 512, "cuda": 16384}


def embed_pixels(
    patches_PD: Tensor, convolution: nn.Conv2d | nn.Conv3d, mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """A convolution whose kernel is as large as its stride, as one matrix product of uint8 patches.

    Pixels become floats chunk by chunk, and again in the backward pass: a float copy of all patches would be the
    largest tensor of a step.

    Args:
        patches_PD: (P, D) uint8 patches in the order of the kernel.
        convolution: Holds kernel and bias.
        mean: Mean per channel, in units of the full pixel range.
        std: Standard deviation per channel, in the same units.

    Returns:
        (P, width) embeddings, in the type of the kernel or of autocast.
    """
    kernel = convolution.weight.flatten(1)
    if torch.is_autocast_enabled(kernel.device.type):
        kernel = kernel.to(torch.get_autocast_dtype(kernel.device.type))
    mean_C, std_C = (torch.tensor(values, device=kernel.device) for values in (mean, std))
    embedded = cast(Tensor, _EmbedPixels.apply(patches_PD, kernel, mean_C, std_C))
    return embedded if convolution.bias is None else embedded + convolution.bias.to(embedded.dtype)


class _EmbedPixels(Function):
    """normalise(patches) @ kernel.T, without ever holding all normalised patches."""

    @staticmethod
    def forward(ctx: FunctionCtx, patches_PD: Tensor, kernel: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        ctx.save_for_backward(patches_PD, mean, std)
        output = torch.empty(len(patches_PD), len(kernel), dtype=kernel.dtype, device=kernel.device)
        for rows, pixels in _chunks(patches_PD, mean, std, kernel.dtype):
            torch.mm(pixels, kernel.T, out=output[rows])
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None, None]:
        patches_PD, mean, std = ctx.saved_tensors
        (gradient,) = gradients
        total = torch.zeros(gradient.shape[1], patches_PD.shape[1], dtype=torch.float32, device=gradient.device)
        for rows, pixels in _chunks(patches_PD, mean, std, gradient.dtype):
            total += gradient[rows].T @ pixels
        return None, total.to(gradient.dtype), None, None


def _chunks(patches_PD: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    size = CHUNK_PATCHES.get(patches_PD.device.type, CHUNK_PATCHES["cuda"])
    for start in range(0, len(patches_PD), size):
        rows = slice(start, start + size)
        yield rows, normalise(patches_PD[rows], mean, std).to(dtype)
