"""Processes of a run, started for real: they exchange values, and when one ends badly all end, with its reason."""

import os
import time
from pathlib import Path

import pytest
from rank_tasks import exchange, fail_in_the_second, lose_one_that_writes_parts

from autodrive.errors import InputError, LostRankError
from autodrive.ranks.group import Group
from autodrive.ranks.launching import RankError, run_ranks
from autodrive.runs.checkpoints import read_checkpoint

LONGEST_S = 60.0


def test_processes_tell_each_other_small_things():
    found = run_ranks(exchange, (), 2)
    assert found.pop("listening") == ({"127.0.0.1"} if Path("/proc/self/net/tcp").is_file() else set())
    assert found == {
        "rank": 0,
        "sums": [1, 20],
        "largest": [1, 10],
        "any": [True, False],
        "all": ["a", "b"],
        "first": "of 0",
        "local": True,
    }
    assert "LOCAL_RANK" not in os.environ, "the next job of a sweep starts as this one did"


def test_a_process_alone_asks_nobody():
    group = Group()
    assert group.leads
    assert (group.sums([2.0]), group.all_of(3), group.from_first(4), group.any(False)) == ([2.0], [3], 4, False)


@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        ("input", InputError, r"^clips\.jsonl line 3: this clip cannot be read; leave it out$"),
        ("disk", OSError, r"No space left on device: 'last\.ckpt'$"),
        ("bug", RankError, r"^rank 1: a mistake\nTraceback"),
    ],
)
def test_what_ends_one_process_ends_the_others_with_its_reason(how: str, kind: type[Exception], said: str):
    began = time.monotonic()
    with pytest.raises(kind, match=said):
        run_ranks(fail_in_the_second, (how,), 2)
    assert time.monotonic() - began < LONGEST_S
    assert not _children()


def test_a_kill_in_the_middle_of_a_checkpoint_s_parts_leaves_the_one_before(tmp_path: Path):
    """Also where both are of one step, as of a run that is begun again in its folder."""
    path = tmp_path / "last.ckpt"
    with pytest.raises(LostRankError, match="process 1 of 2 was killed"):
        run_ranks(lose_one_that_writes_parts, (path,), 2)
    assert read_checkpoint(path)["state_dict"]["w"].tolist() == [[1.0] * 4] * 4
    assert (tmp_path / "last-2-2.parts").is_dir(), "it was writing already"
    (one, _) = (tmp_path / "last-2.parts").iterdir()
    one.unlink()
    with pytest.raises(InputError, match=r"last-2\.parts: cannot be read as a whole \(.+\); restore it") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def _children() -> list[str]:
    """Command lines of this process's children that are ranks."""
    tasks = Path(f"/proc/{os.getpid()}/task")
    if not tasks.is_dir():
        return []
    numbers = [number for task in tasks.iterdir() for number in (task / "children").read_text().split()]
    lines = [Path(f"/proc/{number}/cmdline").read_bytes().decode() for number in numbers]
    return [line for line in lines if "spawn_main" in line]
