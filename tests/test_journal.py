"""A journal in a process that is killed while it writes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autodrive.errors import InputError
from autodrive.journal import Journal

WRITER = """
import sys
from pathlib import Path
from autodrive.journal import Journal
with Journal(Path(sys.argv[1])) as journal:
    done = sum(1 for _ in journal.read())
    for number in range(done, 10**9):
        journal.append({"number": number, "text": "é" * 500})
        print(number, flush=True)
"""


def test_what_was_appended_is_there_after_kills(tmp_path: Path, repository: Path):
    path = tmp_path / "journal.jsonl"
    reported = -1
    for _ in range(4):
        command = [sys.executable, "-c", WRITER, str(path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=repository)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read().split()
        process.wait()
        reported = max([reported, *map(int, rest)])
        numbers = [record["number"] for record in Journal(path).read()]
        assert numbers == list(range(len(numbers)))  # nothing lost, nothing twice
        assert len(numbers) > reported


def test_a_torn_last_line_is_dropped_before_the_next_record(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"item": 1}\n{"item": 2, "text": "\xc3')
    assert list(Journal(path).read()) == [{"item": 1}]
    with Journal(path) as journal:
        journal.append({"item": 2})
        assert list(journal.read()) == [{"item": 1}, {"item": 2}]
    assert path.read_bytes() == b'{"item": 1}\n{"item": 2}\n'


def test_a_line_that_something_else_wrote_is_named(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"item": 1}\nnotes\n{"item": 2}\n')
    with pytest.raises(InputError, match=r"journal\.jsonl:2: not a JSON object; remove that line"):
        list(Journal(path).read())


def test_a_journal_that_does_not_exist_yet_is_empty(tmp_path: Path):
    assert list(Journal(tmp_path / "none.jsonl").read()) == []
