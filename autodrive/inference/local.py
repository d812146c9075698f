"""Asks a student that is on this machine, alone or shared by several processes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.distributed.device_mesh import init_device_mesh

from autodrive.annotation.supply import AnnotatedClip
from autodrive.inference.answering import answer_questions, respondent_of, with_progress
from autodrive.inference.evaluating import Asking
from autodrive.mixture.clip_batches import ClipReader
from autodrive.mixture.datamodule import ClipTreeDataModule
from autodrive.ranks.group import Group
from autodrive.schema import Reply, SetAside
from autodrive.students.sharding import shard
from autodrive.students.student import Student


class LocalAnswerer:
    """A student with its loaders; see `Answerer`.

    Args:
        student: Who is asked; it is moved to the device, and cut up there if `sharded`.
        loaders: Reads clips for this student.
        device: Device that it works on.
        group: The processes that share the questions.
        sharded: Whether they share the weights, too, since one device cannot hold them.
    """

    def __init__(
        self,
        student: Student,
        loaders: ClipTreeDataModule,
        device: torch.device,
        group: Group | None = None,
        sharded: bool = False,
    ) -> None:
        self.student, self.loaders, self.group, self.sharded = student, loaders, group or Group(), sharded
        # While the weights are whole, where they were read.
        respondent = self.group.from_first(respondent_of(student) if self.group.leads else None)
        assert respondent is not None
        self.respondent = respondent
        if sharded:
            shard(student, init_device_mesh(device.type, (self.group.size,)))
        else:
            student.to(device)

    @property
    def unanswered(self) -> Sequence[SetAside]:
        """Nothing: whoever is here answers."""
        return ()

    def frames_of(self, clip_id: str) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """See `Answerer`."""
        return self.loaders.frames_of(clip_id)

    def facts(self) -> dict[str, Any]:
        """Nothing beside what every run says."""
        return {}

    @property
    def reader(self) -> ClipReader:
        """See `Answerer`."""
        return self.loaders.reader

    def replies(self, clips: Sequence[AnnotatedClip], asking: Asking, on_clips: Callable[[int], None]) -> list[Reply]:
        """See `Answerer`."""
        batches = self.loaders.dataloader_about(clips, asking.modes, show=asking.show)
        own = answer_questions(
            self.student,
            with_progress(batches, lambda num_clips: on_clips(num_clips * self.group.size)),
            {id_: question for clip in clips for id_, question in clip.questions()},
            self.loaders.writer.book,
            self.respondent,
            self.group if self.sharded else None,
            asking.samples,
        )
        # Only replies travel, and each is read beside its reference once.
        gathered = self.group.all_of(list(own))
        return [reply for replies in gathered for reply in replies] if self.group.leads else []
