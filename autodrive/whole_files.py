"""Files and folders that are there whole or not at all, whatever stops the process that writes them."""

import glob
import itertools
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_numbers = itertools.count()  # of what this process has begun to write
_begun: set[str] = set()  # names of it: after a restart, a container's process may have the number of one before it
OWNER = re.compile(r".+\.(?P<machine>[^.]*)-(?P<process>\d+)-\d+\.partial")
SECONDS_OF_A_DAY = 86_400
SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")  # how libraries in Rust, such as safetensors, pass one on


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Write a file or folder under the name that this gives; it takes the place of `path` when the block ends well.

    The name is beside `path`: a rename within a folder happens at once, where one from another disk is a copy that a
    full disk or a kill cuts off. It is this writer's own: of several that write one file at once, the last one's stays.
    What a process that was killed has left is removed by the next one.

    Raises:
        OSError: It cannot be written; what lay at `path` is untouched. Libraries that say so in errors of their own are
            translated.
    """
    partial = path.with_name(f".{path.name}.{_machine()}-{os.getpid()}-{next(_numbers)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
            if _is_abandoned(other):
                _remove(other)
        _begun.add(partial.name)
        yield partial
        for written in [partial] if partial.is_file() else sorted(partial.rglob("*")):
            _flush(written)
        if path.is_dir():  # only an empty folder can be replaced
            shutil.rmtree(path)
        partial.replace(path)
    except Exception as error:
        _remove(partial)
        number = _system_error(error)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error
    except BaseException:
        _remove(partial)
        raise


def _machine() -> str:
    return platform.node().replace(".", "-")


def _is_abandoned(partial: Path) -> bool:
    """Whether nobody is at work on it: its process is gone or, where that cannot be asked, it was left for a day."""
    owner = OWNER.fullmatch(partial.name)
    try:
        if owner is None:
            return False
        if (owner["machine"], owner["process"]) == (_machine(), str(os.getpid())):
            return partial.name not in _begun
        if owner["machine"] == _machine() and os.name == "posix":
            os.kill(int(owner["process"]), 0)  # sends nothing
            return False
        return time.time() - partial.stat().st_mtime > SECONDS_OF_A_DAY
    except ProcessLookupError:
        return True
    except OSError:  # another user's process, or its owner has just finished
        return False


def _flush(path: Path) -> None:
    """Wait until a file is on the disk, which is when some file systems find that it does not fit."""
    if path.is_file():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _system_error(error: BaseException) -> int | None:
    """The system's number for what went wrong; torch and safetensors hide it in errors of their own."""
    if isinstance(error, OSError):
        return error.errno
    if isinstance(error, RuntimeError) and isinstance(
        error.__context__, OSError
    ):  # torch's writer fails once more while it closes the file
        return error.__context__.errno
    said = SYSTEM_ERROR.search(str(error))
    return int(said[1]) if said else None
