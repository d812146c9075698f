"""A clip with its annotations as a loader decodes it: text and pixels, no tokens yet.

Nothing here leads back to the clip's record, so neither its label nor its event time can reach a student by this way.
"""

from dataclasses import dataclass

from autodrive.schema import Mode
from autodrive.video.decoder import DecodedFrames


@dataclass(frozen=True)
class Text:
    """A piece of text that every branch sees."""

    text: str


@dataclass(frozen=True)
class Video:
    """Frames that every branch sees.

    Attributes:
        frames: The pixels, with the times at which the file shows them.
        fps: Frames per second that were asked for. Positions on a grid are made from it; measured times jitter, and
            their mean is another number.
    """

    frames: DecodedFrames
    fps: float


Part = Text | Video


@dataclass(frozen=True)
class Turn:
    """One question and its answer.

    Attributes:
        prompt: What the user says; it never contains the answer.
        target: What the student is taught to reply; None where it is asked.
    """

    prompt: str
    target: str | None = None


@dataclass(frozen=True)
class Branch:
    """One annotation as text.

    Attributes:
        annotation_id: Names the annotation in everything that comes of the branch.
        turns: A conversation; later turns see the earlier ones, every target is supervised, and only the last turn may
            be without a target. Options are scored and replies are generated at the end of the last prompt.
        option_targets: Answer texts of the last turn's options in the order shown, for scoring.
        weight: Share of the loss relative to the other annotations of the step; negative to teach against the target.
        mode: Inference mode that the prompt asks for.
    """

    annotation_id: str
    turns: tuple[Turn, ...]
    option_targets: tuple[str, ...] = ()
    weight: float = 1.0
    mode: Mode = "direct"

    def __post_init__(self) -> None:
        if not self.turns or any(turn.target is None for turn in self.turns[:-1]):
            raise ValueError(f"branch {self.annotation_id}: needs a turn, and a target in every turn but the last")


@dataclass(frozen=True)
class ClipSample:
    """A clip and its annotations.

    Attributes:
        clip_id: Names the clip; the record itself, which holds the truth, stays behind.
        system: System prompt, the same for every clip of a run.
        prefix: What all branches share, in the order in which it is read.
        branches: The annotations, each a conversation of its own behind the prefix.
    """

    clip_id: str
    system: str
    prefix: tuple[Part, ...]
    branches: tuple[Branch, ...]
