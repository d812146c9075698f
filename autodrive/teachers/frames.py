"""A clip's frames as a teacher is shown them: the frame grid and decoder of training, true times, JPEG."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from autodrive.bounds import Even, FramesPerSecond
from autodrive.endpoints.calls import Picture
from autodrive.endpoints.pictures import fitting_size
from autodrive.schema import Clip
from autodrive.video.decoder import Decoder
from autodrive.video.frame_codec import JpegCodec
from autodrive.video.frame_grid import FrameGrid


@dataclass(frozen=True)
class AttachedFrames:
    """Which frames of a clip go with a call, and how.

    Attributes:
        fps: Frames per second that the teacher sees.
        longest_side_px: The longer side of a picture; frames that are smaller are not enlarged.
        decoder: Reads the video.
        jpeg: How pictures are written.
    """

    fps: FramesPerSecond
    longest_side_px: Annotated[int, Ge(28), Le(4096), Even]
    decoder: Decoder
    jpeg: JpegCodec

    def identity(self) -> str:
        """What the pictures of a clip depend on."""
        return f"{self.fps:g} fps, {self.longest_side_px} px, {self.jpeg.identity()}, {self.decoder.identity()}"

    def usable(self, clip: Clip) -> bool:
        """Whether the source has as many frames per second as are wanted."""
        return FrameGrid(self.fps).usable(clip.road.native_fps)

    def count(self, clip: Clip) -> int:
        """How many frames of a clip are attached; the video is not opened.

        Raises:
            FrameRateUnavailable: The source has fewer frames per second than are wanted.
        """
        return len(self._requested_s(clip))

    def size(self, clip: Clip) -> tuple[int, int]:
        """Height and width of the pictures, in pixels: the clip's shape, with even sides."""
        return fitting_size(clip.road.width, clip.road.height, self.longest_side_px)

    def parts(self, clip: Clip) -> tuple[str | Picture, ...]:
        """For each frame its measured time, in seconds from the clip's start, and its picture.

        Raises:
            FrameRateUnavailable: The source has fewer frames per second than are wanted.
            UnusableVideo: The video is missing, damaged, or too short.
        """
        frames = self.decoder.read(Path(clip.road.path), self._requested_s(clip), self.size(clip))
        parts: list[str | Picture] = []
        for frame_CHW, time_s in zip(frames.frames_TCHW.numpy(), frames.timestamps_s.tolist(), strict=True):
            # The frame on screen when the clip begins may have come up just before.
            parts.append(f"{max(0.0, time_s - clip.start_s):.2f} s:")
            parts.append(Picture(bytes(self.jpeg.encode(frame_CHW))))
        return tuple(parts)

    def _requested_s(self, clip: Clip) -> NDArray[np.float64]:
        return FrameGrid(self.fps).timestamps(clip.start_s, clip.end_s, clip.road.native_fps)
