"""Scanning many files: in parallel, with progress, and without scanning a file twice after an interruption."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from pydantic import ValidationError

from autodrive.journal import Journal
from autodrive.schema import Record
from autodrive.video.container import UnusableVideo
from autodrive.video.preflight import VideoInfo, scan

# Raised when the rules of the scan change, so that results of older rules are not used again.
SCAN_RULES = 1
# What a user can put right without changing the file: such a result is not kept.
OUTSIDE_REASONS = ("missing", "unreadable")


class ScanResult(Record):
    """A line of scan_cache.jsonl: what the scan found in a file of this size and modification time."""

    path: str
    size: int
    mtime_ns: int
    rules: int = SCAN_RULES
    info: VideoInfo | None = None
    reason: str = ""
    detail: str = ""

    @property
    def key(self) -> tuple[str, int, int, int]:
        """What must be unchanged for the result to hold."""
        return (self.path, self.size, self.mtime_ns, self.rules)


class ScanCache:
    """Results of `scan` in a journal that is appended to after every file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_reused = 0
        self._known: dict[tuple[str, int, int, int], ScanResult] = {}
        for record in Journal(path).read():
            try:
                result = ScanResult.model_validate(record)
            except ValidationError:
                continue  # of an older format: that file is scanned again
            self._known[result.key] = result

    def scan_all(
        self, paths: Iterable[Path], num_workers: int, advance: Callable[[int], None] = lambda count: None
    ) -> dict[Path, ScanResult]:
        """Scan files that are not in the cache yet.

        Args:
            paths: Absolute paths of the video files to scan.
            num_workers: Threads; decoding and hashing leave the interpreter free.
            advance: Called with the number of files finished since the last call.

        Returns:
            A result for every path, usable or not.
        """
        results: dict[Path, ScanResult] = {}
        pending: list[Path] = []
        for path in dict.fromkeys(paths):
            known = self._known.get(_unscanned(path).key)
            if known is None:
                pending.append(path)
            else:
                results[path] = known
        self.num_reused = len(results)
        advance(len(results))
        pool = ThreadPoolExecutor(num_workers)
        try:
            with Journal(self.path) as journal:
                futures = {pool.submit(_scan_one, path): path for path in pending}
                for future in as_completed(futures):
                    result = future.result()
                    results[futures[future]] = result
                    if result.reason not in OUTSIDE_REASONS:
                        journal.append(result.model_dump())
                    advance(1)
        finally:
            pool.shutdown(cancel_futures=True)
        return results


def _unscanned(path: Path) -> ScanResult:
    try:
        stat = os.stat(path)
    except OSError:
        return ScanResult(path=str(path), size=-1, mtime_ns=-1)
    return ScanResult(path=str(path), size=stat.st_size, mtime_ns=stat.st_mtime_ns)


def _scan_one(path: Path) -> ScanResult:
    blank = _unscanned(path)
    try:
        return blank.model_copy(update={"info": scan(path)})
    except UnusableVideo as error:
        return blank.model_copy(update={"reason": error.reason, "detail": error.detail})
