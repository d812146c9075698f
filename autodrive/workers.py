"""Processes that this one starts, as it sees them: what they report, how they ended, and that none outlives it."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

SECONDS_TO_END = 10.0


class End(NamedTuple):
    """How a process ended, as it reports it itself.

    Attributes:
        moment_s: When, on the clock that all processes of a machine share.
        raised: Whether its work failed.
        value: The result, or the exception.
    """

    moment_s: float
    raised: bool
    value: Any

    @classmethod
    def now(cls, value: Any, *, raised: bool = False) -> "End":
        """An end at this moment."""
        return cls(time.monotonic(), raised, value)


@dataclass
class Worker:
    """A process that was started for one piece of work.

    Attributes:
        process: The process.
        reports: From which it says how it ended.
        end: What it said.
    """

    process: BaseProcess
    reports: Connection
    end: End | None = None

    @classmethod
    def start(cls, work: Callable[..., None], *arguments: Any) -> "Worker":
        """Call a function in a new process.

        Args:
            work: Can be imported. Its first argument is where it sends its `End`; it calls `end_with_parent` first.
            arguments: Its others, which can be pickled.
        """
        context = multiprocessing.get_context("spawn")  # a forked copy of a process with threads can deadlock
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(there, *arguments))
        process.start()
        there.close()
        return cls(process, here)

    def listen(self) -> None:
        """Take its report, if there is one."""
        with suppress(EOFError, OSError):
            if self.end is None and self.reports.poll():
                self.end = self.reports.recv()

    def is_lost(self) -> bool:
        """Whether it has ended without a report."""
        if self.process.is_alive():
            return False
        self.listen()  # it may have reported just before
        return self.end is None

    def how_it_ended(self) -> str:
        """How one that is lost ended, in words that follow its name."""
        code = self.process.exitcode or 0
        if code == -signal.SIGKILL:
            return "was killed (SIGKILL), as the system does where memory runs out"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def wait_for_any(workers: Sequence[Worker]) -> None:
    """Wait until one of these, all of which are running, has reported or ended; and take all reports."""
    wait([worker.process.sentinel for worker in workers] + [w.reports for w in workers if w.end is None])
    for worker in workers:
        worker.listen()


def end_now(workers: Sequence[Worker]) -> None:
    """End those that are still at work."""
    for worker in workers:
        if worker.process.is_alive():
            worker.process.terminate()
    for worker in workers:
        worker.process.join(SECONDS_TO_END)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.reports.close()


def end_with_parent() -> None:
    """Let this process end, from now on, as soon as the one that has started it does."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Processes that are started meanwhile do not notice Ctrl-C, which reaches every process of a terminal.

    The one that started them does, and ends them; each of them would print a traceback of its own, even while it
    imports. A Ctrl-C in the meantime is delivered afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # else the first worker starts it, and that makes this process hear again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children inherit the mask
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_workers() -> None:
    """End the processes that this one has started, at once: what they work at is not wanted any more."""
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would raise where a worker ends
    for worker in multiprocessing.active_children():
        worker.kill()
