"""Files and folders that are there whole or not at all, whatever stops the process that writes them."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")  # how libraries in Rust, such as safetensors, pass one on


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Write a file or folder under the name that this gives; it takes the place of `path` when the block ends well.

    The name is beside `path`: a rename within a folder happens at once, where one from another disk is a copy that a
    full disk or a kill cuts off.

    Raises:
        OSError: It cannot be written; what lay at `path` is untouched. Libraries that say so in errors of their own are
            translated.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)  # of a process that was killed
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
