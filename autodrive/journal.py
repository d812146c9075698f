"""Append-only files for work that can be interrupted: what was appended is on the disk, whatever happens next."""

import json
import os
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from autodrive.errors import InputError


class Journal:
    """A JSON Lines file that is read back before the work goes on.

    Everything that resumes uses one: scans of videos, replies of teachers, decisions of reviewers. A process that is
    killed while it appends leaves at most a last line without its end; that line was never reported as done, so it is
    dropped and its item is worked on again. One process at a time may append.

    Example:
        >>> with Journal(path) as journal:
        ...     done = {record["item"] for record in journal.read()}
        ...     journal.append({"item": "a.mp4", "outcome": "usable"})
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: FileIO | None = None

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield every whole record, oldest first; none if the file does not exist.

        Raises:
            InputError: A line before the last one is not a JSON object, so something else wrote to the file.
        """
        if not self.path.is_file():
            return
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    return
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    record = None
                if not isinstance(record, dict):
                    raise InputError(f"{self.path}:{number}: not a JSON object; remove that line")
                yield record

    def append(self, *records: Mapping[str, Any]) -> None:
        """Write records; all of them are on the disk when this returns. Several at once cost one wait for the disk.

        Raises:
            OSError: The disk is full; the next time, what was appended before is read back.
        """
        assert self._file is not None, "a journal is appended to inside its with block"
        try:
            rest = memoryview("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode())
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def __enter__(self) -> "Journal":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            self._drop_torn_line(file)
        # Unbuffered: closing must not try again to write what a full disk refused.
        self._file = self.path.open("ab", buffering=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()
        self._file = None

    @staticmethod
    def _drop_torn_line(file: BinaryIO) -> None:
        # The next record would be glued to what a killed process left, and both would be lost.
        file.seek(0)
        end = 0
        for line in file:
            if line.endswith(b"\n"):
                end += len(line)
        file.truncate(end)
        file.seek(end)
