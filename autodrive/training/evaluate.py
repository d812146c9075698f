"""Evaluates a student on one split in both inference modes and leaves everything in the run folder."""

import json
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from autodrive.evaluation.metrics import metrics_from_predictions
from autodrive.mixture.datamodule import ClipTreeDataModule
from autodrive.mixture.mixture import LabelledClip
from autodrive.schema import Annotation, Mode, Prediction, Split, write_jsonl
from autodrive.students.qwen2_5_vl import QwenStudent
from autodrive.training.answering import Provenance, answer_questions
from autodrive.training.assembly import RunData, device_of


def evaluate_student(
    config: DictConfig, student: QwenStudent, data: RunData, module: ClipTreeDataModule, split: Split, run_dir: Path
) -> dict[str, float]:
    """Ask every question of a split, write `predictions.jsonl`, `annotations.jsonl` and `metrics.json`.

    Returns:
        The metrics, keyed `test/…` for direct answers and `test_reasoning/…` for reasoning mode.
    """
    clips = data.clips[split]
    provenance = Provenance(student.name, None, data.selection.fingerprint, data.writer.prompts.hash)
    predictions: list[Prediction] = []
    metrics: dict[str, float] = {}
    student.to(device_of(config.trainer.accelerator))
    for mode in config.evaluation.modes:
        found = _ask(config, student, module, split, mode, clips, data, provenance)
        prefix = "test" if mode == "direct" else "test_reasoning"
        metrics |= metrics_from_predictions(found, data.labels, prefix)
        predictions += found
    write_jsonl(run_dir / "annotations.jsonl", _annotations(clips))
    write_jsonl(run_dir / "predictions.jsonl", predictions)
    write_jsonl(run_dir / "dropped.jsonl", data.selection.dropped)
    (run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")
    return metrics


def _ask(
    config: DictConfig,
    student: QwenStudent,
    module: ClipTreeDataModule,
    split: Split,
    mode: Mode,
    clips: Sequence[LabelledClip],
    data: RunData,
    provenance: Provenance,
) -> list[Prediction]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        bar = progress.add_task(f"asking {len(clips)} {split} clips ({mode})", total=len(clips))
        return answer_questions(
            student,
            module.questions(split, mode),
            clips,
            data.labels,
            mode,
            config.evaluation.max_new_tokens[mode],
            provenance,
            lambda num_clips: progress.advance(bar, num_clips),
        )


def _annotations(clips: Sequence[LabelledClip]) -> list[Annotation]:
    return [annotation for labelled in clips for annotation in labelled.annotations]
