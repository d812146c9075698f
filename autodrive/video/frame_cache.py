"""The frame cache: a source video is decoded once for all its windows, frame rates, phases, epochs and runs.

The first read of a source decodes the whole file, resizes every frame to its final size and stores all of them with
their times. Every later read takes rows from the store. `conf/frame_cache/*.yaml` choose whether and how.
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import Protocol

import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from autodrive.bounds import PositiveNumber
from autodrive.video.container import UnusableVideo, presentation_times
from autodrive.video.decoder import DecodedFrames, Decoder, check_request
from autodrive.video.frame_codec import FrameCodec
from autodrive.video.frame_entry import DamagedEntry, EntryWriter, read_entry
from autodrive.video.frame_store import EntryStore

log = logging.getLogger(__name__)

# Raised when stored frames change their form or their pixels, so that older entries are not used again.
FRAME_RULES = 1
# A source that takes more of the cache than this is not stored: it would push out too many others.
LARGEST_SHARE = 0.1


class FrameCache(Protocol):
    """Stands between a clip's reader and a decoder."""

    def read(
        self, decoder: Decoder, path: Path, content_hash: str, requested_s: NDArray[np.float64], size: tuple[int, int]
    ) -> DecodedFrames:
        """Give the frames that `decoder.read(path, requested_s, size)` gives, and raise what it raises.

        Args:
            decoder: Decodes what is not stored.
            path: The video file whose frames are wanted.
            content_hash: Hash of the file's bytes.
            requested_s: (T,) ascending seconds from the first frame of the file.
            size: Height and width in pixels of the returned frames.
        """
        ...


class NoFrameCache:
    """Every window is decoded whenever it is read."""

    def read(
        self, decoder: Decoder, path: Path, content_hash: str, requested_s: NDArray[np.float64], size: tuple[int, int]
    ) -> DecodedFrames:
        """See `FrameCache.read`."""
        return decoder.read(path, requested_s, size)


class DiskFrameCache:
    """Frames in a bounded folder that all processes of a machine may share.

    Nothing is opened before the first read, so that it can be sent to loader workers.

    Args:
        folder: Folder on a local disk; it is made when the first source is stored.
        codec: Codec in which frames are stored.
        max_gb: Bound on the stored bytes, in 10**9; the least recently used sources go first. A source that would take
            more than a tenth of it (a long video) is never stored.
    """

    def __init__(self, folder: Path | str, codec: FrameCodec, max_gb: PositiveNumber) -> None:
        self.codec = codec
        self.store = EntryStore(Path(folder), round(max_gb * 1e9))
        self._never_stored: set[str] = set()

    def read(
        self, decoder: Decoder, path: Path, content_hash: str, requested_s: NDArray[np.float64], size: tuple[int, int]
    ) -> DecodedFrames:
        """See `FrameCache.read`.

        Raises:
            InputError: The folder cannot be written to; otherwise as the decoder.
        """
        check_request(requested_s)
        key = self._key(decoder, path, content_hash, size)
        if key is None or key in self._never_stored:
            return decoder.read(path, requested_s, size)
        try:
            stored = read_entry(self.store.entry(key), key, self.codec, requested_s, size)
        except (DamagedEntry, OSError):
            stored = self._build_and_read(decoder, path, key, requested_s, size)
        return decoder.read(path, requested_s, size) if stored is None else stored

    def _key(self, decoder: Decoder, path: Path, content_hash: str, size: tuple[int, int]) -> str | None:
        """All that stored bytes depend on; None where there is no file. The length notices a file that was cut off."""
        try:
            num_bytes = path.stat().st_size
        except OSError:
            return None
        parts = [FRAME_RULES, content_hash, num_bytes, decoder.identity(), list(size), self.codec.identity()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def _build_and_read(
        self, decoder: Decoder, path: Path, key: str, requested_s: NDArray[np.float64], size: tuple[int, int]
    ) -> DecodedFrames | None:
        """Store a source unless another process has just done so, and read from it; None: leave it to the decoder."""
        entry = self.store.entry(key)
        with self.store.writing(key) as building:
            try:
                return read_entry(entry, key, self.codec, requested_s, size)
            except FileNotFoundError:
                pass
            except (DamagedEntry, OSError) as error:
                log.warning("%s: damaged (%s), so %s is decoded again", entry, error, path)
                self.store.discard(key)
            if not self._build(decoder, path, key, size, building):
                self._never_stored.add(key)
                return None
        try:
            return read_entry(entry, key, self.codec, requested_s, size)
        except (DamagedEntry, OSError):  # evicted at once: the cache is too small for the processes that share it
            return None

    def _build(self, decoder: Decoder, path: Path, key: str, size: tuple[int, int], building: Path) -> bool:
        """Decode a whole file into an entry; False where it is too large to be stored or damaged somewhere."""
        try:
            num_frames = len(presentation_times(path))
            with self.store.room():
                writer = EntryWriter(building, key, self.codec)
            for chunk in decoder.stream(path, size):
                frame_bytes = len(self.codec.encode(chunk.frames_TCHW[0].numpy()))
                coming = frame_bytes * (num_frames - writer.num_frames)
                if writer.num_bytes + coming > LARGEST_SHARE * self.store.max_bytes:
                    log.debug("%s: too large for the frame cache", path)
                    return False
                with self.store.room():
                    writer.extend(chunk)
        except (UnusableVideo, FFmpegError) as error:
            # Windows that the damage does not touch can still be read; those that it does raise what they always raise.
            log.debug("%s: not stored (%s)", path, error)
            return False
        with self.store.room():
            num_bytes = writer.close()
        self.store.publish(key, num_bytes)
        log.debug("%s: stored %d frames in %s", path, writer.num_frames, self.store.entry(key))
        return True
