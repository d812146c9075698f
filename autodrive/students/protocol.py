"""What the rest of the house knows about a student."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from autodrive.mixture.clip_tree import ClipProcessor, TreeRow
from autodrive.students.prefill import Generated
from autodrive.students.preprocessing import Resolution


class Prefilled(Protocol):
    """A row that was read once.

    Attributes:
        log_probs: (spans, vocabulary) of the first token of every branch's answer.
    """

    log_probs: Tensor

    def score_options(self) -> list[tuple[float, ...]]:
        """For every branch, the log-probability (natural, summed over tokens) of each of its options."""
        ...

    def generate(self, max_new_tokens: Sequence[int]) -> list[Generated]:
        """For every branch, the greedy answer to its prompt in tokens, as if it were alone with the prefix."""
        ...


@runtime_checkable
class Student(Protocol):
    """A vision-language model with the processor that feeds it; every implementation is an `nn.Module`."""

    name: str
    processor: ClipProcessor

    def supervised_logits(self, row: TreeRow) -> Tensor:
        """Logits (S, vocabulary) of the tokens that follow the row's `source_positions`."""
        ...

    def prefill(self, row: TreeRow) -> Prefilled:
        """Read a row once, to score options and to generate from it."""
        ...

    def save(self, folder: Path) -> None:
        """Write weights, tokenizer and processor settings in the checkpoint's own layout."""
        ...


class StudentSpec(Protocol):
    """What `conf/student/*.yaml` instantiates: a recipe that builds a student once the run's settings are known.

    Attributes:
        name: kept in records.
        full_size: whether it is too large for the values of `scale=tiny`, where it is refused.
    """

    name: str
    full_size: ClassVar[bool]

    def build(self, texts: Iterable[str], fps: float, resolution: Resolution, seed: int) -> Student:
        """Build the student.

        Args:
            texts: everything the student will read or write; a student from scratch trains its tokenizer on them.
            fps: requested frames per second.
            resolution: bounds on visual tokens per temporal patch.
            seed: of a student from scratch's weights; pretrained ones ignore it.
        """
        ...
