"""Frames as they are sent: each as a picture, or all of a clip as one film."""

from collections.abc import Sequence
from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autodrive.endpoints.calls import Film, Part, Picture
from autodrive.video.decoder import DecodedFrames
from autodrive.video.frame_codec import JpegCodec

Form = Literal["jpeg", "png"]
Sending = Literal["images", "video"]
QUALITY = 95


def fitting_size(width: int, height: int, longest_side_px: int) -> tuple[int, int]:
    """Height and width in pixels of a source's frames as they are sent: its shape, even sides, never enlarged."""
    scale = min(1.0, longest_side_px / max(width, height))
    sent = [max(2, round(side * scale / 2) * 2) for side in (height, width)]
    return sent[0], sent[1]


def picture_of(frame_CHW: NDArray[np.uint8], form: Form) -> Picture:
    """One frame, RGB (3, height, width): as JPEG of high quality, or exactly, as PNG."""
    if form == "jpeg":
        return Picture(bytes(JpegCodec(QUALITY).encode(frame_CHW)))
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(frame_CHW.transpose(1, 2, 0))).save(file, "PNG")
    return Picture(file.getvalue(), "png")


def parts_of(frames: DecodedFrames, form: Form, sending: Sending, *, times: bool) -> tuple[Part, ...]:
    """A clip's frames as parts of a message.

    Args:
        frames: The frames with their times.
        form: How each is written.
        sending: As a picture each, or as one film, which says nothing of times.
        times: Whether each picture has its time in words before it, in seconds from the first one.
    """
    pictures = [picture_of(frame_CHW, form) for frame_CHW in frames.frames_TCHW.numpy()]
    if sending == "video":
        return (Film(tuple(pictures)),)
    stamps = [f"{time_s - float(frames.timestamps_s[0]):.2f} s:" for time_s in frames.timestamps_s.tolist()]
    return tuple(part for pair in zip(stamps, pictures, strict=True) for part in (pair if times else pair[1:]))


def in_order(pictures: Sequence[Picture], sending: Sending) -> tuple[Part, ...]:
    """Pictures one after the other, as frames are sent."""
    return (Film(tuple(pictures)),) if sending == "video" else tuple(pictures)
