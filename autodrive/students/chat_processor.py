"""Text of a ChatML conversation as a clip tree's tokens: what every family whose language model is a Qwen shares."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

from transformers import PreTrainedTokenizerBase

from autodrive.errors import InputError
from autodrive.students.processor import Processor, options_told_apart
from autodrive.students.qwen_tokenizer import END_OF_TURN, START_OF_TURN
from autodrive.trees.clip_tree import TokenBranch, TokenTurn
from autodrive.trees.sample import Branch


@dataclass(frozen=True)
class ChatProcessor(Processor):
    """A processor that writes turns between `<|im_start|>` and `<|im_end|>`; a family adds how video is read.

    Attributes:
        special_tokens: Those that the family writes; text never becomes one of them.
        tokenizer: A tokenizer that has them.
    """

    special_tokens: ClassVar[tuple[str, ...]]

    tokenizer: PreTrainedTokenizerBase

    def __post_init__(self) -> None:
        missing = [token for token in self.special_tokens if token not in self._special_ids]
        if missing:
            raise InputError(f"the student's tokenizer lacks {', '.join(missing)}; use the tokenizer of its family")

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    @property
    def end_id(self) -> int:
        """The token that ends an answer."""
        return self._special(END_OF_TURN)[0]

    def _branch(self, branch: Branch) -> TokenBranch:
        turns = []
        for number, turn in enumerate(branch.turns):
            # The first user turn began in the prefix, before the video; later ones follow an answer and its end.
            opening = self._text("\n") + self._turn_start("user") if number else []
            prompt = opening + self._text(turn.prompt) + self._turn_end() + self._turn_start("assistant")
            target = [] if turn.target is None else self._text(turn.target) + self._special(END_OF_TURN)
            turns.append(TokenTurn(prompt, target))
        options = options_told_apart([self._text(text) for text in branch.option_targets], self.end_id)
        return TokenBranch(branch.annotation_id, tuple(turns), options, branch.weight, branch.mode)

    def _turn(self, role: str, text: str) -> list[int]:
        return self._special(START_OF_TURN) + self._text(f"{role}\n{text}") + self._turn_end()

    def _turn_start(self, role: str) -> list[int]:
        return self._special(START_OF_TURN) + self._text(f"{role}\n")

    def _turn_end(self) -> list[int]:
        return self._special(END_OF_TURN) + self._text("\n")

    @cached_property
    def _special_ids(self) -> dict[str, int]:
        vocabulary = self.tokenizer.get_vocab()
        return {token: vocabulary[token] for token in self.special_tokens if token in vocabulary}

    def _special(self, token: str) -> list[int]:
        return [self._special_ids[token]]

    def _text(self, text: str) -> list[int]:
        return list(_ids_of_text(self.tokenizer, text))


@lru_cache(maxsize=2**14)
def _ids_of_text(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Ids of a text; clips are asked the same questions over and over, and a call takes 0.1 ms."""
    # Text that spells a special token stays text: questions and telemetry come from files.
    return tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
