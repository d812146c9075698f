"""What a file of `conf/student` instantiates."""

from collections.abc import Iterable
from typing import ClassVar, Protocol

from autodrive.students.bases import Base
from autodrive.students.resolution import Resolution
from autodrive.students.student import Student


class StudentSpec(Protocol):
    """What `conf/student/*.yaml` instantiates: a recipe that builds a student once the run's settings are known.

    Attributes:
        name: Name of the recipe, kept in predictions and tables.
        full_size: Whether it is too large for the values of `scale=tiny`, where it is refused.
        fixed_resolution: Whether all its frames have one size, so that a resolution cannot be chosen.
    """

    name: str
    full_size: ClassVar[bool]
    fixed_resolution: ClassVar[bool]

    @property
    def frames_per_group(self) -> int:
        """Frames that share one group of visual tokens; known before the student is built, for `resolution=auto`."""
        ...

    def base(self) -> Base | None:
        """The checkpoint that its weights are read from; None for a student from scratch."""
        ...

    def build(self, texts: Iterable[str], resolution: Resolution, seed: int) -> Student:
        """Make or read the weights and the tokenizer.

        Args:
            texts: Everything the student will read or write; a student from scratch trains its tokenizer on them.
            resolution: Bounds on the visual tokens of a group of frames.
            seed: Seed of the weights of a student from scratch; pretrained ones ignore it.
        """
        ...

    def sketch(self, resolution: Resolution) -> Student:
        """The student as `build` makes it, for counting: its weights have shapes and types and no values.

        They are on torch's meta device, nothing is downloaded or read, and the tokenizer knows bytes only.

        Args:
            resolution: Bounds on the visual tokens of a group of frames.

        Raises:
            InputError: What it is made from is not there.
        """
        ...
