"""What processes are given to do by tests of how they are started and watched; each imports this file anew."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autodrive.errors import InputError
from autodrive.ranks.group import this_group


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


def train_and_compare(strategies: Sequence[str], folder: Path) -> dict[str, Any]:
    """What tests/two_processes.py does, which takes seconds to import: the process that starts the two need not."""
    import two_processes

    return two_processes.train_and_compare(strategies, folder)
