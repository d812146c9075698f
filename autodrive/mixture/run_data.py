"""What a run knows about its clips before any model exists."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autodrive.annotation.supply import AnnotatedClip
from autodrive.labels import LabelSet
from autodrive.mixture.clip_batches import BranchWriter
from autodrive.mixture.epoch import EpochPlan
from autodrive.mixture.mixture import Mixture
from autodrive.mixture.selection import Selection
from autodrive.mixture.set_aside import line_about_annotations
from autodrive.schema import SetAside, Split


@dataclass(frozen=True)
class RunData:
    """The clips of a run, with what is taught and asked about them.

    Attributes:
        labels: The run's classes; every clip's class and every class question is in these.
        writer: Renders prompts and targets.
        selection: Which clips are used, and which are not.
        mixture: The training recipe: visits, weights and modes of what is taught.
        plan: What an epoch of training visits and teaches; None where nothing is trained.
        annotations_set_aside: Annotations that no use is made of, with the reason.
        retention: Clips of the evaluated split with what is asked about them apart, before and after a training.
        remarks: What else there is to say of the recipe, in lines for people.
    """

    labels: LabelSet
    writer: BranchWriter
    selection: Selection
    mixture: Mixture
    plan: EpochPlan | None
    annotations_set_aside: Sequence[SetAside]
    retention: Sequence[AnnotatedClip] = ()
    remarks: Sequence[str] = ()

    @property
    def clips(self) -> dict[Split, list[AnnotatedClip]]:
        """The used clips by split, with what training teaches or evaluation asks."""
        return self.selection.clips

    @property
    def set_aside(self) -> list[SetAside]:
        """Clips and annotations that no use is made of, with the reason."""
        return [*self.selection.dropped, *self.annotations_set_aside]

    def lines(self) -> list[str]:
        """What is set aside and what would use it, in lines for people."""
        return [*self.selection.lines, *line_about_annotations(self.annotations_set_aside), *self.remarks]

    @property
    def fingerprint(self) -> str:
        """Identifies all clips and annotations of the run."""
        if not self.retention:
            return self.selection.fingerprint
        asked = [annotation.content for clip in self.retention for annotation in clip.annotations]
        return hashlib.sha256(" ".join([self.selection.fingerprint, *asked]).encode()).hexdigest()[:16]

    def facts(self) -> dict[str, Any]:
        """What `provenance.json` says of the data."""
        facts: dict[str, Any] = {
            "data_fingerprint": self.fingerprint,
            "clips_by_split_and_class": self.selection.counts(),
            "clips_dropped": len(self.selection.dropped),
            "annotations_set_aside": len(self.annotations_set_aside),
            "set_aside": self.lines(),
        }
        if self.labels.folds:
            facts["folded_classes"] = dict(self.labels.counts_as)
        if self.plan is not None:
            facts["mixture"] = {
                "unique_clips": self.plan.balanced.unique_clips,
                "visits_per_epoch": self.plan.visits_per_class(),
                "annotations_per_epoch": self.plan.annotations_per_epoch(),
                "annotations_per_epoch_by_task": self.plan.annotations_per_epoch("task"),
                "annotations_per_epoch_by_class": self.plan.annotations_per_epoch("label"),
                "annotations_per_visit": sum(self.plan.counts.values()) / len(self.plan.visits),
            }
        return facts
