"""Evaluates a student on one split, in all inference modes at once, and leaves everything in the run folder."""

import json
from dataclasses import dataclass, field

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.distributed.device_mesh import init_device_mesh

from autodrive.counted import counted
from autodrive.errors import InputError
from autodrive.inference.answering import answer_questions, beside_references, respondent_of
from autodrive.mixture.datamodule import ClipTreeDataModule
from autodrive.mixture.run_data import RunData
from autodrive.ranks.group import Group
from autodrive.runs.folder import RunFiles
from autodrive.schema import Mode, Split, write_jsonl
from autodrive.students.sharding import shard
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
        group: The processes that share the questions.
        sharded: Whether they share the weights, too, since one device cannot hold them.
    """

    split: Split
    modes: tuple[Mode, ...]
    device: torch.device
    group: Group = field(default_factory=Group)
    sharded: bool = False


def evaluate(
    student: Student, data: RunData, loaders: ClipTreeDataModule, exam: Exam, files: RunFiles
) -> dict[str, float]:
    """Ask every question of a split, write `predictions.jsonl`, `annotations.jsonl`, `dropped.jsonl`, `metrics.json`.

    Processes that share the questions are each asked whole batches, so that all replies are those of one process.

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
    respondent = respondent_of(student)  # while the weights are whole
    student = student.to(exam.device)
    if exam.sharded:
        shard(student, init_device_mesh(exam.device.type, (exam.group.size,)))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True, disable=not exam.group.leads) as progress:
        title = f"asking {counted(len(clips), f'{exam.split} clip')} ({', '.join(exam.modes)})"
        bar = progress.add_task(title, total=len(clips))
        replies = answer_questions(
            student,
            loaders.question_dataloader(exam.split, exam.modes),
            questions,
            book,
            respondent,
            lambda num_clips: progress.advance(bar, num_clips * exam.group.size),
            exam.group if exam.sharded else None,
        )
        # Only replies travel, and each is read beside its reference once.
        gathered = [reply for own in exam.group.all_of(list(replies)) for reply in own]
    if not exam.group.leads:
        return exam.group.from_first({})
    predictions = list(beside_references(gathered, clips, book, data.labels, data.selection.fingerprint))
    places = {id_: place for place, id_ in enumerate(questions)}
    predictions.sort(key=lambda prediction: (exam.modes.index(prediction.mode), places[prediction.annotation_id]))
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
    return exam.group.from_first(metrics)
