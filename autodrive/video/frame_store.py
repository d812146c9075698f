"""The folder of the frame cache: where entries lie, who may write, and which ones go when it is full.

entries/<2 digits>/<key>/   finished entries; a reader needs no lock
building/<key>/             an entry that is being written, renamed when it is whole
locks/                      who builds, striped by key, and who counts
total_bytes                 running total of all entries
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from autodrive.errors import InputError
from autodrive.video.frame_entry import FRAMES_NAME, INDEX_NAME

# Two sources that share a stripe wait for each other; this many are rarely met by the workers of one machine.
NUM_STRIPES = 256
# Evicting a little more than necessary makes a full scan of the folder rare.
KEPT_SHARE = 0.9


class EntryStore:
    """Entries of a bounded folder that many processes read and write at once.

    Args:
        folder: Folder of the entries; it is made when the first one is written.
        max_bytes: Bound on the bytes of all entries.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes

    def entry(self, key: str) -> Path:
        """Where the entry of a key lies, if there is one."""
        return self.folder / "entries" / key[:2] / key

    @contextmanager
    def writing(self, key: str) -> Iterator[Path]:
        """Hold the right to build an entry; gives the folder to build it in, which is gone on leaving.

        Other processes that want it wait. The system takes the lock back from a process that dies; what it left half
        done is removed by the next one.

        Raises:
            InputError: The cache cannot be written to.
        """
        with self.room():
            lock = self._stripe(key)
            lock.acquire()  # before the leftovers are removed: until then they may be another process's work
        building = self.folder / "building" / key
        try:
            shutil.rmtree(building, ignore_errors=True)
            yield building
        finally:
            shutil.rmtree(building, ignore_errors=True)
            lock.release()

    def publish(self, key: str, num_bytes: int) -> None:
        """Make the entry that was built visible to readers, and evict others if it makes the cache too large.

        Call it while `writing`. The bytes are counted first: a process that dies in between leaves a total that is too
        high, which the next full scan corrects; one that is too low would let the cache grow.

        Raises:
            InputError: The cache cannot be written to.
        """
        entry = self.entry(key)
        # A rename is all or nothing, and it is the last step: a reader, who takes no lock, finds a whole entry or none.
        with self.room():
            if entry.exists():  # what an interrupted eviction left
                self.discard(key)
            self._count(num_bytes)
            entry.parent.mkdir(parents=True, exist_ok=True)
            os.rename(self.folder / "building" / key, entry)

    def discard(self, key: str) -> None:
        """Remove a damaged entry. Call it while `writing`."""
        with self.room():
            _remove(self.entry(key))
            with self._lock("total"):  # nobody knows what it was counted for
                (self.folder / "total_bytes").unlink(missing_ok=True)

    @contextmanager
    def room(self) -> Iterator[None]:
        """Report what goes wrong with the folder (a full disk above all) as something the user has to fix.

        Raises:
            InputError: Instead of any `OSError`.
        """
        try:
            yield
        except OSError as error:
            raise InputError(
                f"{self.folder}: the frame cache cannot be written ({error.strerror or error}); free some space, lower "
                "frame_cache.max_gb, move it with frame_cache.folder, or use frame_cache=none"
            ) from error

    def _stripe(self, key: str) -> FileLock:
        return self._lock(f"{int(key[:8], 16) % NUM_STRIPES:02x}")

    def _lock(self, name: str) -> FileLock:
        locks = self.folder / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        return FileLock(locks / f"{name}.lock")

    def _count(self, num_bytes: int) -> None:
        """Add to the running total; above the bound, or without a total, count what is there and evict."""
        with self._lock("total"):
            note = self.folder / "total_bytes"
            try:
                total = int(note.read_text()) + num_bytes
            except (FileNotFoundError, ValueError):  # never written, discarded, or cut off by a kill
                total = self.max_bytes + 1
            note.write_text(str(self._evict() if total > self.max_bytes else total))

    def _evict(self) -> int:
        """Remove least recently used entries if the folder holds too much; the bytes that it holds then."""
        self._remove_leftovers()
        entries = sorted(self._entries())
        total = sum(num_bytes for _, num_bytes, _ in entries)
        total += sum(_use_and_size(building)[1] for building in self.folder.glob("building/*"))
        if total <= self.max_bytes:  # the running total was too high
            return total
        # Readers hold no locks, so an entry may go while it is read: they check what they read and ask the decoder
        # then.
        for _, num_bytes, entry in entries:
            if total <= KEPT_SHARE * self.max_bytes:
                break
            _remove(entry)
            total -= num_bytes
        return total

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """Last use, bytes and folder of every entry."""
        for entry in self.folder.glob("entries/*/*"):
            yield *_use_and_size(entry), entry

    def _remove_leftovers(self) -> None:
        """Remove what processes that died were building."""
        for building in self.folder.glob("building/*"):
            try:
                with self._stripe(building.name).acquire(timeout=0):
                    shutil.rmtree(building, ignore_errors=True)
            except (Timeout, ValueError):  # it is being built, or it is none of ours
                continue


def _remove(entry: Path) -> None:
    """Remove an entry, its index first so that readers stop finding it."""
    with suppress(OSError):  # there is none, or something else has its name
        (entry / INDEX_NAME).unlink()
    shutil.rmtree(entry, ignore_errors=True)


def _use_and_size(entry: Path) -> tuple[float, int]:
    """Last use (0 where the index is missing) and bytes of an entry that others may be removing."""
    last_use, num_bytes = 0.0, 0
    for name in (INDEX_NAME, FRAMES_NAME):
        with suppress(FileNotFoundError):
            facts = (entry / name).stat()
            num_bytes += facts.st_size
            last_use = facts.st_mtime if name == INDEX_NAME else last_use
    return last_use, num_bytes
