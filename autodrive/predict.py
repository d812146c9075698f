"""Slides a student over a whole video: a timeline of class probabilities, the best window, and a picture.

python -m autodrive.predict video=drive.mp4 ckpt=outputs/train/<run>
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track
from rich.table import Table

from autodrive.annotation.rules import ClassQuestion
from autodrive.entry_point import run_with_hydra
from autodrive.errors import InputError
from autodrive.evaluation.classification import option_probabilities
from autodrive.labels import LabelSet
from autodrive.mixture.datamodule import AskedClip, BranchWriter, ClipReader, ClipTreeDataModule
from autodrive.reporting.timeline import draw_timeline
from autodrive.schema import ROAD, Clip, Question
from autodrive.students.student import Student
from autodrive.tasks.task_book import TaskBook
from autodrive.training.assembly import device_of, saved_student
from autodrive.training.process import share_cores
from autodrive.training.quiet import quiet_libraries
from autodrive.training.resume import run_config
from autodrive.video.chunker import sliding_windows
from autodrive.video.decoder import DecodedFrames
from autodrive.video.frame_grid import FrameGrid
from autodrive.video.preflight import UnusableVideo, VideoInfo, scan

NUM_FRAMES_SHOWN = 6
HEIGHT_SHOWN = 180


@dataclass(frozen=True)
class Timeline:
    """Class probabilities of every window of one video.

    Attributes:
        classes: names, in the label set's order.
        windows_s: (W, 2) start and end.
        probabilities_WC: (W, classes), rows sum to 1.
        best: index of the window with the highest probability of an incident.
    """

    classes: tuple[str, ...]
    windows_s: NDArray[np.float64]
    probabilities_WC: NDArray[np.float64]
    best: int


def window_clips(path: Path, info: VideoInfo, window_s: float, stride_s: float) -> list[Clip]:
    """The windows of a video as clips without labels."""
    return [
        Clip(
            id=f"{path.stem}#{index}",
            dataset="video",
            source_video_id=path.stem,
            views={ROAD: info.view(str(path))},
            start_s=start_s,
            end_s=end_s,
        )
        for index, (start_s, end_s) in enumerate(sliding_windows(info.duration_s, window_s, stride_s))
    ]


def class_question(sources: Iterable[object], headline: str, run: Path) -> ClassQuestion:
    """The source among a run's questions that asks for the class.

    Raises:
        InputError: there is none.
    """
    for source in sources:
        if isinstance(source, ClassQuestion) and source.task == headline:
            return source
    raise InputError(f"ckpt={run}: its `questions` do not ask for the class, which a timeline shows; use another run")


def mean_probabilities(
    questions: list[Question], log_probs: list[tuple[float, ...]], classes: tuple[str, ...]
) -> NDArray[np.float64]:
    """Probability of each class: option log-probabilities normalised over the options, averaged over the orders.

    Args:
        questions: the same question in different option orders.
        log_probs: for each of them, the log-probability of every option.
        classes: order of the result.

    Returns:
        (classes,) summing to 1.
    """
    rows = [option_probabilities(q.options, values, classes) for q, values in zip(questions, log_probs, strict=True)]
    return np.array([row for row in rows if row is not None], dtype=np.float64).mean(axis=0)


def predict_timeline(
    student: Student,
    module: ClipTreeDataModule,
    source: ClassQuestion,
    clips: list[Clip],
    labels: LabelSet,
    num_orders: int,
    seed: int,
    device: torch.device,
) -> Timeline:
    """Ask for the class of every window."""
    questions = {c.id: source.questions(c.id, labels, seed, num_orders) for c in clips}
    asked: list[AskedClip] = [(c, [(f"{c.id}/{i}", q) for i, q in enumerate(questions[c.id])]) for c in clips]
    loader = module.asking(asked, ("direct",))
    student.to(device).eval()
    scores: dict[str, tuple[float, ...]] = {}
    with torch.inference_mode():
        for rows in track(loader, "windows", total=len(loader), transient=True):
            for row in rows:
                found = student.prefill(row.to(device)).score_options()
                scores |= {span.annotation_id: values for span, values in zip(row.spans, found, strict=True)}
    rows = [
        mean_probabilities(qs, [scores[f"{clip_id}/{i}"] for i in range(len(qs))], labels.names)
        for clip_id, qs in questions.items()
    ]
    probabilities_WC = np.array(rows)
    incident = [i for i, name in enumerate(labels.names) if name in labels.anomalous]
    best = int(probabilities_WC[:, incident].sum(axis=1).argmax())
    return Timeline(labels.names, np.array([(c.start_s, c.end_s) for c in clips]), probabilities_WC, best)


def timeline_record(timeline: Timeline, video: Path, ckpt: Path, info: VideoInfo, fps: float) -> dict[str, Any]:
    """The content of `timeline.json`: times in seconds from the first frame, probabilities as fractions."""
    windows = [
        {
            "start_s": round(float(start_s), 3),
            "end_s": round(float(end_s), 3),
            "probabilities": {name: round(float(p), 6) for name, p in zip(timeline.classes, row, strict=True)},
        }
        for (start_s, end_s), row in zip(timeline.windows_s, timeline.probabilities_WC, strict=True)
    ]
    return {
        "video": str(video),
        "ckpt": str(ckpt),
        "content_hash": info.content_hash,
        "duration_s": info.duration_s,
        "native_fps": info.native_fps,
        "fps": fps,
        "best_window": windows[timeline.best],
        "windows": windows,
    }


def main(config: DictConfig) -> dict[str, Any]:
    """Predict one video and write `timeline.json` and `timeline.png` into `out`."""
    video, ckpt, out = Path(config.video), Path(config.ckpt), Path(config.out)
    quiet_libraries()
    share_cores(config.num_workers)
    run = run_config(ckpt)
    run.fps = config.fps or run.fps
    try:
        info = scan(video)
    except UnusableVideo as error:
        raise InputError(f"video={error}") from None
    labels: LabelSet = instantiate(run.labels)
    book: TaskBook = instantiate(run.prompts)
    source = class_question([instantiate(node) for node in run.questions.values()], book.headline, ckpt)
    student = saved_student(run, ckpt)
    cache = instantiate(config.frame_cache)
    reader = ClipReader(instantiate(config.decoder), student.processor, FrameGrid(run.fps), cache=cache)
    module = ClipTreeDataModule(
        asked={},
        schedule=None,
        reader=reader,
        writer=BranchWriter(book, labels),
        batch_size=config.batch_size,
        tokens_per_row=run.tokens_per_row,
        num_workers=config.num_workers,
    )
    clips = window_clips(video, info, config.window_s or run.duration_s, config.stride_s)
    timeline = predict_timeline(student, module, source, clips, labels, config.num_orders, run.seed, device_of("auto"))
    record = timeline_record(timeline, video, ckpt, info, run.fps)
    out.mkdir(parents=True, exist_ok=True)
    (out / "timeline.json").write_text(json.dumps(record, indent=2) + "\n")
    frames = _frames_to_show(reader, clips[timeline.best])
    draw_timeline(
        out / "timeline.png",
        video.name,
        [labels[name].short for name in timeline.classes],
        timeline.windows_s,
        timeline.probabilities_WC,
        timeline.best,
        frames.frames_TCHW.permute(0, 2, 3, 1).numpy(),
        frames.timestamps_s.numpy(),
    )
    _show(record, out)
    return record


def _frames_to_show(reader: ClipReader, clip: Clip) -> DecodedFrames:
    """A few frames of a window, large enough for a person."""
    step_s = (clip.end_s - clip.start_s) / NUM_FRAMES_SHOWN
    times_s = clip.start_s + step_s * (np.arange(NUM_FRAMES_SHOWN, dtype=np.float64) + 0.5)
    width = round(clip.road.width * HEIGHT_SHOWN / clip.road.height)
    return reader.decoder.read(Path(clip.road.path), times_s, (HEIGHT_SHOWN, width))


def _show(record: dict[str, Any], out: Path) -> None:
    table = Table(title=f"{record['video']}: {len(record['windows'])} windows")
    table.add_column("window (s)", justify="right")
    for name in record["best_window"]["probabilities"]:
        table.add_column(f"P({name})", justify="right")
    for window in record["windows"]:
        marker = " *" if window == record["best_window"] else ""
        cells = [f"{p:.3f}" for p in window["probabilities"].values()]
        table.add_row(f"{window['start_s']:.2f} to {window['end_s']:.2f}{marker}", *cells)
    console = Console()
    console.print(table)
    console.print(f"* the window with the most probable incident; picture: {out / 'timeline.png'}")


if __name__ == "__main__":
    run_with_hydra(main, "predict")
