"""Drives stages over clips: filters what they give, remembers what is done, and writes what is kept and what is not."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import ValidationError

from autodrive.annotation.filters import Candidate, why_dropped
from autodrive.annotation.funnel import StageCount, Work, count_stages
from autodrive.annotation.stages import Dropped, Executor, Item, Outcome, Setting, Stage
from autodrive.errors import InputError, Paused
from autodrive.journal import Journal
from autodrive.schema import Annotation, read_jsonl, write_jsonl
from autodrive.whole_files import whole

# What is done is written down after so long or so much of it: each time costs a wait for the disk, and a kill repeats
# what is not written yet. Teachers that are paid for keep their replies themselves.
FLUSH_S, FLUSH_LINES = 1.0, 500


@dataclass(frozen=True)
class AnnotationFiles:
    """The files of an annotation, in their folder."""

    folder: Path

    @property
    def annotations(self) -> Path:
        """What is kept: one `Annotation` a line."""
        return self.folder / "annotations.jsonl"

    @property
    def dropped(self) -> Path:
        """What is not, with the reason: one `Dropped` a line."""
        return self.folder / "dropped.jsonl"

    @property
    def work(self) -> Path:
        """What stages have done: one `Work` a line. A killed run goes on from it."""
        return self.folder / "work.jsonl"

    @property
    def funnel(self) -> Path:
        """How many of what came to what: one `StageCount` per stage."""
        return self.folder / "funnel.json"

    @property
    def provenance(self) -> Path:
        """What it was made of."""
        return self.folder / "annotate.json"

    @property
    def page(self) -> Path:
        """Some clips with what is said of them, for people."""
        return self.folder / "annotations.html"


@dataclass
class Driver:
    """Runs stages one after the other over all clips.

    Attributes:
        stages: The stages in their order.
        setting: What they share.
        executor: Runs a stage's items.
        files: Where the files go.
        on_item: Told the stage of each item that is done, for a progress bar.
        paused: Why not all of the work is done; None if it is.
    """

    stages: Sequence[Stage]
    setting: Setting
    executor: Executor
    files: AnnotationFiles
    on_item: Callable[[str], None] = lambda stage: None
    paused: str | None = field(default=None, init=False)
    _work: list[Work] = field(default_factory=list)
    _dropped: list[Dropped] = field(default_factory=list)

    def run(self, items: Sequence[Item]) -> list[StageCount]:
        """Work through all stages, and write all files but the page and the provenance.

        What a killed run has done is not done again if its stage, its version and what it was given are the same; the
        files are those of an unbroken run. What got no reply is tried again. If a stage pauses, the files hold what is
        done by then, and later stages have no part in it.

        Args:
            items: The clips, about which nothing is annotated yet.

        Returns:
            The funnel, counted from the files.

        Raises:
            InputError: Work of another version of this program lies in the folder, or as stages do.
            OSError: The disk is full; the same command goes on.
        """
        self._work, self._dropped, self.paused = [], [], None
        kept: dict[str, list[Annotation]] = {item.clip.id: [] for item in items}
        in_hand = list(items)
        with Journal(self.files.work) as journal:
            known = self._known(journal)
            for stage in self.stages:
                if self.paused is not None:
                    break
                outcomes = dict(self._outcomes(stage, in_hand, known, journal))
                for item in in_hand:
                    if item.clip.id in outcomes:
                        self._sort(stage, item, outcomes[item.clip.id], kept[item.clip.id])
                in_hand = [replace(item, annotations=tuple(kept[item.clip.id])) for item in in_hand]
        write_jsonl(self.files.annotations, (a for item in items for a in kept[item.clip.id]))
        write_jsonl(self.files.dropped, self._dropped)
        write_jsonl(self.files.work, self._work)
        return self._count(items)

    def _known(self, journal: Journal) -> dict[tuple[str, str], Work]:
        known = {}
        for number, record in enumerate(journal.read(), 1):
            try:
                line = Work.model_validate(record, strict=False)
            except ValidationError as error:
                place = f"{journal.path}:{number}: not the work of this version ({error.errors()[0]['msg']})"
                raise InputError(f"{place}; choose another folder for out=, or remove that file") from None
            known[line.stage, line.key] = line
        return known

    def _outcomes(
        self, stage: Stage, in_hand: Sequence[Item], known: dict[tuple[str, str], Work], journal: Journal
    ) -> Iterator[tuple[str, Outcome]]:
        """The outcomes of a stage by clip id: those that are known, then those that it is run for."""
        keys: dict[str, str] = {}
        version = stage.version

        def left() -> Iterator[Item]:
            for item in stage.items(in_hand):
                keys[item.clip.id] = key = _key(version, item)
                if (stage.name, key) not in known or known[stage.name, key].outcome.failed:
                    yield item

        fresh: list[Work] = []
        flushed = time.monotonic()
        done: dict[str, Work] = {}
        to_do = left()
        try:
            for item, outcome in self.executor.map(stage.run, to_do):
                line = Work(stage=stage.name, clip_id=item.clip.id, key=keys[item.clip.id], outcome=outcome)
                done[item.clip.id] = line
                fresh.append(line)
                self.on_item(stage.name)
                if len(fresh) >= FLUSH_LINES or time.monotonic() - flushed > FLUSH_S:
                    journal.append(*(line.model_dump() for line in fresh))
                    fresh, flushed = [], time.monotonic()
        except Paused as pause:
            self.paused = str(pause)
            for _ in to_do:  # learns the keys of what lies behind the pause, of which some is known
                pass
        finally:
            journal.append(*(line.model_dump() for line in fresh))
        for item in in_hand:
            line = done.get(item.clip.id) or known.get((stage.name, keys.get(item.clip.id, "")))
            if line is not None:
                self._work.append(line)
                yield item.clip.id, line.outcome

    def _sort(self, stage: Stage, item: Item, outcome: Outcome, kept: list[Annotation]) -> None:
        """Put candidates to what is kept about the clip, or to what is dropped."""
        self._dropped += outcome.dropped
        for annotation in outcome.candidates:
            reason = why_dropped(Candidate(annotation, item, kept, self.setting))
            if reason is None:
                kept.append(annotation)
            else:
                self._dropped.append(
                    Dropped(
                        item=annotation.id,
                        reason=reason,
                        detail=f"{annotation.task}: {annotation.question} → {annotation.answer}",
                        unit="candidate",
                        stage=stage.name,
                        clip_id=item.clip.id,
                        clip_class=item.label,
                    )
                )

    def _count(self, items: Sequence[Item]) -> list[StageCount]:
        counts = count_stages(
            [stage.name for stage in self.stages],
            read_jsonl(self.files.work, Work),
            read_jsonl(self.files.annotations, Annotation),
            read_jsonl(self.files.dropped, Dropped),
            {item.clip.id: item.label for item in items},
        )
        with whole(self.files.funnel) as partial:
            partial.write_text(json.dumps([count.model_dump() for count in counts], indent=2) + "\n", encoding="utf-8")
        return counts


def _key(version: str, item: Item) -> str:
    """Identifies what an outcome follows from. Where files lie is no part of it: a data set can be moved."""
    given = [version, item.clip.road.content_hash, item.clip.start_s, item.clip.end_s, item.label]
    given += [item.facts.model_dump_json(), *(annotation.id for annotation in item.annotations)]
    return hashlib.sha256(json.dumps(given, ensure_ascii=False).encode()).hexdigest()[:16]
