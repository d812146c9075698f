"""Pixels to vision-tower patches: frame size, patch order and normalisation, in torch alone.

Equal to what transformers' Qwen2-VL image and video processors compute, without torchvision, and kept in uint8 until
the patches are on the device (a quarter of the bytes to move).

Shape letters: T frames, C channels, H and W pixels, P patches, D values in a patch.
"""

import math

import numpy as np
import torch
from torch import Tensor

from autodrive.errors import InputError
from autodrive.students.resolution import Resolution

MAX_ASPECT_RATIO = 200
"""Qwen's smart_resize refuses frames that are longer than this many times their width."""


def smart_frame_size(width: int, height: int, resolution: Resolution, factor: int = 28) -> tuple[int, int]:
    """The size to which a source frame is resized, with Qwen's `smart_resize` semantics.

    Both sides are multiples of `factor`, the aspect ratio is kept as nearly as that allows, and the frame has between
    `min_tokens` and `max_tokens` cells of `factor` x `factor` pixels. Where rounding makes both bounds impossible the
    upper one holds (Qwen's own rule lets very long or very small frames exceed it).

    Args:
        width: Width of the source in pixels.
        height: Height of the source in pixels.
        resolution: Bounds in visual tokens per temporal patch.
        factor: Pixels along the side of a visual token (patch size x merge size).

    Returns:
        Height and width in pixels.

    Raises:
        InputError: The frame is more than 200 times longer than wide, as in Qwen's rule.
    """
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise InputError(f"a frame of {width}x{height} pixels is over {MAX_ASPECT_RATIO}:1; remove that video")
    rows, columns = round(height / factor), round(width / factor)
    max_tokens, min_tokens = resolution.max_tokens, resolution.min_tokens
    # Qwen compares pixel products; dividing both sides by factor**2 gives the same comparisons in tokens.
    if rows * columns < min_tokens:
        scale = math.sqrt(min_tokens * factor**2 / (height * width))
        rows, columns = math.ceil(height * scale / factor), math.ceil(width * scale / factor)
    if rows * columns > max_tokens:
        scale = math.sqrt((height * width) / (max_tokens * factor**2))
        rows = max(1, math.floor(height / scale / factor))
        columns = max(1, math.floor(width / scale / factor))
    if rows * columns > max_tokens:  # one side is a single token already: shorten the other
        rows, columns = (max_tokens, 1) if rows > columns else (1, max_tokens)
    return rows * factor, columns * factor


def patchify(
    frames_TCHW: Tensor, patch_size: int = 14, temporal_patch_size: int = 2, merge_size: int = 2
) -> tuple[Tensor, tuple[int, int, int]]:
    """Cut frames into patches in Qwen2-VL's order: the merge_size x merge_size patches of a token lie side by side.

    An odd frame count is padded by repeating the last frame, as transformers' video processor does.

    Args:
        frames_TCHW: Frames whose height and width are multiples of patch_size x merge_size; any dtype, on the CPU.
        patch_size: Pixels along a patch's side.
        temporal_patch_size: Frames in a patch.
        merge_size: Patches along a visual token's side.

    Returns:
        Patches (P, D) with D in the order channel, frame, row, column; and the grid: temporal patches, rows, columns.
    """
    missing = -frames_TCHW.shape[0] % temporal_patch_size
    if missing:
        frames_TCHW = torch.cat([frames_TCHW, frames_TCHW[-1:].expand(missing, -1, -1, -1)])
    num_frames, channels, height, width = frames_TCHW.shape
    grid = (num_frames // temporal_patch_size, height // patch_size, width // patch_size)
    # A row of a patch is what stays together. NumPy moves it as one item of that many bytes; torch, which knows no such
    # type, moves pixel by pixel and takes three to four times as long.
    row_bytes = patch_size * frames_TCHW.element_size()
    rows = frames_TCHW.contiguous().view(torch.uint8).numpy().view(f"V{row_bytes}")
    cells = rows.reshape(
        grid[0],
        temporal_patch_size,
        channels,
        grid[1] // merge_size,
        merge_size,
        patch_size,
        grid[2] // merge_size,
        merge_size,
    )
    patches = np.ascontiguousarray(cells.transpose(0, 3, 6, 4, 7, 2, 1, 5)).view(np.uint8)
    return torch.from_numpy(patches.reshape(math.prod(grid), -1)).view(frames_TCHW.dtype), grid


def normalise(patches_PD: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Turn uint8 patches into floats: (pixel / 255 - mean) / std per channel.

    Args:
        patches_PD: (P, D) uint8, D in the order channel, frame, row, column.
        mean: (channels,) means in units of the full pixel range.
        std: (channels,) standard deviations in the same units.

    Returns:
        (P, D) float32 on the patches' device.
    """
    pixels_per_channel = patches_PD.shape[1] // mean.numel()
    scale = (1 / (255 * std)).repeat_interleave(pixels_per_channel)
    offset = (mean / std).repeat_interleave(pixels_per_channel)
    # In place: the float copy of a batch's patches is the largest tensor of a tiny student's step.
    return patches_PD.float().mul_(scale).sub_(offset)
