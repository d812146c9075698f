"""M-RoPE position ids of a clip's prefix, computed here because released transformers versions disagree about them.

Every token has three ids: time, row, column. For text all three are equal. `reference` is what Qwen2.5-VL's own trainer
does (qwen-vl-finetune, `rope2d.py`, `get_rope_index_25`): a video's temporal ids are the requested time grid times the
checkpoint's tokens per second, floored, and text goes on one after the largest id on any axis. transformers 4.57.1
collapses time above 2 fps; 5.23.0 starts the text inside the video's time range.
"""

import math
from typing import Literal

import torch
from torch import Tensor

PositionMode = Literal["reference", "real_time"]


def reference_times(num_patches: int, fps: float, tokens_per_second: float, temporal_patch_size: int = 2) -> Tensor:
    """Temporal ids of a video's temporal patches, before the offset: floor(k x patch / fps x tokens per second).

    Args:
        num_patches: temporal patches in the clip.
        fps: requested frames per second.
        tokens_per_second: of the checkpoint (`vision_config.tokens_per_second`).
        temporal_patch_size: frames in a temporal patch.

    Returns:
        (num_patches,) int64.
    """
    steps = torch.arange(num_patches, dtype=torch.float64)
    # One float64 factor keeps products that are whole on paper (5 x 2/25 x 15) from being floored to one less, as
    # float32 seconds would; at the rates and checkpoints in use the trainer's float32 gives the same ids.
    return (steps * (temporal_patch_size * tokens_per_second / fps)).floor().long()


def real_times(timestamps_s: Tensor, tokens_per_second: float, temporal_patch_size: int = 2) -> Tensor:
    """Temporal ids from measured time: that of each temporal patch's first frame, neither gridded nor floored.

    Args:
        timestamps_s: (T,) measured times of the frames, seconds.
        tokens_per_second: position ids per second of video.
        temporal_patch_size: frames in a temporal patch.

    Returns:
        (ceil(T / temporal_patch_size),) float32, starting at 0.
    """
    first_frames_s = timestamps_s[::temporal_patch_size].double()
    return ((first_frames_s - first_frames_s[0]) * tokens_per_second).float()


def prefix_positions(
    num_before: int, times: Tensor, grid_hw: tuple[int, int], num_after: int, merge_size: int = 2
) -> tuple[Tensor, int]:
    """Position ids of text, then a video, then text.

    Args:
        num_before: text tokens before the video.
        times: (temporal patches,) temporal ids before the offset, from `reference_times` or `real_times`.
        grid_hw: patch rows and columns of a temporal patch.
        num_after: text tokens after the video that belong to the prefix.
        merge_size: patches along a visual token's side.

    Returns:
        (3, tokens) ids in the dtype of `times`, and the id with which every branch starts.
    """
    rows, columns = grid_hw[0] // merge_size, grid_hw[1] // merge_size
    axes = (times, torch.arange(rows).to(times), torch.arange(columns).to(times))
    video = torch.stack([axis.reshape(-1) for axis in torch.meshgrid(*axes, indexing="ij")]) + num_before
    before = torch.arange(num_before).to(times).expand(3, -1)
    after_start = math.floor(video.max().item()) + 1
    after = (torch.arange(num_after) + after_start).to(times).expand(3, -1)
    return torch.cat([before, video, after], dim=1), after_start + num_after
