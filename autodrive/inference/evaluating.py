"""Evaluates a student on one split, in all inference modes at once, and leaves everything in the run folder."""

import json
from dataclasses import dataclass

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from autodrive.counted import counted
from autodrive.errors import InputError
from autodrive.inference.answering import answer_questions, beside_references, respondent_of
from autodrive.mixture.datamodule import ClipTreeDataModule
from autodrive.mixture.run_data import RunData
from autodrive.runs.folder import RunFiles
from autodrive.schema import Mode, Split, write_jsonl
from autodrive.students.student import Student
from autodrive.tasks.scorecard import scorecard
from autodrive.whole_files import whole


@dataclass(frozen=True)
class Exam:
    """What a student is asked, and where.

    Attributes:
        split: The split whose clips are asked about; its name begins the metrics' keys.
        modes: Inference modes in which every question is asked.
        device: Device that the student works on.
    """

    split: Split
    modes: tuple[Mode, ...]
    device: torch.device


def evaluate(
    student: Student, data: RunData, loaders: ClipTreeDataModule, exam: Exam, files: RunFiles
) -> dict[str, float]:
    """Ask every question of a split, write `predictions.jsonl`, `annotations.jsonl`, `dropped.jsonl`, `metrics.json`.

    Returns:
        The metrics: for the split `test` keyed `test/…` for direct answers and `test_reasoning/…` for reasoning mode.

    Raises:
        InputError: There is nothing to ask.
    """
    clips, book = data.clips[exam.split], data.writer.book
    questions = {id_: question for c in clips for id_, question in c.questions()}
    if not any(set(book[question.task].modes) & set(exam.modes) for question in questions.values()):
        asked = f"evaluation.modes=[{','.join(exam.modes)}]"
        raise InputError(f"{asked}: no question about the {exam.split} clips has such a mode; add a mode, or questions")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        title = f"asking {counted(len(clips), f'{exam.split} clip')} ({', '.join(exam.modes)})"
        bar = progress.add_task(title, total=len(clips))
        replies = answer_questions(
            student.to(exam.device),
            loaders.question_dataloader(exam.split, exam.modes),
            questions,
            book,
            respondent_of(student),
            lambda num_clips: progress.advance(bar, num_clips),
        )
        predictions = list(beside_references(replies, clips, book, data.labels, data.selection.fingerprint))
    predictions.sort(key=lambda prediction: exam.modes.index(prediction.mode))
    metrics: dict[str, float] = {}
    for mode in exam.modes:
        found = [prediction for prediction in predictions if prediction.mode == mode]
        prefix = exam.split if mode == "direct" else f"{exam.split}_{mode}"
        metrics |= scorecard(found, book, data.labels, prefix)
    write_jsonl(files.annotations, [annotation for c in clips for annotation in c.annotations])
    write_jsonl(files.predictions, predictions)
    write_jsonl(files.dropped, data.set_aside)
    with whole(files.metrics) as partial:
        partial.write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")
    return metrics
