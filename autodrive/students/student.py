"""What the rest of the house knows about a student: one base class, one forward pass, one way to save and load.

A family fills in `embed`, a few properties, and how its weights are written and read. Reading rows, reading on behind a
cache, option scores, replies and adapters are here and in `prefill`, the same for all.
"""

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from autodrive.errors import InputError
from autodrive.students import adapters
from autodrive.students.calls import ReadOn, ReadRow
from autodrive.students.prefill import PrefilledRow, without_gradients
from autodrive.students.processor import Processor
from autodrive.students.resolution import Resolution
from autodrive.students.tree_attention import check_tree_attention, use_tree_attention
from autodrive.trees.clip_tree import ClipTree, TreeRow
from autodrive.trees.layout import TreeLayout
from autodrive.whole_files import whole

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}  # by the names that configurations use
SETTINGS_FILE = "student.json"
# A closed list: a file that comes from elsewhere may choose among these classes and name no other.
FAMILIES = {"qwen2_5_vl": "autodrive.students.qwen_student.QwenStudent"}


class Student(nn.Module, ABC):
    """A vision-language model that reads clip trees.

    Attributes:
        family: Key of the class in `FAMILIES`.
        asks_last_layer: Whether the language model gives hidden states of a row only at the `places` it is called with.
        name: Name of the recipe, kept in records.
        model: The weights in the layout of the family's checkpoints; adapters are injected into it in place.
        processor: Turns clips into its tokens and pixels, and its tokens into text; holds no weights.
    """

    family: ClassVar[str]
    asks_last_layer: ClassVar[bool] = False

    def __init__(self, name: str, model: nn.Module, processor: Processor) -> None:
        """Wrap a model, whose language model then attends within clip trees.

        Raises:
            ValueError: It has layers that cannot.
        """
        super().__init__()
        self.name = name
        self.model = model
        self.processor = processor
        use_tree_attention(self.text_model)

    @property
    @abstractmethod
    def text_model(self) -> PreTrainedModel:
        """The language model without its head; it takes embeddings and position ids as transformers' decoders do."""

    @property
    @abstractmethod
    def head(self) -> nn.Module:
        """From hidden states to logits over the vocabulary."""

    @property
    @abstractmethod
    def vision(self) -> nn.Module:
        """All that lies between pixels and the language model."""

    @abstractmethod
    def embed(self, row: TreeRow) -> Tensor:
        """Embeddings (N, width) of a row's tokens, visual ones in their places."""

    @abstractmethod
    def stock_model(self) -> nn.Module:
        """The stock model with a copy of these weights and none of our replacements: what tests and benchmarks meet."""

    @abstractmethod
    def stock_inputs(self, tree: ClipTree, ids: list[int]) -> dict[str, Tensor]:
        """A tree's prefix and then `ids` as one plain causal sequence: keyword arguments of `stock_model`."""

    @abstractmethod
    def write(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write weights (safetensors, in the names of `model` without adapters) and tokenizer."""

    @classmethod
    @abstractmethod
    def read(cls, folder: Path, name: str, processor: Mapping[str, Any], dtype: torch.dtype) -> Self:
        """Read what `write` wrote; `processor` is what the processor's `settings` gave.

        Raises:
            InputError: The folder does not hold such a student.
        """

    def forward(self, call: ReadRow | ReadOn) -> Tensor:
        """Logits (L, vocabulary) at the places that a call asks for.

        Everything that uses weights goes through here, training and every step of generation alike: sharded weights are
        gathered by hooks of this module, and outside of its forward pass they are not there.
        """
        if isinstance(call, ReadRow):
            row = call.row
            check_tree_attention(self.text_model)  # whoever holds the model can set another implementation
            # transformers' decoders take (batch, N) positions, or (axes, batch, N) where the family has several.
            positions = row.position_ids if len(row.position_ids) == 1 else row.position_ids[:, None]
            hidden_NC = self.text_model(
                inputs_embeds=self.embed(row)[None],
                position_ids=positions,
                cache=call.cache,
                use_cache=call.cache is not None,
                tree_layout=TreeLayout.of(row, call.places),
                places=call.places,
            ).last_hidden_state[0]
            return self.head(hidden_NC if self.asks_last_layer else hidden_NC[call.places])
        hidden_TQC = self.text_model(
            input_ids=call.ids_TQ,
            position_ids=call.positions_TQ,
            attention_mask=call.visible_TQK[:, None],
            cache=call.cache,
            use_cache=True,
        ).last_hidden_state
        return self.head(hidden_TQC[call.places])

    def supervised_logits(self, row: TreeRow) -> Tensor:
        """Logits (S, vocabulary) of the tokens that follow the row's `source_positions`."""
        return self(ReadRow(row, row.source_positions))

    @without_gradients
    def prefill(self, row: TreeRow) -> PrefilledRow:
        """Read a row once, to score options and to generate from it."""
        cache = DynamicCache(config=self.text_model.config)
        ends = torch.tensor([s.target_start - 1 for s in row.spans], dtype=torch.long, device=row.input_ids.device)
        log_probs = self(ReadRow(row, ends, cache)).float().log_softmax(-1)

        return PrefilledRow(self, row, log_probs, cache, self.processor.end_id)

    def checkpoint_activations(self) -> None:
        """Keep only every layer's input in training and compute the rest again on the way back."""
        parts = [self.model] if isinstance(self.model, PreTrainedModel) else list(self.model.children())
        for part in parts:
            if isinstance(part, PreTrainedModel):
                part.activation_checkpointing_enable({"use_reentrant": False})
                # transformers lets inputs have gradients, for the other way to checkpoint: through a frozen tower, too.
                part.disable_input_require_grads()

    def save(self, folder: Path) -> None:
        """Write the weights in the layout of the family's checkpoints, an adapter in peft's, and `student.json`.

        The folder takes the place of whatever has its name, once it is whole.
        """
        with whole(folder) as partial:
            partial.mkdir()
            self.write(partial, adapters.base_weights(self.model))
            settings = {
                "family": self.family,
                "name": self.name,
                "processor": self.processor.settings(),
                "adapter": adapters.write_adapter(self.model, partial),
            }
            (partial / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def load_student(folder: Path, dtype: torch.dtype = torch.float32) -> Student:
    """Read what `Student.save` wrote, of whatever family.

    Args:
        folder: A folder that `Student.save` wrote: `checkpoints/student` of a run.
        dtype: Type of the base weights in memory; an adapter keeps its own.

    Raises:
        InputError: The folder does not hold a student of a family that is known here.
    """
    path = folder / SETTINGS_FILE
    if not path.is_file():
        raise InputError(f"{folder}: no {SETTINGS_FILE}, so this is not a saved student; give a run's checkpoint")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        family, name, processor, adapter = (settings[key] for key in ("family", "name", "processor", "adapter"))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error!r}), so it may be an older version's; train the student again"
        ) from None
    if family not in FAMILIES:
        raise InputError(f"{path}: family {family!r} is not known; choose a student of {', '.join(FAMILIES)}")
    module, _, class_name = FAMILIES[family].rpartition(".")
    try:
        student: Student = getattr(importlib.import_module(module), class_name).read(folder, name, processor, dtype)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
    except Exception as error:  # whatever a file that is cut off or another student's makes a library raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise InputError(f"{folder}: cannot be read ({reason}); restore the student's folder") from None
    if adapter is not None:
        adapters.read_adapter(student.model, folder, adapter)
    return student


class StudentSpec(Protocol):
    """What `conf/student/*.yaml` instantiates: a recipe that builds a student once the run's settings are known.

    Attributes:
        name: Name of the recipe, kept in predictions and tables.
        full_size: Whether it is too large for the values of `scale=tiny`, where it is refused.
        frames_per_group: Frames that share one group of visual tokens; known before the student is built, because a
            resolution is solved from it.
    """

    name: str
    full_size: ClassVar[bool]
    frames_per_group: ClassVar[int]

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
            InputError: The student's sizes are not known before its files are there.
        """
        ...
