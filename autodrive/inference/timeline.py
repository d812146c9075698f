"""Slides a student over a whole video: class probabilities of every window."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from autodrive.annotation.rules import ClassQuestion
from autodrive.errors import InputError
from autodrive.evaluation.classification import option_probabilities
from autodrive.mixture.datamodule import AskedClip, Batching, BranchWriter, ClipReader, question_loader
from autodrive.schema import ROAD, Clip, Question
from autodrive.students.student import Student
from autodrive.video.chunker import sliding_windows
from autodrive.video.decoder import DecodedFrames
from autodrive.video.preflight import UnusableVideo, VideoInfo, scan

NUM_FRAMES_SHOWN = 6
HEIGHT_SHOWN = 180


@dataclass(frozen=True)
class Timeline:
    """Class probabilities of every window of one video.

    Attributes:
        classes: Names in the label set's order.
        windows_s: (W, 2) start and end.
        probabilities_WC: (W, classes), rows sum to 1.
        best: Index of the window with the highest probability of an incident.
    """

    classes: tuple[str, ...]
    windows_s: NDArray[np.float64]
    probabilities_WC: NDArray[np.float64]
    best: int

    def record(self) -> dict[str, Any]:
        """The windows as `timeline.json` holds them: times in seconds, probabilities as fractions."""
        windows = [
            {
                "start_s": round(float(start_s), 3),
                "end_s": round(float(end_s), 3),
                "probabilities": {name: round(float(p), 6) for name, p in zip(self.classes, row, strict=True)},
            }
            for (start_s, end_s), row in zip(self.windows_s, self.probabilities_WC, strict=True)
        ]
        return {"best_window": windows[self.best], "windows": windows}


@dataclass(frozen=True)
class Watcher:
    """A student that watches whole videos: it is asked for the class of every window.

    Attributes:
        student: The student, on the device it works on.
        reader: Reads windows the way it wants them.
        writer: Renders the question.
        question: Asks for the class.
        batching: How windows become batches.
        num_orders: Option orders asked of every window and averaged, so that no letter is favoured.
        seed: Seed of the option orders.
    """

    student: Student
    reader: ClipReader
    writer: BranchWriter
    question: ClassQuestion
    batching: Batching
    num_orders: int
    seed: int

    def watch(self, clips: Sequence[Clip]) -> Timeline:
        """Ask about every window of a video, in order."""
        labels = self.writer.labels
        questions = {c.id: self.question.questions(c.id, labels, self.seed, self.num_orders) for c in clips}
        asked: list[AskedClip] = [(c, [(f"{c.id}/{i}", q) for i, q in enumerate(questions[c.id])]) for c in clips]
        loader = question_loader(asked, self.reader, self.writer, ("direct",), self.batching)
        device = next(self.student.parameters()).device
        self.student.eval()
        scores: dict[str, tuple[float, ...]] = {}
        with torch.inference_mode():
            for rows in track(loader, "windows", total=len(loader), transient=True):
                for row in rows:
                    found = self.student.prefill(row.to(device)).score_options()
                    scores |= {span.annotation_id: values for span, values in zip(row.spans, found, strict=True)}
        probabilities_WC = np.array(
            [
                mean_probabilities(qs, [scores[f"{clip_id}/{i}"] for i in range(len(qs))], labels.names)
                for clip_id, qs in questions.items()
            ]
        )
        incident = [i for i, name in enumerate(labels.names) if name in labels.anomalous]
        best = int(probabilities_WC[:, incident].sum(axis=1).argmax())
        return Timeline(labels.names, np.array([(c.start_s, c.end_s) for c in clips]), probabilities_WC, best)

    def frames_to_show(self, clip: Clip) -> DecodedFrames:
        """A few frames of a window, large enough for a person."""
        step_s = (clip.end_s - clip.start_s) / NUM_FRAMES_SHOWN
        times_s = clip.start_s + step_s * (np.arange(NUM_FRAMES_SHOWN, dtype=np.float64) + 0.5)
        width = round(clip.road.width * HEIGHT_SHOWN / clip.road.height)
        return self.reader.decoder.read(Path(clip.road.path), times_s, (HEIGHT_SHOWN, width))


def measured(video: Path) -> VideoInfo:
    """What a video file is.

    Raises:
        InputError: It cannot be used.
    """
    try:
        return scan(video)
    except UnusableVideo as error:
        raise InputError(f"video={error}") from None


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
        InputError: There is none.
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
        questions: The same question in different option orders.
        log_probs: For each of them, the log-probability of every option.
        classes: Order of the result.

    Returns:
        (classes,) summing to 1.
    """
    rows = [option_probabilities(q.options, values, classes) for q, values in zip(questions, log_probs, strict=True)]
    return np.array([row for row in rows if row is not None], dtype=np.float64).mean(axis=0)
