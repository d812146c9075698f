"""What a training has to read: assumed, since a plan is made before there are data, and told as assumed."""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from autodrive.bounds import Count, CountOrZero, PositiveNumber
from autodrive.mixture.mixture import Mixture
from autodrive.students.anatomy import Anatomy
from autodrive.students.processor import Processor

PUBLISHED_ANNOTATIONS_PER_VISIT = 5.1  # VLM-AutoDrive: 349k annotations over 68k visits after upsampling


@dataclass(frozen=True)
class Workload:
    """What is assumed of the clips and of what is taught about them (`conf/workload/*.yaml`).

    Attributes:
        source_width: Width of the source videos in pixels.
        source_height: Height of the source videos in pixels.
        visits_per_epoch: Clip visits in an epoch.
        annotations_per_visit: Annotations taught in a visit, a mean; None: what the mixture says (see `assumed`).
        text_tokens: Tokens of a clip's prefix beside its video: system prompt and headers.
        prompt_tokens: Tokens of an annotation's prompt, a mean.
        target_tokens: Tokens of an annotation's answer with its end, a mean.
    """

    source_width: Count
    source_height: Count
    visits_per_epoch: Count
    annotations_per_visit: PositiveNumber | None
    text_tokens: CountOrZero
    prompt_tokens: Count
    target_tokens: Count


def assumed(workload: Workload, mixture: Mixture, sources: Collection[str]) -> Workload:
    """The workload with as many annotations a visit as a mixture teaches.

    Args:
        workload: What is assumed; a number that it has stays.
        mixture: How the sources are taught.
        sources: Their names. One without `per_visit` teaches what its data have: then the published mean is taken.
    """
    if workload.annotations_per_visit is not None:
        return workload
    parts = [mixture.parts.get(name) for name in mixture.taught(sources)]
    known = [part.per_visit / part.every for part in parts if part is not None and part.per_visit is not None]
    mean = sum(known) if len(known) == len(parts) else PUBLISHED_ANNOTATIONS_PER_VISIT
    return replace(workload, annotations_per_visit=mean)


@dataclass(frozen=True)
class FrameGroups:
    """A clip as the vision tower sees it.

    Attributes:
        groups: Groups of frames (temporal patches).
        rows: Visual tokens along a group's height.
        columns: Visual tokens along a group's width.
    """

    groups: int
    rows: int
    columns: int

    @property
    def of_a_group(self) -> int:
        """Visual tokens of a group."""
        return self.rows * self.columns

    @property
    def tokens(self) -> int:
        """Visual tokens of the clip."""
        return self.groups * self.of_a_group

    def patches(self, sizes: Anatomy) -> float:
        """Patches that a student of these sizes cuts it into."""
        return self.tokens * sizes.pictures_per_group * sizes.patches_per_token

    @classmethod
    def of(cls, processor: Processor, num_frames: int, width: int, height: int) -> "FrameGroups":
        """What `processor` makes of so many frames of a source of this size in pixels."""
        height_px, width_px = processor.frame_size(width, height)
        of_a_group = processor.visual_tokens(processor.frames_per_group, width, height)
        groups = processor.visual_tokens(num_frames, width, height) // of_a_group
        token_side_px = math.sqrt(height_px * width_px / of_a_group)
        return cls(groups, round(height_px / token_side_px), round(width_px / token_side_px))


@dataclass(frozen=True)
class Visit:
    """One visit of a clip in tokens: a clip tree, or without trees as many sequences as annotations.

    Attributes:
        video: The clip as the vision tower sees it.
        text_tokens: Tokens of the prefix beside the video.
        annotations: Branches behind the prefix; a mean, so not a whole number.
        prompt_tokens: Tokens of a branch's prompt.
        target_tokens: Tokens of a branch's answer.
    """

    video: FrameGroups
    text_tokens: int
    annotations: float
    prompt_tokens: int
    target_tokens: int

    @property
    def prefix_tokens(self) -> int:
        """Tokens that all branches share."""
        return self.video.tokens + self.text_tokens

    @property
    def branch_tokens(self) -> int:
        """Tokens of one branch."""
        return self.prompt_tokens + self.target_tokens

    @property
    def tokens(self) -> float:
        """Tokens of the whole tree."""
        return self.prefix_tokens + self.annotations * self.branch_tokens

    @property
    def supervised_tokens(self) -> float:
        """Tokens whose prediction is trained."""
        return self.annotations * self.target_tokens

    @property
    def attended_pairs(self) -> float:
        """Pairs of tokens of which one attends to the other: the prefix causally, each branch to it and to itself."""
        prefix, branch = self.prefix_tokens, self.branch_tokens
        within = prefix * (prefix + 1) / 2
        return within + self.annotations * (branch * prefix + branch * (branch + 1) / 2)

    @property
    def supervised_pairs(self) -> float:
        """The same for the supervised tokens alone."""
        before = self.prefix_tokens + self.prompt_tokens
        return self.supervised_tokens * (before + (self.target_tokens - 1) / 2)
