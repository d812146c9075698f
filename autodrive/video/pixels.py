"""From decoded pictures to RGB tensors of the wanted size."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from torch import Tensor

_PLANAR_420 = ("yuv420p", "yuvj420p")


def to_rgb(frames: Sequence[VideoFrame]) -> NDArray[np.uint8]:
    """Convert decoded frames of one size to RGB, honouring their colour space and range tags.

    Frames in 4:2:0 are stacked into one tall picture and converted by a single call, which gives the same bytes as one
    call a frame (pinned by a test) at a fifth of the cost for small frames, where setting up the call dominates.

    Returns:
        (N, H, W, 3) uint8.
    """
    first = frames[0]
    if first.format.name not in _PLANAR_420 or first.height % 2 or first.width % 2:
        return np.stack([_reformat(frame, frame) for frame in frames])
    tall = VideoFrame(first.width, first.height * len(frames), first.format.name)
    for number, target in enumerate(tall.planes):
        rows = _plane(tall, number)
        height = target.height // len(frames)
        for index, frame in enumerate(frames):
            rows[index * height : (index + 1) * height] = _plane(frame, number)
    return _reformat(tall, first).reshape(len(frames), first.height, first.width, 3)


def _plane(frame: VideoFrame, number: int) -> NDArray[np.uint8]:
    plane = frame.planes[number]
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]  # type: ignore[arg-type]


def _reformat(frame: VideoFrame, tags: VideoFrame) -> NDArray[np.uint8]:
    rgb = VideoReformatter().reformat(
        frame, format="rgb24", src_colorspace=tags.colorspace, src_color_range=tags.color_range, threads=1
    )
    return cast(NDArray[np.uint8], rgb.to_ndarray())


def resize_frames(frames_THWC: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """Resize with anti-aliased bicubic interpolation in uint8, as transformers' image processors do.

    Args:
        frames_THWC: (T, H, W, 3) uint8.
        size: Wanted height and width in pixels.

    Returns:
        (T, 3, height, width) uint8.
    """
    frames_TCHW = torch.from_numpy(frames_THWC).permute(0, 3, 1, 2)
    if frames_TCHW.shape[2:] == size:
        return frames_TCHW
    return torch.nn.functional.interpolate(frames_TCHW, size=size, mode="bicubic", antialias=True)


def frame_buffer(num_frames: int, size: tuple[int, int]) -> Tensor:
    """An uninitialised (num_frames, 3, height, width) uint8 tensor.

    Its memory is NumPy's, which asks Linux for huge pages where torch does not: first use of 6 s at 30 frames per
    second (57 MB) costs 14,000 page faults otherwise, three times as much as filling it.
    """
    return torch.from_numpy(np.empty((num_frames, 3, *size), np.uint8))
