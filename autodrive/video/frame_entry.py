"""One source video in the frame cache: a folder with all its frames at one size, and an index that finds them.

`frames` holds the bytes of every frame, one after the other. `index.npy` holds a row for each frame: its time, where
its bytes begin, and their checksum; a last row says where the bytes end. Eight bytes behind the array are a checksum of
the index itself, seeded with the entry's key, so that an entry under a wrong name is noticed too.
"""

import os
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from xxhash import xxh3_64_digest, xxh3_64_intdigest

from autodrive.video.decoder import DecodedFrames
from autodrive.video.frame_codec import FrameCodec
from autodrive.video.pixels import frame_buffer
from autodrive.video.sampler import TIMESTAMP_TOLERANCE_S, choose_frames

INDEX_NAME, FRAMES_NAME = "index.npy", "frames"
INDEX_ROW = np.dtype([("time_s", "<f8"), ("start", "<i8"), ("checksum", "<u8")])
_DIGEST_BYTES = 8


class DamagedEntry(Exception):  # noqa: N818 - named for what it says about the entry
    """Stored bytes are not those that were written."""


class EntryWriter:
    """Writes frames as they are decoded; memory holds one chunk.

    Args:
        folder: A new or empty folder.
        key: Key of the entry, 32 hexadecimal digits.
        codec: Codec that turns frames into bytes.
    """

    def __init__(self, folder: Path, key: str, codec: FrameCodec) -> None:
        folder.mkdir(parents=True)
        self.folder, self.key, self.codec = folder, key, codec
        self.num_bytes = 0
        self._rows: list[tuple[float, int, int]] = []

    def extend(self, decoded: DecodedFrames) -> None:
        """Append the frames of one chunk."""
        with (self.folder / FRAMES_NAME).open("ab") as file:
            for frame_CHW, time_s in zip(decoded.frames_TCHW.numpy(), decoded.timestamps_s.tolist(), strict=True):
                stored = self.codec.encode(frame_CHW)
                file.write(stored)
                self._rows.append((time_s, self.num_bytes, xxh3_64_intdigest(stored)))
                self.num_bytes += len(stored)

    @property
    def num_frames(self) -> int:
        """Frames written so far."""
        return len(self._rows)

    def close(self) -> int:
        """Write the index; the bytes of the whole entry."""
        rows = np.array([*self._rows, (np.inf, self.num_bytes, 0)], INDEX_ROW)
        buffer = BytesIO()
        np.save(buffer, rows, allow_pickle=False)
        index = buffer.getvalue()
        (self.folder / INDEX_NAME).write_bytes(index + xxh3_64_digest(index, seed=_seed(self.key)))
        return self.num_bytes + len(index) + _DIGEST_BYTES


def read_entry(
    folder: Path, key: str, codec: FrameCodec, requested_s: NDArray[np.float64], size: tuple[int, int]
) -> DecodedFrames | None:
    """Read the frames on screen at the requested times, and mark the entry as used.

    The bytes are read, not mapped into memory: a file that is cut short under a map ends the process without a message.

    Args:
        folder: Folder of the entry.
        key: Key of the entry, 32 hexadecimal digits.
        codec: The codec that wrote the entry.
        requested_s: (T,) ascending seconds from the first frame of the file.
        size: Height and width in pixels of the stored frames.

    Returns:
        None where times lie after the last frame has left the screen: what to say then is the decoder's to decide.

    Raises:
        FileNotFoundError: There is no such entry, or it has just been evicted.
        DamagedEntry: The index or a wanted frame is not what was written.
    """
    rows = _read_index(folder, key)
    times_s, starts = rows["time_s"][:-1], rows["start"]
    if requested_s[-1] > _end_s(times_s):
        return None
    indices = choose_frames(times_s, requested_s)
    output_TCHW = frame_buffer(len(indices), size)
    pixels_TCHW = output_TCHW.numpy()
    with (folder / FRAMES_NAME).open("rb", buffering=0) as file:
        for place, index in enumerate(indices.tolist()):
            if place and index == indices[place - 1]:
                pixels_TCHW[place] = pixels_TCHW[place - 1]
                continue
            start, num_bytes = int(starts[index]), int(starts[index + 1] - starts[index])
            landing = codec.landing(pixels_TCHW[place], num_bytes)
            file.seek(start)
            whole = len(landing) == num_bytes == file.readinto(landing)
            if not whole or xxh3_64_intdigest(landing) != rows["checksum"][index]:
                raise DamagedEntry(f"frame {index}")
            codec.decode(landing, pixels_TCHW[place])
    return DecodedFrames(output_TCHW, torch.from_numpy(times_s[indices]))


def _read_index(folder: Path, key: str) -> NDArray[np.void]:
    content = (folder / INDEX_NAME).read_bytes()
    os.utime(folder / INDEX_NAME)  # what eviction goes by
    index, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if digest != xxh3_64_digest(index, seed=_seed(key)):
        raise DamagedEntry("the index")
    return np.load(BytesIO(index), allow_pickle=False)


def _end_s(times_s: NDArray[np.float64]) -> float:
    """When the last frame leaves the screen, at the shorter of the last and the usual interval."""
    if len(times_s) < 2:
        return float(times_s[-1]) + TIMESTAMP_TOLERANCE_S
    intervals_s = np.diff(times_s)
    return float(times_s[-1] + min(intervals_s[-1], np.median(intervals_s)))


def _seed(key: str) -> int:
    return int(key[:16], 16)
