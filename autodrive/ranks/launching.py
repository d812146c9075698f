"""Starts the ranks of a run on this machine and watches them: if one ends badly, all end, with its reason.

`torchrun`, `srun` and Kubernetes' operators start ranks themselves, and tell each by environment variables which it is.
"""

import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from autodrive.errors import InputError, LostRankError
from autodrive.workers import deaf_to_ctrl_c

PATIENCE = timedelta(hours=2)  # for a rank that prepares data or writes a page while the others wait
SECONDS_FOR_REASONS = 3.0  # what follows from a rank's end may be reported before its reason
SECONDS_TO_END = 10.0


@dataclass(frozen=True)
class Place:
    """Which rank a process is.

    Attributes:
        rank: Its number among all.
        size: Number of all.
        local_rank: Its number among those of its machine, which says which device is its.
    """

    rank: int
    size: int
    local_rank: int

    def announce(self, num_local: int) -> None:
        """Tell libraries, by the variables that `torchrun` sets."""
        values = {"RANK": self.rank, "WORLD_SIZE": self.size, "LOCAL_RANK": self.local_rank}
        values |= {"LOCAL_WORLD_SIZE": num_local, "NODE_RANK": self.rank // num_local}
        os.environ.update({name: str(value) for name, value in values.items()})


@contextmanager
def joined(place: Place, rendezvous: str) -> Iterator[None]:
    """Be one of the ranks meanwhile.

    Args:
        place: Which one.
        rendezvous: Where they meet, as torch has it: `env://` for the variables of a launcher, or `file://…`.
    """
    import torch
    import torch.distributed as dist

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, init_method=rendezvous, rank=place.rank, world_size=place.size, timeout=PATIENCE)
    try:
        yield
    finally:
        with suppress(RuntimeError, ValueError):  # where another one is gone
            dist.destroy_process_group()


def run_ranks(function: Callable[..., Any], arguments: Sequence[Any], num_ranks: int) -> Any:
    """Call a function in several new processes, which are the ranks of a group, and wait for them.

    Args:
        function: Can be imported, as can its arguments be pickled; called alike in every rank.
        arguments: What it is called with.
        num_ranks: How many processes.

    Returns:
        What it returns in rank 0.

    Raises:
        InputError: As it does in any rank.
        LostRankError: A rank was killed from outside, or ended in the middle of its work.
        RankError: It raises something else in a rank.
        KeyboardInterrupt: The user stopped it; the ranks, which do not hear it, are ended.
    """
    context = multiprocessing.get_context("spawn")  # a forked copy of a process with threads can deadlock
    with tempfile.TemporaryDirectory() as folder:
        ranks: list[_Rank] = []
        try:
            with deaf_to_ctrl_c():
                for number in range(num_ranks):
                    here, there = context.Pipe(duplex=False)
                    place, meeting = Place(number, num_ranks, number), f"file://{folder}/rendezvous"
                    process = context.Process(target=_be_rank, args=(there, place, meeting, function, arguments))
                    process.start()
                    there.close()
                    ranks.append(_Rank(process, here))
            return _watched(ranks)
        finally:
            _end(ranks)


class RankError(Exception):
    """Something unforeseen in a rank; its message is the traceback there."""


class _End(NamedTuple):
    """How a rank ended: when, on the clock that all processes of a machine share, and with which result or error."""

    moment_s: float
    raised: bool
    value: Any


@dataclass
class _Rank:
    """A rank as the process that started it sees it.

    Attributes:
        process: The process.
        reports: From which it says how it ended.
        report: What it said.
    """

    process: BaseProcess
    reports: Connection
    report: "_End | None" = None

    def listen(self) -> None:
        """Take its report, if there is one."""
        with suppress(EOFError, OSError):
            if self.report is None and self.reports.poll():
                self.report = self.reports.recv()


def _watched(ranks: Sequence[_Rank]) -> Any:
    """Wait until all have ended, or one has ended badly; what rank 0 returned."""
    running = list(ranks)
    while running:
        wait([rank.process.sentinel for rank in running] + [rank.reports for rank in running if rank.report is None])
        for rank in running:
            rank.listen()
        if any((rank.report and rank.report.raised) or _is_lost(rank) for rank in ranks):
            raise _reason(ranks)
        running = [rank for rank in running if rank.process.is_alive()]
    assert ranks[0].report is not None
    return ranks[0].report.value


def _is_lost(rank: _Rank) -> bool:
    if rank.process.is_alive():
        return False
    rank.listen()  # it may have reported just before
    return rank.report is None


def _reason(ranks: Sequence[_Rank]) -> BaseException:
    """Why the run cannot go on: a rank that was killed, or wrong input; the others then fail in what they share."""
    for rank in ranks:
        rank.process.join(SECONDS_FOR_REASONS / len(ranks))
        rank.listen()
    for number, rank in enumerate(ranks):
        if not rank.process.is_alive() and rank.report is None:
            return LostRankError(number, len(ranks), _how_it_ended(rank.process.exitcode or 0))
    raised = sorted((rank.report for rank in ranks if rank.report and rank.report.raised), key=lambda end: end.moment_s)
    errors = [end.value for end in raised]
    return next((error for error in errors if isinstance(error, InputError)), errors[0])


def _how_it_ended(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed (SIGKILL), as the system does where memory runs out"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _end(ranks: Sequence[_Rank]) -> None:
    """End those that are still at work."""
    for rank in ranks:
        if rank.process.is_alive():
            rank.process.terminate()
    for rank in ranks:
        rank.process.join(SECONDS_TO_END)
        if rank.process.is_alive():
            rank.process.kill()
            rank.process.join()
        rank.reports.close()


def _be_rank(
    reports: Connection, place: Place, rendezvous: str, function: Callable[..., Any], arguments: Sequence[Any]
) -> None:
    """What a rank does from its first line to its last."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    place.announce(place.size)
    try:
        with joined(place, rendezvous):
            try:
                end = _End(time.monotonic(), False, function(*arguments))
            except BaseException as error:
                # Before the group is left, since that makes the others fail as well; and left at once, since threads of
                # a library may wait for ranks that are gone.
                reports.send(_failure(place, error))
                os._exit(1)
    except BaseException as error:  # where they meet
        end = _failure(place, error)
    reports.send(end)
    reports.close()


def _failure(place: Place, error: BaseException) -> "_End":
    if isinstance(error, InputError):
        return _End(time.monotonic(), True, error)
    import traceback

    return _End(time.monotonic(), True, RankError(f"rank {place.rank}: {error}\n{traceback.format_exc()}"))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
