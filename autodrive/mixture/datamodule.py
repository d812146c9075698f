"""Loaders: from labelled clips to packed rows of clip trees."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from autodrive.labels import LabelSet
from autodrive.mixture.mixture import LabelledClip, Mixture, Visit, VisitSchedule
from autodrive.prompts import PromptBook, render_target
from autodrive.schema import Annotation, Clip, Mode, Question, Split
from autodrive.trees.clip_tree import ClipProcessor, ClipTree
from autodrive.trees.packing import pack_trees
from autodrive.trees.sample import Branch, ClipSample, Turn, Video
from autodrive.video.decoder import DecodedFrames, Decoder
from autodrive.video.frame_cache import FrameCache, NoFrameCache
from autodrive.video.frame_grid import FrameGrid


@dataclass(frozen=True)
class ClipReader:
    """Reads a clip's frames at the requested rate and the student's size: the same way everywhere.

    Attributes:
        decoder: Decodes what the cache does not hold.
        processor: Knows the student's frame size.
        grid: When a clip is looked at.
        cache: Decoded frames that are kept.
    """

    decoder: Decoder
    processor: ClipProcessor
    grid: FrameGrid
    cache: FrameCache = field(default_factory=NoFrameCache)

    def read(self, clip: Clip, phase: float = 0.0) -> DecodedFrames:
        """Read one clip; `phase` in [0, 1) shifts the sampling grid within a frame interval."""
        view = clip.road
        requested_s = self.grid.timestamps(clip.start_s, clip.end_s, view.native_fps, phase)
        size = self.processor.frame_size(view.width, view.height)
        return self.cache.read(self.decoder, Path(view.path), view.content_hash, requested_s, size)


@dataclass(frozen=True)
class BranchWriter:
    """Turns annotations into branches: the prompt from the question alone, the target only for training."""

    prompts: PromptBook
    labels: LabelSet

    def ask(self, annotation_id: str, question: Question, mode: Mode) -> Branch:
        """A branch without an answer."""
        prompt = self.prompts.render(question, mode, self.labels)
        return Branch(annotation_id, (Turn(prompt.text),), prompt.option_targets, mode=mode)

    def teach(self, annotation: Annotation, mode: Mode, weight: float = 1.0) -> Branch:
        """A branch with its answer, for training only; `weight` is its relative share of the loss."""
        prompt = self.prompts.render(annotation.without_answer(), mode, self.labels)
        target = render_target(annotation, prompt, mode)
        return Branch(annotation.id, (Turn(prompt.text, target),), prompt.option_targets, weight, mode)


def training_texts(clips: Sequence[LabelledClip], writer: BranchWriter) -> list[str]:
    """Every prompt and target of training clips, for a student that learns its own tokens."""
    turns = [t for labelled in clips for a in labelled.annotations for t in writer.teach(a, "direct").turns]
    return [writer.prompts.system, *(text for turn in turns for text in (turn.prompt, turn.target or ""))]


class TrainingTrees(Dataset[ClipTree]):
    """Clip trees with targets, indexed by `Visit`."""

    def __init__(
        self, clips: Sequence[LabelledClip], mixture: Mixture, reader: ClipReader, writer: BranchWriter
    ) -> None:
        self.clips, self.mixture, self.reader, self.writer = clips, mixture, reader, writer

    def __getitem__(self, visit: Visit) -> ClipTree:
        labelled = self.clips[visit.clip_index]
        frames = self.reader.read(labelled.clip, visit.phase)
        annotations = self.mixture.for_visit(labelled, visit)
        branches = tuple(
            self.writer.teach(a, "direct", self.mixture.task_weights.get(a.task, 1.0)) for a in annotations
        )
        sample = ClipSample(labelled.clip.id, self.writer.prompts.system, (Video(frames),), branches)
        return self.reader.processor.encode(sample)


AskedClip = tuple[Clip, Sequence[tuple[str, Question]]]


class QuestionTrees(Dataset[ClipTree]):
    """Clip trees without targets, one per clip in order, for validation, evaluation and prediction.

    Args:
        clips: each clip with its questions by id; nothing here can see an answer.
        reader: decodes the clips.
        writer: renders the prompts.
        modes: inference modes in which every question is asked.
    """

    def __init__(
        self, clips: Sequence[AskedClip], reader: ClipReader, writer: BranchWriter, modes: Sequence[Mode]
    ) -> None:
        self.clips, self.reader, self.writer, self.modes = clips, reader, writer, tuple(modes)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> ClipTree:
        clip, questions = self.clips[index]
        branches = tuple(self.writer.ask(id_, question, mode) for mode in self.modes for id_, question in questions)
        sample = ClipSample(clip.id, self.writer.prompts.system, (Video(self.reader.read(clip)),), branches)
        return self.reader.processor.encode(sample)


class ScheduleBatches(Sampler[list[Visit]]):
    """Batches of a visit schedule from one step to another; deliberately without a length (see `train_dataloader`)."""

    def __init__(self, schedule: VisitSchedule, first_step: int, last_step: int) -> None:
        self.schedule, self.first_step, self.last_step = schedule, first_step, last_step

    def __iter__(self) -> Iterator[list[Visit]]:
        for step in range(self.first_step, self.last_step):
            yield self.schedule.batch(step)


class ClipTreeDataModule(L.LightningDataModule):
    """Train, validation and test loaders of a run.

    Args:
        clips: labelled clips by split.
        mixture: decides how often training clips are visited and which annotations a visit takes.
        reader: decodes clips for the student.
        writer: renders prompts and targets.
        batch_size: clip visits per optimiser step.
        tokens_per_row: most tokens of a packed row.
        num_steps: optimiser steps of the whole training.
        num_workers: loader processes.
        seed: of balancing, visit order, frame phase and the draws of annotations.
    """

    def __init__(
        self,
        clips: Mapping[Split, Sequence[LabelledClip]],
        mixture: Mixture,
        reader: ClipReader,
        writer: BranchWriter,
        batch_size: int,
        tokens_per_row: int,
        num_steps: int,
        num_workers: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.reader, self.writer = reader, writer
        self.num_steps, self.num_workers, self.batch_size = num_steps, num_workers, batch_size
        self.clips, self.mixture = clips, mixture
        self.seed = seed
        self.pack = partial(pack_trees, tokens_per_row=tokens_per_row, loss_mean=mixture.loss_mean)

    def train_dataloader(self) -> DataLoader:
        """Batches from the trainer's current step on, so that a resumed run continues where it stopped.

        The batch sampler has no length: Lightning would otherwise add the steps already done to it and stop early.
        """
        schedule = self.mixture.schedule(self.clips["train"], self.batch_size, self.seed)
        first_step = self.trainer.global_step if self.trainer else 0
        return self._loader(
            TrainingTrees(self.clips["train"], self.mixture, self.reader, self.writer),
            batch_sampler=ScheduleBatches(schedule, first_step, self.num_steps),
        )

    def val_dataloader(self) -> DataLoader:
        """Validation clips with the multiple-choice question, direct: all that choosing a checkpoint needs."""
        return self.questions("val", ("direct",), tasks=("mcq",))

    def questions(self, split: Split, modes: Sequence[Mode], tasks: Collection[str] | None = None) -> DataLoader:
        """All clips of a split, in order, with the questions of some tasks (None: all) in some inference modes."""
        asked = [
            (c.clip, [(a.id, a.without_answer()) for a in c.annotations if tasks is None or a.task in tasks])
            for c in self.clips[split]
        ]
        return self.asking(asked, modes)

    def asking(self, clips: Sequence[AskedClip], modes: Sequence[Mode]) -> DataLoader:
        """Any clips with any questions, in order."""
        dataset = QuestionTrees(clips, self.reader, self.writer, modes)
        return self._loader(dataset, batch_size=self.batch_size, shuffle=False)

    def _loader(self, dataset: Dataset, **how) -> DataLoader:
        # spawn: forked children of a process that already runs decoder or tokenizer threads can deadlock
        return DataLoader(
            dataset,
            num_workers=self.num_workers,
            collate_fn=self.pack,
            worker_init_fn=_one_thread,
            multiprocessing_context="spawn" if self.num_workers else None,
            persistent_workers=self.num_workers > 0,  # a fresh worker imports for seconds at every validation
            **how,
        )


def _one_thread(worker_id: int) -> None:
    torch.set_num_threads(1)
