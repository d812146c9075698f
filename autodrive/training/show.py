"""What a run ends with: tables in the terminal and `report.html`."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig
from rich.console import Console

from autodrive.evaluation.classification import class_indices, confusion_matrix
from autodrive.mixture.datamodule import ClipReader
from autodrive.reporting.run_page import write_run_page
from autodrive.reporting.terminal import print_confusion, print_scores
from autodrive.schema import Prediction, read_jsonl
from autodrive.training.assembly import RunData


def show_run(
    config: DictConfig, run_dir: Path, data: RunData, reader: ClipReader, metrics: Mapping[str, float]
) -> None:
    """Print the scores of direct answers and their confusion matrix, and write the run's page."""
    console = Console()
    names = data.labels.names
    predictions = read_jsonl(run_dir / "predictions.jsonl", Prediction)
    headline = [p for p in predictions if p.task == data.writer.book.headline and p.mode == "direct"]
    if headline:
        true = class_indices([p.answer for p in headline], names)
        predicted = class_indices([p.parsed for p in headline], names)
        print_scores(metrics, data.labels, console)
        print_confusion(confusion_matrix(true, predicted, len(names)), data.labels, console)
    clips = {labelled.clip.id: labelled.clip for members in data.clips.values() for labelled in members}

    def frames_of(clip_id: str) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        decoded = reader.read(clips[clip_id])
        return decoded.frames_TCHW.permute(0, 2, 3, 1).numpy(), decoded.timestamps_s.numpy()

    page = write_run_page(run_dir, frames_of, config.evaluation.num_strips)
    console.print(f"report: {page}", soft_wrap=True)
