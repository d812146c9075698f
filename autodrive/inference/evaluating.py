"""Evaluates whoever is asked on one split, in all inference modes, and leaves everything in the run folder."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from autodrive.annotation.supply import AnnotatedClip
from autodrive.counted import counted
from autodrive.errors import InputError
from autodrive.inference.answering import Samples, beside_references
from autodrive.inference.probes import probe
from autodrive.mixture.clip_batches import FrameReader, Show
from autodrive.mixture.run_data import RunData
from autodrive.ranks.group import Group
from autodrive.runs.folder import RunFiles
from autodrive.schema import Mode, Prediction, ProbeName, Reply, SetAside, Split, write_jsonl
from autodrive.tasks.looking import probe_losses, sampled_scores
from autodrive.tasks.scorecard import scorecard, slice_scores
from autodrive.whole_files import whole

RETENTION = "retention"
BEFORE = "retention_before"
NO_SAMPLES = Samples()


@dataclass(frozen=True)
class Asking:
    """How clips are asked about.

    Attributes:
        modes: Inference modes in which every question is asked.
        show: What is shown of a clip; None: its video.
        samples: Replies that are drawn beside the most probable ones.
    """

    modes: tuple[Mode, ...]
    show: Show | None = None
    samples: Samples = NO_SAMPLES


class Answerer(Protocol):
    """Who is asked."""

    @property
    def reader(self) -> FrameReader:
        """Reads clips the way it is shown them."""
        ...

    @property
    def unanswered(self) -> Sequence[SetAside]:
        """Requests that got no reply so far, with the reason."""
        ...

    def frames_of(self, clip_id: str) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """What it is shown of a clip; see `frames_for_people`."""
        ...

    def facts(self) -> dict[str, Any]:
        """What `provenance.json` says of the asking."""
        ...

    def replies(self, clips: Sequence[AnnotatedClip], asking: Asking, on_clips: Callable[[int], None]) -> list[Reply]:
        """Ask all questions about some clips.

        Args:
            clips: The clips with their questions; of the answers nothing is shown.
            asking: How they are asked.
            on_clips: Told how many clips were done, for a progress bar.

        Returns:
            Replies in any order; where a request failed there is none. On the first of several processes, all that
            were given.
        """
        ...


@dataclass(frozen=True)
class Exam:
    """What is asked.

    Attributes:
        split: The split whose clips are asked about; its name begins the metrics' keys.
        modes: Inference modes in which every question is asked.
        slices: Keys of the clips' metadata, for whose values the headline task is scored apart.
        probes: Under what else the questions are asked, in the first of the modes; see `probes`.
        samples: Replies that are drawn, several to each question.
        seed: Seed of the probes.
        group: The processes that share the questions.
    """

    split: Split
    modes: tuple[Mode, ...]
    slices: tuple[str, ...] = ()
    probes: tuple[ProbeName, ...] = ()
    samples: Samples = NO_SAMPLES
    seed: int = 0
    group: Group = field(default_factory=Group)


def evaluate(
    answerer: Answerer,
    data: RunData,
    exam: Exam,
    files: RunFiles,
    before: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, float]:
    """Ask every question of a split, write `predictions.jsonl`, `annotations.jsonl`, `dropped.jsonl`, `metrics.json`.

    Processes that share the questions are each asked whole batches, so that all replies are those of one process.

    Args:
        answerer: Who is asked.
        data: The clips with their questions.
        exam: What is asked.
        files: Where everything is left.
        before: Metrics that are known already, kept beside the others.

    Returns:
        The metrics: for the split `test` keyed `test/…` for direct answers and `test_reasoning/…` for reasoning mode,
        `test_blind/…` for a probe of that name, and `retention/…` where there are questions of retention;
        `test/failed_requests` is the number of requests to which a server gave no reply, under probes and of retention
        too, if there are any.

    Raises:
        InputError: There is nothing to ask, or a probe does not suit the clips.
    """
    clips, book = data.clips[exam.split], data.writer.book
    if not any(set(book[a.task].modes) & set(exam.modes) for clip in clips for a in clip.annotations):
        asked = f"evaluation.modes=[{','.join(exam.modes)}]"
        raise InputError(f"{asked}: no question about the {exam.split} clips has such a mode; add a mode, or questions")
    members = [clip.clip for clip in clips]
    shows: dict[ProbeName, Show] = {name: probe(name, answerer.reader, members, exam.seed) for name in exam.probes}
    found = _asked(answerer, data, exam, clips, Asking(exam.modes, samples=exam.samples))
    predictions = [p for p in found if p.sample is None]
    drawn = [p for p in found if p.sample is not None]
    metrics = dict(before)
    if exam.group.leads:
        metadata = {clip.id: clip.metadata for clip in members}
        for prefix, own in _by_mode(predictions, exam.modes, exam.split):
            metrics |= scorecard(own, book, data.labels, prefix)
            metrics |= slice_scores(own, metadata, exam.slices, book, data.labels, prefix)
        for prefix, own in _by_mode(drawn, exam.modes, exam.split) if drawn else ():
            metrics |= sampled_scores(own, book, data.labels, prefix)
    metrics |= _probed(answerer, data, exam, shows, predictions, files)
    metrics |= _retained(answerer, data, exam, files.retention, RETENTION)
    if exam.group.leads:
        if answerer.unanswered:
            metrics[f"{exam.split}/failed_requests"] = float(len(answerer.unanswered))
        write_jsonl(files.annotations, [annotation for c in clips for annotation in c.annotations])
        write_jsonl(files.predictions, predictions)
        if drawn:
            write_jsonl(files.samples, drawn)
        write_jsonl(files.dropped, [*data.set_aside, *answerer.unanswered])
        with whole(files.metrics) as unfinished:
            unfinished.write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")
    return exam.group.from_first(metrics)


def ask_retention(answerer: Answerer, data: RunData, exam: Exam, path: Path) -> dict[str, float]:
    """Ask what a student should not forget before it is trained, and write its answers; without questions, nothing.

    Args:
        answerer: Who is asked.
        data: The clips with their questions of retention.
        exam: The modes.
        path: File for the predictions.

    Returns:
        The metrics, keyed `retention_before/…`; `retention_before_reasoning/…` in that mode.
    """
    return _retained(answerer, data, exam, path, BEFORE)


def _probed(
    answerer: Answerer,
    data: RunData,
    exam: Exam,
    shows: Mapping[ProbeName, Show],
    predictions: Sequence[Prediction],
    files: RunFiles,
) -> dict[str, float]:
    """The metrics under probes, beside the student's own replies in the same mode; replies go to files."""
    modes, metrics = exam.modes[:1], {}
    probed: dict[str, list[Prediction]] = {}
    for name, show in shows.items():
        found = _asked(answerer, data, exam, data.clips[exam.split], Asking(modes, show), f"{exam.split}, {name}:")
        if exam.group.leads:
            write_jsonl(files.probe(name), found)
            ((prefix, replies),) = _by_mode(found, modes, f"{exam.split}_{name}")
            metrics |= scorecard(replies, data.writer.book, data.labels, prefix)
            probed[prefix] = replies
    own = [p for p in predictions if p.mode == modes[0]]
    return metrics | probe_losses(own, probed, data.writer.book, data.labels)


def _retained(answerer: Answerer, data: RunData, exam: Exam, path: Path, name: str) -> dict[str, float]:
    """The metrics of retention, by the first part of their keys, and the answers in a file; known to all ranks."""
    if not data.retention:
        return {}
    predictions = _asked(answerer, data, exam, data.retention, Asking(exam.modes))
    metrics: dict[str, float] = {}
    if exam.group.leads:
        write_jsonl(path, predictions)
        for prefix, found in _by_mode(predictions, exam.modes, name):
            metrics |= scorecard(found, data.writer.book, data.labels, prefix)
    return exam.group.from_first(metrics)


def _asked(
    answerer: Answerer, data: RunData, exam: Exam, clips: Sequence[AnnotatedClip], asking: Asking, title: str = ""
) -> list[Prediction]:
    """The answers to all questions about some clips, beside their references, mode after mode; on rank 0."""
    places = {id_: place for place, id_ in enumerate(id_ for clip in clips for id_, _ in clip.questions())}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True, disable=not exam.group.leads) as progress:
        what = f"{title or exam.split} {counted(len(clips), 'clip')}"
        bar = progress.add_task(f"asking {what} ({', '.join(asking.modes)})", total=len(clips))
        replies = answerer.replies(clips, asking, lambda num_clips: progress.advance(bar, num_clips))
    predictions = list(beside_references(replies, clips, data.writer.book, data.labels, data.selection.fingerprint))

    def order(p: Prediction) -> tuple[int, int, int]:
        return asking.modes.index(p.mode), places[p.annotation_id], -1 if p.sample is None else p.sample

    return sorted(predictions, key=order)


def _by_mode(predictions: Sequence[Prediction], modes: Sequence[Mode], name: str) -> list[tuple[str, list[Prediction]]]:
    """The predictions of each mode, with the first part of their metrics' keys."""
    prefixes = {mode: name if mode == "direct" else f"{name}_{mode}" for mode in modes}
    return [(prefixes[mode], [p for p in predictions if p.mode == mode]) for mode in modes]
