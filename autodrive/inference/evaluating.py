"""Evaluates a student on one split, in all inference modes at once, and leaves everything in the run folder."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.distributed.device_mesh import init_device_mesh

from autodrive.annotation.supply import AnnotatedClip
from autodrive.counted import counted
from autodrive.errors import InputError
from autodrive.inference.answering import Respondent, answer_questions, beside_references, respondent_of
from autodrive.mixture.datamodule import ClipTreeDataModule
from autodrive.mixture.run_data import RunData
from autodrive.ranks.group import Group
from autodrive.runs.folder import RunFiles
from autodrive.schema import Mode, Prediction, Split, write_jsonl
from autodrive.students.sharding import shard
from autodrive.students.student import Student
from autodrive.tasks.scorecard import scorecard, slice_scores
from autodrive.whole_files import whole

RETENTION = "retention"
BEFORE = "retention_before"

Ask = Callable[[Sequence[AnnotatedClip]], list[Prediction]]
"""A student's answers to all questions about some clips, beside their references, mode after mode; on rank 0."""


@dataclass(frozen=True)
class Exam:
    """What a student is asked, and where.

    Attributes:
        split: The split whose clips are asked about; its name begins the metrics' keys.
        modes: Inference modes in which every question is asked.
        device: Device that the student works on.
        slices: Keys of the clips' metadata, for whose values the headline task is scored apart.
        group: The processes that share the questions.
        sharded: Whether they share the weights, too, since one device cannot hold them.
    """

    split: Split
    modes: tuple[Mode, ...]
    device: torch.device
    slices: tuple[str, ...] = ()
    group: Group = field(default_factory=Group)
    sharded: bool = False


def evaluate(
    student: Student,
    data: RunData,
    loaders: ClipTreeDataModule,
    exam: Exam,
    files: RunFiles,
    before: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, float]:
    """Ask every question of a split, write `predictions.jsonl`, `annotations.jsonl`, `dropped.jsonl`, `metrics.json`.

    Processes that share the questions are each asked whole batches, so that all replies are those of one process.

    Args:
        student: Who is asked.
        data: The clips with their questions.
        loaders: Reads clips for this student.
        exam: What is asked.
        files: Where everything is left.
        before: Metrics that are known already, kept beside the others.

    Returns:
        The metrics: for the split `test` keyed `test/…` for direct answers and `test_reasoning/…` for reasoning mode,
        and `retention/…` where there are questions of retention.

    Raises:
        InputError: There is nothing to ask.
    """
    clips, book = data.clips[exam.split], data.writer.book
    if not any(set(book[a.task].modes) & set(exam.modes) for clip in clips for a in clip.annotations):
        asked = f"evaluation.modes=[{','.join(exam.modes)}]"
        raise InputError(f"{asked}: no question about the {exam.split} clips has such a mode; add a mode, or questions")
    ask = _asking(student, data, loaders, exam)
    predictions = ask(clips)
    metrics = dict(before)
    if exam.group.leads:
        metadata = {clip.clip.id: clip.clip.metadata for clip in clips}
        for prefix, found in _by_mode(predictions, exam, exam.split):
            metrics |= scorecard(found, book, data.labels, prefix)
            metrics |= slice_scores(found, metadata, exam.slices, book, data.labels, prefix)
    metrics |= _retained(ask, data, exam, files.retention, RETENTION)
    if exam.group.leads:
        write_jsonl(files.annotations, [annotation for c in clips for annotation in c.annotations])
        write_jsonl(files.predictions, predictions)
        write_jsonl(files.dropped, data.set_aside)
        with whole(files.metrics) as unfinished:
            unfinished.write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")
    return exam.group.from_first(metrics)


def ask_retention(
    student: Student, data: RunData, loaders: ClipTreeDataModule, exam: Exam, path: Path
) -> dict[str, float]:
    """Ask what a student should not forget before it is trained, and write its answers; without questions, nothing.

    Args:
        student: Who is asked.
        data: The clips with their questions of retention.
        loaders: Reads clips for this student.
        exam: Modes and device.
        path: File for the predictions.

    Returns:
        The metrics, keyed `retention_before/…`; `retention_before_reasoning/…` in that mode.
    """
    return _retained(_asking(student, data, loaders, exam), data, exam, path, BEFORE) if data.retention else {}


def _retained(ask: Ask, data: RunData, exam: Exam, path: Path, name: str) -> dict[str, float]:
    """The metrics of retention, by the first part of their keys, and the answers in a file; known to all ranks."""
    if not data.retention:
        return {}
    predictions = ask(data.retention)
    metrics: dict[str, float] = {}
    if exam.group.leads:
        write_jsonl(path, predictions)
        for prefix, found in _by_mode(predictions, exam, name):
            metrics |= scorecard(found, data.writer.book, data.labels, prefix)
    return exam.group.from_first(metrics)


def _asking(student: Student, data: RunData, loaders: ClipTreeDataModule, exam: Exam) -> Ask:
    """Get a student ready to be asked."""
    # While the weights are whole, where they were read.
    respondent = exam.group.from_first(respondent_of(student) if exam.group.leads else None)
    assert respondent is not None
    if exam.sharded:
        shard(student, init_device_mesh(exam.device.type, (exam.group.size,)))
    else:
        student = student.to(exam.device)
    return partial(_asked, student, respondent, data, loaders, exam)


def _asked(
    student: Student,
    respondent: Respondent,
    data: RunData,
    loaders: ClipTreeDataModule,
    exam: Exam,
    clips: Sequence[AnnotatedClip],
) -> list[Prediction]:
    book, questions = data.writer.book, {id_: question for c in clips for id_, question in c.questions()}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True, disable=not exam.group.leads) as progress:
        title = f"asking {counted(len(clips), f'{exam.split} clip')} ({', '.join(exam.modes)})"
        bar = progress.add_task(title, total=len(clips))
        replies = answer_questions(
            student,
            loaders.dataloader_about(clips, exam.modes),
            questions,
            book,
            respondent,
            lambda num_clips: progress.advance(bar, num_clips * exam.group.size),
            exam.group if exam.sharded else None,
        )
        # Only replies travel, and each is read beside its reference once.
        gathered = [reply for own in exam.group.all_of(list(replies)) for reply in own]
    if not exam.group.leads:
        return []
    predictions = list(beside_references(gathered, clips, book, data.labels, data.selection.fingerprint))
    places = {id_: place for place, id_ in enumerate(questions)}
    return sorted(predictions, key=lambda p: (exam.modes.index(p.mode), places[p.annotation_id]))


def _by_mode(predictions: Sequence[Prediction], exam: Exam, name: str) -> list[tuple[str, list[Prediction]]]:
    """The predictions of each mode, with the first part of their metrics' keys."""
    prefixes = {mode: name if mode == "direct" else f"{name}_{mode}" for mode in exam.modes}
    return [(prefixes[mode], [p for p in predictions if p.mode == mode]) for mode in exam.modes]
