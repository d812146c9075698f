"""From clips to batches of packed rows: all that happens in loader processes.

Nothing here imports Lightning: every process that starts would wait seconds for it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from autodrive.annotation.supply import AnnotatedClip
from autodrive.labels import LabelSet
from autodrive.mixture.loader import InputLoader
from autodrive.mixture.mixture import Visit, VisitSchedule
from autodrive.schema import Annotation, Clip, Mode, Question
from autodrive.tasks.task_book import TaskBook
from autodrive.trees.clip_tree import ClipProcessor, ClipTree, FrameSizer, TreeRow
from autodrive.trees.packing import LossMean, TreeSize, pack_trees, sum_of_weights
from autodrive.trees.sample import Branch, ClipSample, Part, Turn, Video
from autodrive.trees.sharing import Share, laid_out, passes, shared_rows
from autodrive.video.container import check_native_fps, presentation_times
from autodrive.video.decoder import DecodedFrames, Decoder
from autodrive.video.frame_cache import FrameCache, NoFrameCache
from autodrive.video.frame_grid import FrameChoice
from autodrive.video.sampler import choose_frames

Show = Callable[[Clip], tuple[Part, ...]]
"""What a model is shown of a clip, in front of the questions."""


@dataclass(frozen=True)
class FrameReader:
    """Reads a clip's frames at the requested times and a model's size: the same way everywhere.

    Attributes:
        decoder: Decodes what the cache does not hold.
        processor: Knows the model's frame size.
        grid: When a clip is looked at. Its only owner; the rate travels on with the pixels.
        cache: Decoded frames that are kept.
    """

    decoder: Decoder
    processor: FrameSizer
    grid: FrameChoice
    cache: FrameCache = field(default_factory=NoFrameCache)
    _checked: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def read(self, clip: Clip, phase: float = 0.0) -> Video:
        """Read one clip; `phase` in [0, 1) shifts the sampling grid within a frame interval."""
        view = clip.road
        if view.path not in self._checked:
            check_native_fps(Path(view.path), view.native_fps)
            self._checked.add(view.path)
        requested_s = self._times(clip, phase)
        size = self.processor.frame_size(view.width, view.height)
        frames = self.cache.read(self.decoder, Path(view.path), view.content_hash, requested_s, size)
        return Video(frames, self.grid.rate(clip.end_s - clip.start_s))

    def shown(self, clip: Clip) -> tuple[Part, ...]:
        """What a model is shown of a clip: its video."""
        return (self.read(clip),)

    def _times(self, clip: Clip, phase: float) -> NDArray[np.float64]:
        return self.grid.timestamps(clip.start_s, clip.end_s, clip.road.native_fps, phase)


def frames_for_people(reader: FrameReader, clip: Clip) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """What a model sees of a clip: RGB frames (T, H, W, 3) and their times in seconds."""
    decoded = reader.read(clip).frames
    return decoded.frames_TCHW.permute(0, 2, 3, 1).numpy(), decoded.timestamps_s.numpy()


@dataclass(frozen=True)
class ClipReader(FrameReader):
    """Reads clips for a student, whose processor makes trees of them."""

    processor: ClipProcessor

    def video_tokens(self, clip: Clip, phase: float) -> int:
        """Tokens of a prefix that what `read` gives takes, without decoding anything."""
        view, times_s = clip.road, self._times(clip, phase)
        if self.processor.tells_time:
            shown_s = presentation_times(Path(view.path))
            times_s = shown_s[choose_frames(shown_s, times_s)]  # as a decoder measures them
        return self.processor.video_tokens(torch.from_numpy(times_s), view.width, view.height)

    def one_group(self, clip: Clip) -> tuple[Video, int]:
        """As few blank frames as the student takes, in the size of this clip's, and the tokens that they take."""
        view, num_frames = clip.road, self.processor.frames_per_group
        height, width = self.processor.frame_size(view.width, view.height)
        fps = self.grid.rate(clip.end_s - clip.start_s)
        times_s = torch.arange(num_frames).double() / fps
        frames = DecodedFrames(torch.zeros((num_frames, 3, height, width), dtype=torch.uint8), times_s)
        return Video(frames, fps), self.processor.video_tokens(times_s, view.width, view.height)


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
        return self._encoded(visit, self.reader.read(visit.clip, visit.phase))

    def measure(self, visit: Visit) -> tuple[TreeSize, ClipTree]:
        """The size of a visit's tree, and the tree with blank frames for a video, whose branches are the real ones.

        Nothing is decoded: the video's tokens follow from the number, the size and the times of its frames.
        """
        video, num_tokens = self.reader.one_group(visit.clip)
        tree = self._encoded(visit, video)
        size = TreeSize.of(tree)
        prefix = size.prefix + self.reader.video_tokens(visit.clip, visit.phase) - num_tokens
        return replace(size, prefix=prefix), tree

    def _encoded(self, visit: Visit, video: Video) -> ClipTree:
        branches = tuple(self.writer.teach(taught.annotation, taught.weight) for taught in visit.taught)
        return self.reader.processor.encode(ClipSample(visit.clip.id, self.writer.book.system, (video,), branches))


class TrainingRows(Dataset[tuple[TreeRow, ...]]):
    """The packed rows of a step, indexed by its visits: all of them, or one process's share.

    Args:
        trees: Makes the trees.
        batching: How they become rows.
    """

    def __init__(self, trees: TrainingTrees, batching: "Batching") -> None:
        self.trees, self.batching = trees, batching

    def __getitem__(self, visits: Sequence[Visit]) -> tuple[TreeRow, ...]:
        how = self.batching
        if how.share.num_ranks == 1:
            return pack_trees([self.trees[visit] for visit in visits], how.tokens_per_row, how.loss_mean)
        sizes, blank = zip(*map(self.trees.measure, visits), strict=True)
        normaliser = sum_of_weights([branch for tree in blank for branch in tree.branches], how.loss_mean)
        cost = partial(passes, width=how.width)
        shared = shared_rows(sizes, how.tokens_per_row, how.share.num_ranks, cost)[how.share.rank]
        own = {place: self.trees[visits[place]] for row in shared for place, _ in row.pieces}
        for place, tree in own.items():
            if TreeSize.of(tree) != sizes[place]:
                # Other processes have dealt rows by the size that this clip was thought to have.
                raise RuntimeError(f"{tree.clip_id}: measured as {sizes[place]}, read as {TreeSize.of(tree)}")
        return laid_out(shared, own, normaliser, how.loss_mean)


@dataclass(frozen=True)
class AskedClip:
    """A clip and what is asked about it; nothing of it holds an answer.

    Attributes:
        clip: The clip to show.
        questions: Each question by the id under which its reply is kept, in the order in which they are asked.
    """

    clip: Clip
    questions: Mapping[str, Question]


class QuestionSamples(Dataset[ClipSample]):
    """Clips with questions and without answers, in order, for whoever is asked.

    Args:
        clips: The clips, each with its questions.
        show: What is shown of a clip, which reads its video.
        writer: Renders prompts from questions.
        modes: Inference modes in which every question is asked, as far as its task has words for them.
    """

    def __init__(self, clips: Sequence[AskedClip], show: Show, writer: BranchWriter, modes: Sequence[Mode]) -> None:
        self.clips, self.show, self.writer, self.modes = clips, show, writer, tuple(modes)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> ClipSample:
        asked = self.clips[index]
        branches = tuple(
            self.writer.ask(id_, question, mode)
            for mode in self.modes
            for id_, question in asked.questions.items()
            if mode in self.writer.book[question.task].modes
        )
        return ClipSample(asked.clip.id, self.writer.book.system, self.show(asked.clip), branches)


class QuestionTrees(Dataset[ClipTree]):
    """Clip trees without targets, one per clip in order, for validation, evaluation and prediction.

    Args:
        samples: The clips and questions.
        processor: Makes trees of them.
    """

    def __init__(self, samples: QuestionSamples, processor: ClipProcessor) -> None:
        self.samples, self.processor = samples, processor

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> ClipTree:
        return self.processor.encode(self.samples[index])


class ScheduleBatches(Sampler[list[Visit]]):
    """Batches of a visit schedule from one step to another; deliberately without a length (see `train_dataloader`)."""

    def __init__(self, schedule: VisitSchedule, first_step: int, last_step: int) -> None:
        self.schedule, self.first_step, self.last_step = schedule, first_step, last_step

    def __iter__(self) -> Iterator[list[Visit]]:
        for step in range(self.first_step, self.last_step):
            yield self.schedule.batch(step)


class AskedBatch(NamedTuple):
    """A batch of questions by the places of its clips; a filler is read only to keep other processes company."""

    clips: range
    filler: bool


class QuestionRows(Dataset[tuple[TreeRow, ...]]):
    """The packed rows of a batch of questions, indexed by `AskedBatch`."""

    def __init__(self, trees: QuestionTrees, tokens_per_row: int) -> None:
        self.trees, self.tokens_per_row = trees, tokens_per_row

    def __getitem__(self, batch: AskedBatch) -> tuple[TreeRow, ...]:
        rows = pack_trees([self.trees[place] for place in batch.clips], self.tokens_per_row)
        return tuple(row.as_filler() for row in rows) if batch.filler else rows


class AskedBatches(Sampler[AskedBatch]):
    """Every process's batches of questions: whole batches are dealt, so that their rows are those of one process.

    All processes have as many; those that were dealt fewer end with a filler.
    """

    def __init__(self, num_clips: int, batch_size: int, share: Share) -> None:
        self.batches = [
            AskedBatch(range(start, min(start + batch_size, num_clips)), filler=False)
            for start in range(0, num_clips, batch_size)
        ]
        self.share = share

    def __len__(self) -> int:
        return -(-len(self.batches) // self.share.num_ranks)

    def __iter__(self) -> Iterator[AskedBatch]:
        for turn in range(len(self)):
            place = turn * self.share.num_ranks + self.share.rank
            # The last batch is the smallest one.
            yield self.batches[place] if place < len(self.batches) else self.batches[-1]._replace(filler=True)


@dataclass(frozen=True)
class Batching:
    """How clip trees become batches of packed rows.

    Attributes:
        batch_size: Clips in a batch of questions; the schedule knows the size of a training batch.
        tokens_per_row: Most tokens of a packed row.
        num_workers: Number of loader processes.
        loss_mean: What the loss of a step is a mean over.
        share: The part of every step, and of all questions, that is this process's.
        width: Width of the language model, by which rows are shared fairly; see `passes`.
    """

    batch_size: int
    tokens_per_row: int
    num_workers: int
    loss_mean: LossMean = "annotations"
    share: Share = field(default_factory=Share)
    width: int = 1

    def loader(self, dataset: Dataset, sampler: Sampler) -> DataLoader:
        """A loader of batches of packed rows, which `sampler` numbers."""
        # spawn: forked children of a process that already runs decoder or tokenizer threads can deadlock
        return InputLoader(
            dataset,
            sampler,
            num_workers=self.num_workers,
            worker_init_fn=_one_thread,
            multiprocessing_context="spawn" if self.num_workers else None,
            persistent_workers=self.num_workers > 0,  # a fresh worker imports for seconds at every validation
        )


def question_loader(samples: QuestionSamples, processor: ClipProcessor, batching: Batching) -> DataLoader:
    """Any clips with any questions, in order; no answers are needed."""
    rows = QuestionRows(QuestionTrees(samples, processor), batching.tokens_per_row)
    return batching.loader(rows, AskedBatches(len(samples), batching.batch_size, batching.share))


def _one_thread(worker_id: int) -> None:
    torch.set_num_threads(1)
