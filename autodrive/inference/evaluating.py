"""Evaluates a student on one split, in all inference modes at once, and leaves everything in the run folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from autodrive.annotation.supply import AnnotatedClip
from autodrive.counted import counted
from autodrive.errors import InputError
from autodrive.inference.answering import answer_questions, beside_references, respondent_of
from autodrive.mixture.datamodule import ClipTreeDataModule
from autodrive.mixture.run_data import RunData
from autodrive.runs.folder import RunFiles
from autodrive.schema import Mode, Prediction, Split, write_jsonl
from autodrive.students.student import Student
from autodrive.tasks.scorecard import scorecard, slice_scores
from autodrive.whole_files import whole

RETENTION = "retention"
BEFORE = "retention_before"


@dataclass(frozen=True)
class Exam:
    """What a student is asked, and where.

    Attributes:
        split: The split whose clips are asked about; its name begins the metrics' keys.
        modes: Inference modes in which every question is asked.
        device: Device that the student works on.
        slices: Keys of the clips' metadata, for whose values the headline task is scored apart.
    """

    split: Split
    modes: tuple[Mode, ...]
    device: torch.device
    slices: tuple[str, ...] = ()


def evaluate(
    student: Student,
    data: RunData,
    loaders: ClipTreeDataModule,
    exam: Exam,
    files: RunFiles,
    before: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, float]:
    """Ask every question of a split, write `predictions.jsonl`, `annotations.jsonl`, `dropped.jsonl`, `metrics.json`.

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
    predictions = _asked(student, clips, data, loaders, exam)
    metadata = {clip.clip.id: clip.clip.metadata for clip in clips}
    metrics = dict(before)
    for prefix, found in _by_mode(predictions, exam, exam.split):
        metrics |= scorecard(found, book, data.labels, prefix)
        metrics |= slice_scores(found, metadata, exam.slices, book, data.labels, prefix)
    metrics |= ask_retention(student, data, loaders, exam, files.retention, RETENTION)
    write_jsonl(files.annotations, [annotation for c in clips for annotation in c.annotations])
    write_jsonl(files.predictions, predictions)
    write_jsonl(files.dropped, data.set_aside)
    with whole(files.metrics) as partial:
        partial.write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")
    return metrics


def ask_retention(
    student: Student, data: RunData, loaders: ClipTreeDataModule, exam: Exam, path: Path, name: str
) -> dict[str, float]:
    """Ask what the student should not forget, and write its answers; nothing where nothing is asked.

    Args:
        student: Who is asked, before or after a training.
        data: The clips with their questions of retention.
        loaders: Reads clips for this student.
        exam: Modes and device.
        path: File for the predictions.
        name: First part of the metrics' keys, `retention_before` or `retention`; `_reasoning` follows in that mode.
    """
    if not data.retention:
        return {}
    predictions = _asked(student, data.retention, data, loaders, exam)
    write_jsonl(path, predictions)
    metrics: dict[str, float] = {}
    for prefix, found in _by_mode(predictions, exam, name):
        metrics |= scorecard(found, data.writer.book, data.labels, prefix)
    return metrics


def _asked(
    student: Student, clips: Sequence[AnnotatedClip], data: RunData, loaders: ClipTreeDataModule, exam: Exam
) -> list[Prediction]:
    """The student's answers to all questions about these clips, beside their references, mode after mode."""
    book, columns = data.writer.book, (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), transient=True) as progress:
        title = f"asking {counted(len(clips), f'{exam.split} clip')} ({', '.join(exam.modes)})"
        bar = progress.add_task(title, total=len(clips))
        replies = answer_questions(
            student.to(exam.device),
            loaders.dataloader_about(clips, exam.modes),
            {id_: question for c in clips for id_, question in c.questions()},
            book,
            respondent_of(student),
            lambda num_clips: progress.advance(bar, num_clips),
        )
        predictions = list(beside_references(replies, clips, book, data.labels, data.selection.fingerprint))
    return sorted(predictions, key=lambda prediction: exam.modes.index(prediction.mode))


def _by_mode(predictions: Sequence[Prediction], exam: Exam, name: str) -> list[tuple[str, list[Prediction]]]:
    """The predictions of each mode, with the first part of their metrics' keys."""
    prefixes = {mode: name if mode == "direct" else f"{name}_{mode}" for mode in exam.modes}
    return [(prefixes[mode], [p for p in predictions if p.mode == mode]) for mode in exam.modes]
