"""What a student's forward pass can be asked for, and what its language model is given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers import DynamicCache

from autodrive.students.noise import EmbeddingNoise
from autodrive.trees.clip_tree import TreeRow


@dataclass(frozen=True)
class ReadRow:
    """Read a packed row.

    Attributes:
        row: The packed row that is read.
        places: (L,) places in the row whose next token's logits are wanted.
        cache: Takes the row's keys and values, if given.
        noise: Laid over the row's embeddings, if given.
    """

    row: TreeRow
    places: Tensor
    cache: DynamicCache | None = None
    noise: EmbeddingNoise | None = None


@dataclass(frozen=True)
class ReadOn:
    """Read further tokens behind what a cache holds.

    Shape letters: T trees, Q new tokens, K tokens seen so far and new.

    Attributes:
        ids_TQ: Ids of the new tokens of each tree.
        positions_TQ: Their position ids, the same on all axes.
        visible_TQK: Bool, what each of them may see.
        places: (L,) tree and (L,) slot of the tokens whose next token's logits are wanted.
        cache: Grows by the new tokens.
    """

    ids_TQ: Tensor
    positions_TQ: Tensor
    visible_TQK: Tensor
    places: tuple[Tensor, Tensor]
    cache: DynamicCache


@dataclass(frozen=True)
class Embedded:
    """A row as a language model takes it.

    Attributes:
        tokens_NC: (N, width) embeddings of its tokens, visual ones in their places.
        further: What the family's language model is handed beside them, by keyword.
    """

    tokens_NC: Tensor
    further: Mapping[str, Any] = field(default_factory=dict)
