"""From clips to batches of packed rows: all that happens in loader processes.

Nothing here imports Lightning: every process that starts would wait seconds for it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from autodrive.annotation.supply import AnnotatedClip
from autodrive.labels import LabelSet
from autodrive.mixture.loader import InputLoader
from autodrive.mixture.mixture import Visit, VisitSchedule
from autodrive.schema import Annotation, Clip, Mode, Question
from autodrive.tasks.task_book import TaskBook
from autodrive.trees.clip_tree import ClipProcessor, ClipTree
from autodrive.trees.packing import LossMean, pack_trees
from autodrive.trees.sample import Branch, ClipSample, Turn, Video
from autodrive.video.container import check_native_fps
from autodrive.video.decoder import Decoder
from autodrive.video.frame_cache import FrameCache, NoFrameCache
from autodrive.video.frame_grid import FrameGrid


@dataclass(frozen=True)
class ClipReader:
    """Reads a clip's frames at the requested rate and the student's size: the same way everywhere.

    Attributes:
        decoder: Decodes what the cache does not hold.
        processor: Knows the student's frame size.
        grid: The requested frame rate: when a clip is looked at. Its only owner; the rate travels on with the pixels.
        cache: Decoded frames that are kept.
    """

    decoder: Decoder
    processor: ClipProcessor
    grid: FrameGrid
    cache: FrameCache = field(default_factory=NoFrameCache)
    _checked: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def read(self, clip: Clip, phase: float = 0.0) -> Video:
        """Read one clip; `phase` in [0, 1) shifts the sampling grid within a frame interval."""
        view = clip.road
        if view.path not in self._checked:
            check_native_fps(Path(view.path), view.native_fps)
            self._checked.add(view.path)
        requested_s = self.grid.timestamps(clip.start_s, clip.end_s, view.native_fps, phase)
        size = self.processor.frame_size(view.width, view.height)
        frames = self.cache.read(self.decoder, Path(view.path), view.content_hash, requested_s, size)
        return Video(frames, self.grid.fps)


@dataclass(frozen=True)
class BranchWriter:
    """Turns annotations into branches: the prompt from the question alone, the target only for training."""

    book: TaskBook
    labels: LabelSet

    def ask(self, annotation_id: str, question: Question, mode: Mode) -> Branch:
        """A branch without an answer."""
        prompt = self.book[question.task].render(question, mode, self.labels)
        return Branch(annotation_id, (Turn(prompt.text),), prompt.option_targets, mode=mode)

    def teach(self, annotation: Annotation, weight: float = 1.0) -> Branch:
        """A branch with its answer, for training only, in the mode that the annotation teaches.

        Args:
            annotation: The question with its answer; the prompt is rendered from the question alone.
            weight: Its relative share of the loss.
        """
        task, mode = self.book[annotation.task], annotation.mode
        prompt = task.render(annotation.without_answer(), mode, self.labels)
        target = task.target(annotation, self.labels)
        return Branch(annotation.id, (Turn(prompt.text, target),), prompt.option_targets, weight, mode)


def training_texts(clips: Iterable[AnnotatedClip], writer: BranchWriter) -> Iterator[str]:
    """Every prompt and target of training clips, rendered when it is asked for: only students from scratch do."""
    yield writer.book.system
    for annotation in (a for annotated in clips for a in annotated.annotations):
        for turn in writer.teach(annotation).turns:
            yield turn.prompt
            yield turn.target or ""


class TrainingTrees(Dataset[ClipTree]):
    """Clip trees with targets, indexed by `Visit`."""

    def __init__(self, reader: ClipReader, writer: BranchWriter) -> None:
        self.reader, self.writer = reader, writer

    def __getitem__(self, visit: Visit) -> ClipTree:
        video = self.reader.read(visit.clip, visit.phase)
        branches = tuple(self.writer.teach(taught.annotation, taught.weight) for taught in visit.taught)
        sample = ClipSample(visit.clip.id, self.writer.book.system, (video,), branches)
        return self.reader.processor.encode(sample)


@dataclass(frozen=True)
class AskedClip:
    """A clip and what is asked about it; nothing of it holds an answer.

    Attributes:
        clip: The clip to show.
        questions: Each question by the id under which its reply is kept, in the order in which they are asked.
    """

    clip: Clip
    questions: Mapping[str, Question]


class QuestionTrees(Dataset[ClipTree]):
    """Clip trees without targets, one per clip in order, for validation, evaluation and prediction.

    Args:
        clips: The clips, each with its questions.
        reader: Reads a clip's frames at the requested rate and the student's size.
        writer: Renders prompts from questions.
        modes: Inference modes in which every question is asked, as far as its task has words for them.
    """

    def __init__(
        self, clips: Sequence[AskedClip], reader: ClipReader, writer: BranchWriter, modes: Sequence[Mode]
    ) -> None:
        self.clips, self.reader, self.writer, self.modes = clips, reader, writer, tuple(modes)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> ClipTree:
        asked = self.clips[index]
        branches = tuple(
            self.writer.ask(id_, question, mode)
            for mode in self.modes
            for id_, question in asked.questions.items()
            if mode in self.writer.book[question.task].modes
        )
        sample = ClipSample(asked.clip.id, self.writer.book.system, (self.reader.read(asked.clip),), branches)
        return self.reader.processor.encode(sample)


class ScheduleBatches(Sampler[list[Visit]]):
    """Batches of a visit schedule from one step to another; deliberately without a length (see `train_dataloader`)."""

    def __init__(self, schedule: VisitSchedule, first_step: int, last_step: int) -> None:
        self.schedule, self.first_step, self.last_step = schedule, first_step, last_step

    def __iter__(self) -> Iterator[list[Visit]]:
        for step in range(self.first_step, self.last_step):
            yield self.schedule.batch(step)


@dataclass(frozen=True)
class Batching:
    """How clip trees become batches of packed rows.

    Attributes:
        batch_size: Clips in a batch of questions; the schedule knows the size of a training batch.
        tokens_per_row: Most tokens of a packed row.
        num_workers: Number of loader processes.
        loss_mean: What the loss of a step is a mean over.
    """

    batch_size: int
    tokens_per_row: int
    num_workers: int
    loss_mean: LossMean = "annotations"

    def loader(self, dataset: Dataset, **how) -> DataLoader:
        """A loader of packed rows; `how` says in which order they come."""
        # spawn: forked children of a process that already runs decoder or tokenizer threads can deadlock
        return InputLoader(
            dataset,
            num_workers=self.num_workers,
            collate_fn=partial(pack_trees, tokens_per_row=self.tokens_per_row, loss_mean=self.loss_mean),
            worker_init_fn=_one_thread,
            multiprocessing_context="spawn" if self.num_workers else None,
            persistent_workers=self.num_workers > 0,  # a fresh worker imports for seconds at every validation
            **how,
        )


def question_loader(
    clips: Sequence[AskedClip], reader: ClipReader, writer: BranchWriter, modes: Sequence[Mode], batching: Batching
) -> DataLoader:
    """Any clips with any questions, in order; no answers are needed."""
    return batching.loader(QuestionTrees(clips, reader, writer, modes), batch_size=batching.batch_size, shuffle=False)


def _one_thread(worker_id: int) -> None:
    torch.set_num_threads(1)
