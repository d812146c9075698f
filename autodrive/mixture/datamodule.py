"""The loaders of a run, as Lightning asks for them."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import lightning as L
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from autodrive.annotation.supply import AnnotatedClip
from autodrive.mixture.clip_batches import (
    AskedClip,
    Batching,
    BranchWriter,
    ClipReader,
    QuestionSamples,
    QuestionTrees,
    ScheduleBatches,
    Show,
    TrainingRows,
    TrainingTrees,
    frames_for_people,
    question_loader,
)
from autodrive.mixture.mixture import VisitSchedule
from autodrive.schema import Clip, Mode, Split
from autodrive.trees.clip_tree import ClipTree
from autodrive.trees.sample import ClipSample


class ClipTreeDataModule(L.LightningDataModule):
    """Train, validation and test loaders of a run.

    Args:
        clips: The run's clips by split, with what is taught or asked about them.
        schedule: The stream of training visits; None where nothing is trained.
        reader: Decodes clips for the student.
        writer: Renders prompts and targets.
        batching: How clip trees become batches.
        num_steps: Optimiser steps of the whole training.
    """

    def __init__(
        self,
        clips: Mapping[Split, Sequence[AnnotatedClip]],
        schedule: VisitSchedule | None,
        reader: ClipReader,
        writer: BranchWriter,
        batching: Batching,
        num_steps: int,
    ) -> None:
        super().__init__()
        self.clips, self.schedule = clips, schedule
        self.reader, self.writer = reader, writer
        self.batching, self.num_steps = batching, num_steps

    def train_dataloader(self) -> DataLoader:
        """Batches from the trainer's current step on, so that a resumed run continues where it stopped.

        The sampler has no length: Lightning would otherwise add the steps already done to it and stop early.
        """
        assert self.schedule is not None, "nothing to train"
        first_step = self.trainer.global_step if self.trainer else 0
        return self.batching.loader(
            TrainingRows(TrainingTrees(self.reader, self.writer), self.batching),
            ScheduleBatches(self.schedule, first_step, self.num_steps),
        )

    def val_dataloader(self) -> DataLoader:
        """Validation clips with the headline task's question, direct: all that choosing a checkpoint needs.

        Where nobody asks it, with all direct questions: checkpoints are written after validation.
        """
        choosing = self.question_dataloader("val", ("direct",), tasks=(self.writer.book.headline,))
        return choosing if len(choosing) else self.question_dataloader("val", ("direct",))

    def question_dataloader(
        self, split: Split, modes: Sequence[Mode], tasks: Collection[str] | None = None
    ) -> DataLoader:
        """The clips of a split, in order, with the questions of some tasks (None: all) in some inference modes."""
        return self.dataloader_about(self.clips[split], modes, tasks)

    def dataloader_about(
        self,
        clips: Sequence[AnnotatedClip],
        modes: Sequence[Mode],
        tasks: Collection[str] | None = None,
        show: Show | None = None,
    ) -> DataLoader:
        """Any clips, in order, with their questions of some tasks (None: all) in some inference modes.

        `show` says what is shown of a clip; None: its video.
        """
        asked = QuestionSamples(self._asked(clips, modes, tasks), show or self.reader.shown, self.writer, modes)
        return question_loader(asked, self.reader.processor, self.batching)

    def smallest_training_clip(self) -> ClipTree | None:
        """The smallest clip of the first training batch that is taught something with options; None if none is."""
        assert self.schedule is not None, "nothing to train"
        visits = sorted(self.schedule.batch(0), key=lambda visit: self._size(visit.clip))
        dataset = TrainingTrees(self.reader, self.writer)
        return _first_with_options(dataset[visit] for visit in visits)

    def smallest_asked_clip(self, split: Split, modes: Sequence[Mode]) -> ClipTree | None:
        """The same of the first batch of questions about a split."""
        first = self._asked(self.clips[split], modes)[: self.batching.batch_size]
        first.sort(key=lambda asked: self._size(asked.clip))
        dataset = self._trees(first, modes)
        return _first_with_options(dataset[index] for index in range(len(dataset)))

    def some_asked_clips(self, split: Split, modes: Sequence[Mode], num: int) -> list[ClipSample]:
        """A few clips of a split, from its first to its last, with all that is asked about them."""
        asked = self._asked(self.clips[split], modes)
        chosen = sorted({round(place) for place in np.linspace(0, len(asked) - 1, min(num, len(asked)))})
        samples = QuestionSamples([asked[place] for place in chosen], self.reader.shown, self.writer, modes)
        return [samples[index] for index in range(len(samples))]

    def _trees(self, asked: Sequence[AskedClip], modes: Sequence[Mode]) -> QuestionTrees:
        return QuestionTrees(QuestionSamples(asked, self.reader.shown, self.writer, modes), self.reader.processor)

    def _asked(
        self, clips: Sequence[AnnotatedClip], modes: Sequence[Mode], tasks: Collection[str] | None = None
    ) -> list[AskedClip]:
        book = self.writer.book
        names = {name for name, task in book.tasks.items() if set(task.modes) & set(modes)}
        names &= names if tasks is None else set(tasks)
        asked = [
            AskedClip(c.clip, {id_: question for id_, question in c.questions() if question.task in names})
            for c in clips
        ]
        return [clip for clip in asked if clip.questions]

    def _size(self, clip: Clip) -> float:
        height, width = self.reader.processor.frame_size(clip.road.width, clip.road.height)
        return (clip.end_s - clip.start_s) * height * width

    def frames_of(self, clip_id: str) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """What the student sees of a clip; see `frames_for_people`."""
        clip = next(c.clip for members in self.clips.values() for c in members if c.clip.id == clip_id)
        return frames_for_people(self.reader, clip)


def _first_with_options(trees: Iterable[ClipTree]) -> ClipTree | None:
    return next((tree for tree in trees if any(branch.option_ids for branch in tree.branches)), None)
