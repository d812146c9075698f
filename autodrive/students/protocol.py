"""What the rest of the house knows about a student."""

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from autodrive.mixture.clip_tree import ClipProcessor, TreeBatch
from autodrive.students.preprocessing import Resolution


@runtime_checkable
class Student(Protocol):
    """A vision-language model with the processor that feeds it; every implementation is an `nn.Module`."""

    name: str
    processor: ClipProcessor

    def supervised_logits(self, batch: TreeBatch) -> Tensor:
        """Logits (S, vocabulary) of the tokens that follow the batch's `source_positions`."""
        ...

    def next_token_log_probs(self, batch: TreeBatch) -> Tensor:
        """Log-probabilities (spans, vocabulary) of the first token of every branch's answer."""
        ...

    def score_options(self, batch: TreeBatch) -> list[tuple[float, ...]]:
        """For every branch, the log-probability (natural, summed over tokens) of each of its options."""
        ...

    def generate(self, batch: TreeBatch, max_new_tokens: int) -> list[str]:
        """For every branch, the greedy answer to its prompt, as if it were alone with the prefix."""
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
