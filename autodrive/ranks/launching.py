"""Starts the ranks of a run on this machine and watches them: if one ends badly, all end, with its reason.

`torchrun`, `srun` and Kubernetes' operators start ranks themselves, and tell each by environment variables which it is.
"""

import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

from autodrive.errors import LostRankError, told_in_a_line
from autodrive.workers import End, Worker, deaf_to_ctrl_c, end_now, end_with_parent, wait_for_any

PATIENCE = timedelta(hours=2)  # for a rank that prepares data or writes a page while the others wait
SECONDS_FOR_REASONS = 3.0  # what follows from a rank's end may be reported before its reason


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
        OSError: The same, where a rank had no room or no permission to write.
        LostRankError: A rank was killed from outside, or ended in the middle of its work.
        RankError: It raises something else in a rank.
        KeyboardInterrupt: The user stopped it; the ranks, which do not hear it, are ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        ranks: list[Worker] = []
        try:
            with deaf_to_ctrl_c():
                for number in range(num_ranks):
                    place, meeting = Place(number, num_ranks, number), f"file://{folder}/rendezvous"
                    ranks.append(Worker.start(_be_rank, place, meeting, function, arguments))
            return _watched(ranks)
        finally:
            end_now(ranks)


class RankError(Exception):
    """Something unforeseen in a rank; its message is the traceback there."""


def _watched(ranks: Sequence[Worker]) -> Any:
    """Wait until all have ended, or one has ended badly; what rank 0 returned."""
    running = list(ranks)
    while running:
        wait_for_any(running)
        if any((rank.end and rank.end.raised) or rank.is_lost() for rank in ranks):
            raise _reason(ranks)
        running = [rank for rank in running if rank.process.is_alive()]
    assert ranks[0].end is not None
    return ranks[0].end.value


def _reason(ranks: Sequence[Worker]) -> BaseException:
    """Why the run cannot go on: a rank that was killed, or wrong input; the others then fail in what they share."""
    for rank in ranks:
        rank.process.join(SECONDS_FOR_REASONS / len(ranks))
        rank.listen()
    for number, rank in enumerate(ranks):
        if rank.is_lost():
            return LostRankError(number, len(ranks), rank.how_it_ended())
    raised = sorted((rank.end for rank in ranks if rank.end and rank.end.raised), key=lambda end: end.moment_s)
    errors = [end.value for end in raised]
    return next((error for error in errors if not isinstance(error, RankError)), errors[0])


def _be_rank(
    reports: Connection, place: Place, rendezvous: str, function: Callable[..., Any], arguments: Sequence[Any]
) -> None:
    """What a rank does from its first line to its last."""
    end_with_parent()
    place.announce(place.size)
    loopback = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    if loopback:  # gloo would listen where the machine's name leads to, for others to reach
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback[0])
    try:
        with joined(place, rendezvous):
            try:
                end = End.now(function(*arguments))
            except BaseException as error:
                # Before the group is left, since that makes the others fail as well; and left at once, since threads of
                # a library may wait for ranks that are gone.
                reports.send(_failure(place, error))
                os._exit(1)
    except BaseException as error:  # where they meet
        end = _failure(place, error)
    reports.send(end)
    reports.close()


def _failure(place: Place, error: BaseException) -> End:
    told = told_in_a_line(error)
    if told is not None:
        return End.now(told, raised=True)
    import traceback

    return End.now(RankError(f"rank {place.rank}: {error}\n{traceback.format_exc()}"), raised=True)
