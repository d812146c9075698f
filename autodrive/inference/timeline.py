"""Slides a student over a whole video: class probabilities of every window."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch.utils.data import DataLoader

from autodrive.annotation.rules import ClassQuestion
from autodrive.errors import InputError
from autodrive.evaluation.timeline import Timeline, mean_probabilities
from autodrive.inference.answering import answer_questions, respondent_of
from autodrive.mixture.clip_batches import (
    AskedClip,
    Batching,
    BranchWriter,
    ClipReader,
    QuestionSamples,
    question_loader,
)
from autodrive.schema import ROAD, Clip, Mode, Question, Reply
from autodrive.students.student import Student
from autodrive.tasks.task_book import TaskBook
from autodrive.video.chunker import sliding_windows
from autodrive.video.decoder import DecodedFrames
from autodrive.video.preflight import UnusableVideo, VideoInfo, scan

NUM_FRAMES_SHOWN = 6
HEIGHT_SHOWN = 180


@dataclass(frozen=True)
class Watcher:
    """A student that watches whole videos: it is asked for the class of every window, and what else one likes.

    Attributes:
        student: The student, on the device it works on.
        reader: Reads windows the way it wants them.
        writer: Renders the question as the student knows it from training.
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
        asked = [AskedClip(c, {f"{c.id}/{i}": q for i, q in enumerate(questions[c.id])}) for c in clips]
        loader = self._loader(asked, "direct")
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

    def answer(self, clip: Clip, question: Question) -> Reply:
        """The reply to a question of one's own about a window, in the first mode of its task."""
        asked = AskedClip(clip, {clip.id: question})
        mode = self.writer.book[question.task].modes[0]
        (reply,) = answer_questions(
            self.student,
            self._loader([asked], mode),
            {clip.id: question},
            self.writer.book,
            respondent_of(self.student),
        )
        return reply

    def _loader(self, asked: Sequence[AskedClip], mode: Mode) -> DataLoader:
        samples = QuestionSamples(asked, self.reader.shown, self.writer, (mode,))
        return question_loader(samples, self.reader.processor, self.batching)

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
        raise InputError(f"video={error.path}: {error.reason}: {error.detail}; give another file") from None


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
        InputError: None of the sources asks for the class.
    """
    for source in sources:
        if isinstance(source, ClassQuestion) and source.task == headline:
            return source
    raise InputError(f"ckpt={run}: its `questions` do not ask for the class, which a timeline shows; use another run")


def free_question(text: str, task: str, book: TaskBook) -> Question:
    """A question of one's own, as a task puts it.

    Args:
        text: The question.
        task: Name of a task whose answers are free words.
        book: The tasks that the student knows.

    Raises:
        InputError: There is no such task, or it shows options, which a question of one's own does not have.
    """
    free = [name for name, known in book.tasks.items() if not any("{options}" in t for t in known.templates.values())]
    if task not in free:
        why = "its answers are chosen from options" if task in book.tasks else "the run knows no such task"
        choose = (
            f"choose from {', '.join(free)}" if free else "the run has no task with free answers; leave question= out"
        )
        raise InputError(f"ask_as={task}: {why}; {choose}")
    return Question(task=task, question=text)
