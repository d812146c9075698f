"""Evaluates a student on one split, in all inference modes at once, and leaves everything in the run folder."""

import json
from pathlib import Path

from omegaconf import DictConfig
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from autodrive.mixture.datamodule import ClipTreeDataModule
from autodrive.schema import Mode, Split, write_jsonl
from autodrive.students.student import Student
from autodrive.tasks.scorecard import scorecard
from autodrive.training.answering import answer_questions, beside_references, respondent_of
from autodrive.training.assembly import RunData, device_of


def evaluate_student(
    config: DictConfig, student: Student, data: RunData, module: ClipTreeDataModule, split: Split, run_dir: Path
) -> dict[str, float]:
    """Ask every question of a split, write `predictions.jsonl`, `annotations.jsonl` and `metrics.json`.

    Returns:
        The metrics, keyed `test/…` for direct answers and `test_reasoning/…` for reasoning mode.
    """
    clips, book = data.clips[split], data.writer.book
    student.to(device_of(config.trainer.accelerator))
    modes: list[Mode] = list(config.evaluation.modes)
    questions = {id_: question for c in clips for id_, question in c.questions()}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        bar = progress.add_task(f"asking {len(clips)} {split} clips ({', '.join(modes)})", total=len(clips))
        replies = answer_questions(
            student,
            module.questions(split, modes),
            questions,
            book,
            respondent_of(student),
            lambda num_clips: progress.advance(bar, num_clips),
        )
        predictions = list(beside_references(replies, clips, book, data.labels, data.selection.fingerprint))
    predictions.sort(key=lambda prediction: modes.index(prediction.mode))
    metrics: dict[str, float] = {}
    for mode in modes:
        found = [prediction for prediction in predictions if prediction.mode == mode]
        metrics |= scorecard(found, book, data.labels, "test" if mode == "direct" else "test_reasoning")
    write_jsonl(run_dir / "annotations.jsonl", [annotation for c in clips for annotation in c.annotations])
    write_jsonl(run_dir / "predictions.jsonl", predictions)
    write_jsonl(run_dir / "dropped.jsonl", data.set_aside)
    (run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")
    return metrics
