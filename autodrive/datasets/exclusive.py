"""One process at a time in a folder that several runs may fill."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from autodrive.errors import InputError

log = logging.getLogger(__name__)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Wait until no other process is at work in a folder, and keep others out meanwhile.

    The system releases the lock of a process that dies.

    Raises:
        InputError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("%s: waiting for another process that prepares it", folder)
            lock.acquire()
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error
    try:
        yield
    finally:
        lock.release()
