"""Text files that people bring: read line by line, or refused in one line where they are no text."""

import codecs
from collections.abc import Iterator
from pathlib import Path

from autodrive.errors import InputError

# Longer than any line of ours by far: what holds it is no text, and reading on could take all memory.
MAX_LINE_BYTES = 2**25
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def text_lines(path: Path, fix: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 file with their numbers, from 1; a byte-order mark is left out.

    Args:
        path: A text file that the user brought.
        fix: What to do about a file in another encoding, for the error.

    Raises:
        InputError: The file is not there, is no file, cannot be read, is not UTF-8 (the line is named), or has a line
            that is too long to be text.
    """
    try:
        if not path.is_file():
            what = "is a folder, not a file" if path.is_dir() else "is not a file" if path.exists() else "no such file"
            raise InputError(f"{path}: {what}; fix the path")
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                yield number, _decoded(path, number, line, fix)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); make it readable") from error


def _decoded(path: Path, number: int, line: bytes, fix: str) -> str:
    if number == 1 and line.startswith(_UTF16_MARKS):
        raise InputError(f"{path}: UTF-16, not UTF-8; {fix}")
    if b"\0" in line:
        raise InputError(f"{path}:{number}: holds NUL bytes, so it is UTF-16 or no text at all; {fix}")
    if len(line) > MAX_LINE_BYTES:
        raise InputError(f"{path}:{number}: a line of more than {MAX_LINE_BYTES // 2**20} MiB; this is no such file")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}:{number}: not UTF-8 (byte 0x{line[error.start]:02x}); {fix}") from None
    return text.removeprefix("\ufeff") if number == 1 else text
