"""Stages are driven over clips: what is done is remembered, everything is counted, and no order of threads is seen."""

import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from annotation_samples import scenes, shipped_setting, shipped_teacher

from autodrive.annotation.driver import AnnotationFiles, Driver
from autodrive.annotation.funnel import Work, count_stages
from autodrive.annotation.stages import Dropped, Item, Outcome, Setting
from autodrive.errors import InputError
from autodrive.executors import LocalExecutor
from autodrive.journal import Journal
from autodrive.schema import Annotation, read_jsonl


@pytest.fixture(scope="module")
def setting() -> Setting:
    return shipped_setting()


@pytest.fixture(scope="module")
def items(setting: Setting) -> list[Item]:
    return [Item.of(clip, setting.labels) for clip in scenes(8)]


@dataclass
class Flaky:
    """A stage like a teacher's: some requests fail, some replies cannot be read, some answers are false.

    Attributes:
        name: Its name.
        version: Its version.
        done: The clips it worked on, in this process.
        stop_after: Fails for good at this many clips.
    """

    name: str = "flaky"
    version: str = "1"
    done: list[str] = field(default_factory=list)
    stop_after: int = 10**9

    def items(self, in_hand: Sequence[Item]) -> Iterator[Item]:
        yield from in_hand[1:]

    def run(self, item: Item) -> Outcome:
        if len(self.done) >= self.stop_after:
            raise InputError("the server refuses the key")
        self.done.append(item.clip.id)
        time.sleep(0.001 * (hash(item.clip.id) % 4))
        number = int(item.clip.id[:4])
        row = {"stage": self.name, "clip_id": item.clip.id, "clip_class": item.label}
        failed = Dropped(item=item.clip.id, reason="timeout", unit="request", **row)
        if number % 4 == 0:
            return Outcome(requests=1, failed=1, dropped=(failed,))
        if number % 4 == 1:
            unread = Dropped(item=item.clip.id, reason="not_json", unit="reply", **row)
            return Outcome(requests=2, failed=1, replies=1, unparsable=1, dropped=(failed, unread))
        said = ("There is a road.", "There is a road.", "It hits a tree.", "The ego vehicle hits a van.")
        pairs = tuple(Annotation.create(item.clip.id, "vqa", "What is there?", text, "openai:x@y") for text in said)
        return Outcome(candidates=pairs, requests=1, replies=1)


def driven(out: Path, setting: Setting, items: Sequence[Item], stages: Sequence | None = None, **how):
    executor = LocalExecutor(**how)
    stages = stages or [*shipped_teacher().stages(setting), Flaky()]
    return Driver(stages, setting, executor, AnnotationFiles(out)).run(items)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_line_of_the_funnel_is_found_in_the_files(tmp_path: Path, setting: Setting, items: list[Item]):
    counts = driven(tmp_path, setting, items)
    lines = {
        name: [json.loads(line) for line in (tmp_path / f"{name}.jsonl").open()]
        for name in ("annotations", "dropped", "work")
    }
    assert json.loads((tmp_path / "funnel.json").read_text()) == [count.model_dump() for count in counts]
    assert sum(count.kept for count in counts) == len(lines["annotations"])
    for count in counts:
        work = [line for line in lines["work"] if line["stage"] == count.stage]
        dropped = [line for line in lines["dropped"] if line["stage"] == count.stage]
        assert count.requests == sum(line["outcome"]["requests"] for line in work) == count.replies + count.failed
        assert count.replies == count.parsed + count.unparsable
        assert (
            count.candidates == sum(len(line["outcome"]["candidates"]) for line in work) == count.kept + count.dropped
        )
        for unit, number in (("request", count.failed), ("reply", count.unparsable), ("candidate", count.dropped)):
            assert number == sum(line["unit"] == unit for line in dropped)
        assert sum(share.kept for share in count.by_class.values()) == count.kept
        assert sum(share.candidates for share in count.by_class.values()) == count.candidates
        assert sum(count.reasons.values()) == len(dropped)
    flaky = counts[-1]
    assert (flaky.clips, flaky.failed, flaky.unparsable) == (len(items) - 1, 11, 6)
    assert flaky.reasons["candidate duplicate"] == 12
    # A lie about contact is one only where there was none; the tree is nobody's business.
    assert flaky.reasons["candidate contradicts_truth: contact"] == 16
    assert flaky.by_class["collision"].kept > flaky.by_class["normal"].kept == 4


def test_threads_leave_the_same_files(tmp_path: Path, setting: Setting, items: list[Item]):
    driven(tmp_path / "one", setting, items)
    driven(tmp_path / "many", setting, items, concurrency=5)
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


def test_what_is_done_is_not_done_again(tmp_path: Path, setting: Setting, items: list[Item]):
    driven(tmp_path / "whole", setting, items)
    rules = list(shipped_teacher().stages(setting))
    refused = Flaky(stop_after=9)
    with pytest.raises(InputError, match="refuses the key"):
        driven(tmp_path / "broken", setting, items, [*rules, refused], concurrency=3)
    assert len(refused.done) == 9
    assert not (tmp_path / "broken" / "annotations.jsonl").exists()
    going_on = Flaky()
    driven(tmp_path / "broken", setting, items, [*rules, going_on])
    # What got no reply is tried again, and nothing else.
    unanswered = {item.clip.id for item in items[1:] if int(item.clip.id[:4]) % 4 < 2}
    first = {item.clip.id for item in items[1:]} - set(refused.done)
    assert sorted(going_on.done) == sorted(first | (unanswered & set(refused.done)))
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")
    again, changed, moved = Flaky(), Flaky(version="2"), Flaky()
    driven(tmp_path / "broken", setting, items, [*rules, again])
    assert set(again.done) == unanswered
    driven(tmp_path / "broken", setting, items, [*rules, changed])
    assert len(changed.done) == len(items) - 1
    others = [
        replace(items[0], annotations=()),
        *(replace(item, clip=item.clip.model_copy(update={"start_s": 1.0})) for item in items[1:]),
    ]
    driven(tmp_path / "broken", setting, others, [moved])
    assert len(moved.done) == len(items) - 1  # it is another window now


def test_a_later_stage_is_told_what_earlier_ones_kept(tmp_path: Path, setting: Setting, items: list[Item]):
    told: dict[str, list[str]] = {}

    @dataclass
    class Listening(Flaky):
        name: str = "listening"

        def run(self, item: Item) -> Outcome:
            told[item.clip.id] = [annotation.answer for annotation in item.annotations]
            return Outcome()

    driven(tmp_path, setting, items, [Flaky(), Listening()])
    kept = read_jsonl(tmp_path / "annotations.jsonl", Annotation)
    assert {id_: answers for id_, answers in told.items() if answers} == {
        clip_id: [a.answer for a in kept if a.clip_id == clip_id] for clip_id in dict.fromkeys(a.clip_id for a in kept)
    }
    assert any("It hits a tree." in answers for answers in told.values())


def test_an_executor_is_bounded_and_gives_what_is_under_way_before_it_fails(items: list[Item]):
    lock, working, most, begun = threading.Lock(), [0], [0], [0]

    def work(item: Item) -> Outcome:
        with lock:
            working[0] += 1
            begun[0] += 1
            most[0] = max(most[0], working[0])
        time.sleep(0.01)
        with lock:
            working[0] -= 1
        if item is items[5]:
            raise InputError("enough")
        return Outcome()

    given: list[Item] = []
    with pytest.raises(InputError, match="enough"):
        given.extend(item for item, _ in LocalExecutor("threads", 3).map(work, items))
    assert most[0] == 3
    assert len(given) == begun[0] - 1 < len(items)
    with pytest.raises(InputError, match="enough"):
        list(LocalExecutor().map(work, items))


def test_other_processes_say_the_same(setting: Setting, items: list[Item]):
    """Rules hold lambdas, which must get there."""
    rules = shipped_teacher().stages(setting)[3]
    row = {"item": "", "reason": "", "unit": "candidate", "stage": "", "clip_id": "", "clip_class": None}

    def elsewhere(item: Item) -> Outcome:
        told = Dropped.model_validate({**row, "detail": str(os.getpid())})
        return rules.run(item).model_copy(update={"dropped": (told,)})

    work = list(rules.items(items))[:6]
    found = {item.clip.id: outcome for item, outcome in LocalExecutor("processes", 2).map(elsewhere, work)}
    assert {item.clip.id: rules.run(item).candidates for item in work} == {k: o.candidates for k, o in found.items()}
    assert all(outcome.dropped[0].detail != str(os.getpid()) for outcome in found.values())


def test_files_of_different_runs_do_not_add_up(tmp_path: Path, setting: Setting, items: list[Item]):
    driven(tmp_path, setting, items)
    files = AnnotationFiles(tmp_path)
    work, kept, dropped = (
        read_jsonl(files.work, Work),
        read_jsonl(files.annotations, Annotation),
        read_jsonl(files.dropped, Dropped),
    )
    names = list(dict.fromkeys(line.stage for line in work))
    classes = {item.clip.id: item.label for item in items}
    assert count_stages(names, work, kept, dropped, classes)
    with pytest.raises(ValueError, match="do not add up"):
        count_stages(names, work, kept[1:], dropped, classes)
    with pytest.raises(ValueError, match="are of no stage"):
        count_stages(names[1:], work, kept, dropped, classes)


def test_a_folder_with_work_of_another_version_is_refused(tmp_path: Path, setting: Setting, items: list[Item]):
    with Journal(tmp_path / "work.jsonl") as journal:
        journal.append({"stage": "mcq"})
    with pytest.raises(InputError, match=r"work\.jsonl:1: not the work of this version .*choose another folder"):
        driven(tmp_path, setting, items)
