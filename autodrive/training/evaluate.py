"""Evaluates a student on one split, in all inference modes at once, and leaves everything in the run folder."""

import json
from pathlib import Path

from omegaconf import DictConfig
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from autodrive.evaluation.metrics import metrics_from_predictions
from autodrive.mixture.datamodule import ClipTreeDataModule
from autodrive.schema import Mode, Split, write_jsonl
from autodrive.students.student import Student
from autodrive.training.answering import Provenance, answer_questions
from autodrive.training.assembly import RunData, device_of


def evaluate_student(
    config: DictConfig, student: Student, data: RunData, module: ClipTreeDataModule, split: Split, run_dir: Path
) -> dict[str, float]:
    """Ask every question of a split, write `predictions.jsonl`, `annotations.jsonl` and `metrics.json`.

    Returns:
        The metrics, keyed `test/…` for direct answers and `test_reasoning/…` for reasoning mode.
    """
    clips = data.clips[split]
    provenance = Provenance(student.name, None, data.selection.fingerprint, data.writer.prompts.hash)
    student.to(device_of(config.trainer.accelerator))
    modes: list[Mode] = list(config.evaluation.modes)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        bar = progress.add_task(f"asking {len(clips)} {split} clips ({', '.join(modes)})", total=len(clips))
        predictions = answer_questions(
            student,
            module.questions(split, modes),
            clips,
            data.labels,
            config.evaluation.max_new_tokens,
            provenance,
            lambda num_clips: progress.advance(bar, num_clips),
        )
    predictions.sort(key=lambda prediction: modes.index(prediction.mode))
    metrics: dict[str, float] = {}
    for mode in modes:
        found = [prediction for prediction in predictions if prediction.mode == mode]
        metrics |= metrics_from_predictions(found, data.labels, "test" if mode == "direct" else "test_reasoning")
    write_jsonl(run_dir / "annotations.jsonl", [annotation for c in clips for annotation in c.annotations])
    write_jsonl(run_dir / "predictions.jsonl", predictions)
    write_jsonl(run_dir / "dropped.jsonl", data.selection.dropped)
    (run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")
    return metrics
