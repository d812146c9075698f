"""What processes are given to do by tests of how they are started and watched; each imports this file anew."""

import errno
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autodrive.errors import InputError
from autodrive.ranks.group import this_group


def listening_at() -> set[str]:
    """IPv4 addresses at which this process waits for connections; none where the system is not Linux."""
    if not Path("/proc/self/net/tcp").is_file():
        return set()
    sockets = {os.readlink(fd.path) for fd in os.scandir("/proc/self/fd") if os.path.islink(fd.path)}
    found = set()
    for row in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_, inode = row.split()[:10]
        if state == "0A" and f"socket:[{inode}]" in sockets:
            found.add(socket.inet_ntoa(bytes.fromhex(local.partition(":")[0])[::-1]))
    return found


def exchange() -> dict[str, object]:
    """What two processes tell each other."""
    group = this_group()
    mine = [group.rank, 10.0]
    return {
        "rank": group.rank,
        "sums": group.sums(mine),
        "largest": group.largest(mine),
        "any": [group.any(group.rank == 1), group.any(False)],
        "all": group.all_of("ab"[group.rank]),
        "first": group.from_first(f"of {group.rank}"),
        "listening": listening_at(),
        "local": os.environ["LOCAL_RANK"] == str(group.rank) and os.environ["LOCAL_WORLD_SIZE"] == "2",
    }


def fail_in_the_second(how: str) -> None:
    """The second process ends as it is told to; the first one waits for it, as it would in a step."""
    group = this_group()
    group.wait()
    if group.rank == 1:
        if how == "input":
            raise InputError("clips.jsonl line 3: this clip cannot be read; leave it out")
        if how == "disk":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "last.ckpt")
        raise ZeroDivisionError("a mistake")
    group.wait()


def lose_one_that_writes_parts(path: Path) -> None:
    """A checkpoint in parts, and another one of the same step, in whose middle the second process is killed."""
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    from autodrive.runs.parts import write_parts

    def kill(event: str, arguments: tuple) -> None:
        if event == "open" and path.stem in str(arguments[0]) and "w" in str(arguments[1]):
            os.kill(os.getpid(), signal.SIGKILL)

    mesh, group = init_device_mesh("cpu", (2,)), this_group()
    for value in (1.0, 2.0):
        if value == 2 and group.rank == 1:
            sys.addaudithook(kill)
        state = {key: {} for key in ("callbacks", "loops", "inputs")} | {"optimizer_states": [], "lr_schedulers": []}
        weights = {"w": distribute_tensor(torch.full((4, 4), value), mesh, [Shard(0)])}
        rest = write_parts(state | {"state_dict": weights, "global_step": 2}, path)
        if group.leads:
            torch.save(rest, path)
        group.wait()


def train_and_compare(strategies: Sequence[str], folder: Path) -> dict[str, Any]:
    """What tests/two_processes.py does, which takes seconds to import: the process that starts the two need not."""
    import two_processes

    return two_processes.train_and_compare(strategies, folder)
