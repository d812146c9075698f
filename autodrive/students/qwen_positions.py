"""M-RoPE position ids of a clip's prefix, computed here because released transformers versions disagree about them.

Every token has three ids: time, row, column. For text all three are equal. `reference` is what Qwen2.5-VL's own trainer
does (qwen-vl-finetune, `rope2d.py`, `get_rope_index_25`): a video's temporal ids are the requested time grid times the
checkpoint's tokens per second, floored, and text goes on one after the largest id on any axis. transformers 4.57.1
collapses time above 2 fps; 5.23.0 starts the text inside the video's time range.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

PositionMode = Literal["reference", "real_time"]


def reference_times(num_patches: int, fps: float, tokens_per_second: float, temporal_patch_size: int = 2) -> Tensor:
    """Temporal ids of a video's temporal patches, before the offset: floor(k x patch / fps x tokens per second).

    Args:
        num_patches: Temporal patches in the clip.
        fps: Requested frames per second.
        tokens_per_second: Of the checkpoint (`vision_config.tokens_per_second`).
        temporal_patch_size: Frames in a temporal patch.

    Returns:
        (num_patches,) int64, ascending from 0; several patches share an id where the rate is above the id rate.
    """
    steps = torch.arange(num_patches, dtype=torch.float64)
    # One float64 factor keeps products that are whole on paper (5 x 2/25 x 15) from being floored to one less, as
    # float32 seconds would; at the rates and checkpoints in use the trainer's float32 gives the same ids.
    return (steps * (temporal_patch_size * tokens_per_second / fps)).floor().long()


def real_times(timestamps_s: Tensor, tokens_per_second: float, temporal_patch_size: int = 2) -> Tensor:
    """Temporal ids from measured time: that of each temporal patch's first frame, neither gridded nor floored.

    Args:
        timestamps_s: (T,) measured times of the frames, seconds.
        tokens_per_second: Position ids per second of video.
        temporal_patch_size: Frames in a temporal patch.

    Returns:
        (ceil(T / temporal_patch_size),) float32, starting at 0.
    """
    first_frames_s = timestamps_s[::temporal_patch_size].double()
    return ((first_frames_s - first_frames_s[0]) * tokens_per_second).float()


Segment = int | tuple[Tensor, tuple[int, int]]
"""So many text tokens; or a video: its temporal ids before the offset, and the patch rows and columns of a frame."""


def prefix_positions(segments: Sequence[Segment], merge_size: int = 2) -> tuple[Tensor, int]:
    """Position ids of text and videos in the order in which they are read.

    Args:
        segments: Text and videos; the temporal ids of a video come from `reference_times` or `real_times`.
        merge_size: Patches along a visual token's side.

    Returns:
        (3, tokens) ids, floats if a video's are, and the id with which every branch starts.
    """
    start = 0
    pieces: list[Tensor] = []
    for segment in segments:
        if isinstance(segment, int):
            pieces.append((torch.arange(segment) + start).expand(3, -1))
            start += segment
        else:
            times, (rows, columns) = segment
            axes = (times, *(torch.arange(side // merge_size).to(times) for side in (rows, columns)))
            grid = torch.stack([axis.reshape(-1) for axis in torch.meshgrid(*axes, indexing="ij")])
            pieces.append(grid + start)
            # One past the largest id on any axis. Time is the longest where a clip is long and its frames are small;
            # going on after the image axes alone would put the text back into the video's time range.
            start = math.floor(pieces[-1].max().item()) + 1
    return torch.cat(pieces, dim=1), start
