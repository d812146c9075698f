"""How a stored frame becomes bytes and back: as it is, or as JPEG."""

from dataclasses import dataclass
from io import BytesIO
from typing import Annotated, Protocol

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray
from PIL import Image


class FrameCodec(Protocol):
    """Turns one frame into bytes and back."""

    def identity(self) -> str:
        """What the bytes of a frame depend on."""
        ...

    def encode(self, frame_CHW: NDArray[np.uint8]) -> bytes | memoryview:
        """The bytes to store for one frame, (3, height, width) uint8."""
        ...

    def landing(self, frame_CHW: NDArray[np.uint8], num_bytes: int) -> memoryview:
        """Where stored bytes are read to before `decode`: the frame's own memory where they are its pixels."""
        ...

    def decode(self, stored: memoryview, frame_CHW: NDArray[np.uint8]) -> None:
        """Fill `frame_CHW` from bytes that were read to `landing` and found undamaged."""
        ...


@dataclass(frozen=True)
class RawCodec:
    """Pixels as they are: nothing is lost and nothing is computed when they are read."""

    def identity(self) -> str:
        """See `FrameCodec.identity`."""
        return "raw"

    def encode(self, frame_CHW: NDArray[np.uint8]) -> memoryview:
        """See `FrameCodec.encode`."""
        return np.ascontiguousarray(frame_CHW).data.cast("B")

    def landing(self, frame_CHW: NDArray[np.uint8], num_bytes: int) -> memoryview:
        """See `FrameCodec.landing`."""
        return frame_CHW.data.cast("B")

    def decode(self, stored: memoryview, frame_CHW: NDArray[np.uint8]) -> None:
        """Nothing is left to do: the bytes were read into the frame."""


@dataclass(frozen=True)
class JpegCodec:
    """JPEG without chroma subsampling: a fifth of the bytes or less, pixels that are close but not equal.

    Attributes:
        quality: Pillow's, 1 to 95.
    """

    quality: Annotated[int, Ge(1), Le(95)] = 90

    def identity(self) -> str:
        """See `FrameCodec.identity`."""
        return f"jpeg-{self.quality}"

    def encode(self, frame_CHW: NDArray[np.uint8]) -> bytes:
        """See `FrameCodec.encode`."""
        stored = BytesIO()
        Image.fromarray(np.ascontiguousarray(frame_CHW.transpose(1, 2, 0))).save(
            stored, "JPEG", quality=self.quality, subsampling=0
        )
        return stored.getvalue()

    def landing(self, frame_CHW: NDArray[np.uint8], num_bytes: int) -> memoryview:
        """See `FrameCodec.landing`."""
        return memoryview(bytearray(num_bytes))

    def decode(self, stored: memoryview, frame_CHW: NDArray[np.uint8]) -> None:
        """See `FrameCodec.decode`."""
        frame_CHW[:] = np.asarray(Image.open(BytesIO(stored))).transpose(2, 0, 1)
