"""What the rest of the house knows about a student: one base class, one forward pass, one way to save and load.

A family fills in `embed`, a few properties, and how its weights are written and read. Reading rows, reading on behind a
cache, option scores, replies and adapters are here and in `prefill`, the same for all.
"""

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, cast

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from autodrive.errors import InputError
from autodrive.ranks.group import Group
from autodrive.schema import Record
from autodrive.students.anatomy import Anatomy
from autodrive.students.bases import Base, BaseRecord, recorded_base
from autodrive.students.calls import Embedded, ReadOn, ReadRow
from autodrive.students.noise import EmbeddingNoise
from autodrive.students.prefill import PrefilledRow, without_gradients
from autodrive.students.processor import Processor
from autodrive.students.quantisation import is_quantised, quantise
from autodrive.students.resolution import Resolution
from autodrive.students.towers import TOWERS, Tower, Towers
from autodrive.students.tree_attention import check_tree_attention, use_tree_attention
from autodrive.trees.clip_tree import ClipTree, TreeRow
from autodrive.trees.layout import TreeLayout
from autodrive.trees.visual import VisualInput
from autodrive.whole_files import whole

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}  # by the names that configurations use
SETTINGS_FILE = "student.json"
ADAPTER_FOLDER = "adapter"  # not the student's own: transformers would take the two for one checkpoint
# A closed list: a file that comes from elsewhere may choose among these classes and name no other.
FAMILIES = {
    "qwen2_5_vl": "autodrive.students.qwen_student.QwenStudent",
    "qwen3_vl": "autodrive.students.qwen3_student.Qwen3VLStudent",
    "nvila": "autodrive.students.nvila_student.NvilaStudent",
}


class Student(nn.Module, ABC):
    """A vision-language model that reads clip trees.

    Attributes:
        family: Key of the class in `FAMILIES`.
        asks_last_layer: Whether the language model gives hidden states of a row only at the `places` it is called with.
        name: Name of the recipe, kept in records.
        model: The weights in the layout of the family's checkpoints; adapters are injected into it in place.
        processor: Turns clips into its tokens and pixels, and its tokens into text; holds no weights.
        dtype: Type that it computes in outside of training: that of the weights it was made from.
        base: The checkpoint that its weights were read from; None if no file holds them. It is what an adapter that is
            put on them names.
    """

    family: ClassVar[str]
    asks_last_layer: ClassVar[bool] = False

    def __init__(self, name: str, model: nn.Module, processor: Processor, base: Base | None = None) -> None:
        """Wrap a model, whose language model then attends within clip trees.

        Raises:
            ValueError: It has layers that cannot.
        """
        super().__init__()
        self.name = name
        self.model = model
        self.processor = processor
        self.base = base
        self.dtype = next(model.parameters()).dtype
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

    @property
    def projectors(self) -> Sequence[nn.Module]:
        """The parts of `vision` that end in embeddings of the language model; all of it where there is no tower."""
        return (self.vision,)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The blocks of the vision tower that are computed, one like the other; none where there is no such tower."""
        return ()

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The layers of the language model."""
        return cast(Any, self.text_model).layers

    @property
    def towers(self) -> Towers:
        """The model by its towers."""
        return Towers(self.model, self.vision, self.projectors, self.head)

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter is in place."""
        return bool(getattr(self.model, "peft_config", None))

    @abstractmethod
    def embed(self, row: TreeRow) -> Embedded:
        """Embeddings of a row's tokens, visual ones in their places, and what else the language model is handed."""

    @abstractmethod
    def stock_model(self) -> nn.Module:
        """The stock model with a copy of these weights and none of our replacements: what tests and benchmarks meet."""

    @abstractmethod
    def stock_inputs(self, tree: ClipTree, ids: list[int]) -> dict[str, Tensor]:
        """A tree's prefix and then `ids` as one plain causal sequence: keyword arguments of `stock_model`."""

    def anatomy(self) -> Anatomy:
        """Sizes that a plan computes with.

        Raises:
            InputError: The family has not said them.
        """
        raise InputError(f"student={self.name}: the sizes of {self.family} students are not known to plans yet")

    def twin(self, num_layers: int, resolution: Resolution) -> "Twin":
        """A narrow student on the CPU with `num_layers` a tower, of the type of these weights, for a resolution.

        Raises:
            InputError: The family has none.
        """
        raise InputError(f"student={self.name}: {self.family} students have no twins for plans yet")

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
            embedded = self.embed(row)
            embeddings_NC = embedded.tokens_NC
            if call.noise is not None:
                embeddings_NC = call.noise.added_to(embeddings_NC, row.trees)
            # transformers' decoders take (batch, N) positions, or (axes, batch, N) where the family has several.
            positions = row.position_ids if len(row.position_ids) == 1 else row.position_ids[:, None]
            hidden_NC = self.text_model(
                inputs_embeds=embeddings_NC[None],
                position_ids=positions,
                cache=call.cache,
                use_cache=call.cache is not None,
                tree_layout=TreeLayout.of(row, call.places),
                places=call.places,
                **embedded.further,
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

    def supervised_logits(self, row: TreeRow, noise: EmbeddingNoise | None = None) -> Tensor:
        """Logits (S, vocabulary) of the tokens that follow the row's `source_positions`."""
        return self(ReadRow(row, row.source_positions, noise=noise))

    @without_gradients
    def prefill(self, row: TreeRow, lockstep: Group | None = None) -> PrefilledRow:
        """Read a row once, to score options and to generate; in lockstep with processes that share the weights."""
        cache = DynamicCache(config=self.text_model.config)
        ends = torch.tensor([s.target_start - 1 for s in row.spans], dtype=torch.long, device=row.input_ids.device)
        log_probs = self(ReadRow(row, ends, cache)).float().log_softmax(-1)
        return PrefilledRow(self, row, log_probs, cache, self.processor.end_id, lockstep)

    def checkpoint_activations(self) -> None:
        """Keep only every layer's input in training and compute the rest again on the way back."""
        parts = [self.model] if isinstance(self.model, PreTrainedModel) else list(self.model.children())
        for part in parts:
            if isinstance(part, PreTrainedModel):
                part.activation_checkpointing_enable({"use_reentrant": False})
                # transformers lets inputs have gradients, for the other way to checkpoint: through a frozen tower, too.
                part.disable_input_require_grads()

    def base_weights(self) -> dict[str, Tensor]:
        """The model's weights by the names they have without an adapter, and without the adapter's own."""
        if not self.has_adapter:
            return dict(self.model.state_dict())
        from autodrive.students.adapters import base_weights  # imported here: peft takes seconds

        return base_weights(self.model)

    def adapter_name(self) -> str | None:
        """Kind, rank and digest of the adapter in place, such as `dora_r16@…`; None if there is none."""
        if not self.has_adapter:
            return None
        from autodrive.students.adapters import adapter_name  # imported here: peft takes seconds

        return adapter_name(self.model)

    def adapter_lines(self) -> list[str]:
        """What adapter is in place and on which layers, in words; empty if there is none."""
        if not self.has_adapter:
            return []
        from autodrive.students.adapters import description  # imported here: peft takes seconds

        return [description(self.model)]

    def add_adapter(self, folder: Path) -> None:
        """Put an adapter in peft's layout in place, which may have been trained elsewhere.

        Raises:
            InputError: It cannot be read, or does not fit this model.
        """
        from autodrive.students.adapters import read_adapter  # imported here: peft takes seconds

        read_adapter(self.model, folder)

    def merge(self) -> Self:
        """Turn the adapter in place, if there is one, into plain float32 weights, which no file holds yet."""
        if self.has_adapter:
            from autodrive.students.adapters import merge  # imported here: peft takes seconds

            merge(self.model)
            self.base = None
        return self

    def as_read(self) -> Self:
        """Weights that were trained in float32 rounded to `dtype`, as `load_student` reads them; adapters stay."""
        kept: set[int] = set()
        if self.has_adapter:
            from autodrive.students.adapters import adapter_parameters  # imported here: peft takes seconds

            kept = {id(parameter) for parameter in adapter_parameters(self.model)}
        for parameter in self.model.parameters():
            if id(parameter) not in kept and parameter.is_floating_point():
                parameter.data = parameter.data.to(self.dtype)
        return self

    def save(self, folder: Path) -> None:
        """Write what was trained: all weights in the layout of the family's checkpoints, or an adapter in peft's.

        An adapter's folder has its base's weights only where no other place has them. The folder takes the place of
        whatever has its name, once it is whole.
        """
        with whole(folder) as partial:
            partial.mkdir()
            base = self.base if self.has_adapter else None
            quantised = [tower for tower in TOWERS if is_quantised(self.towers.linear_layers(tower))]
            if quantised and base is None:
                raise ValueError("weights in 4 bits are not written; a quantised student needs a base that has them")
            if base is None:
                self.write(partial, self.base_weights())
            if self.has_adapter:
                from autodrive.students.adapters import write_adapter  # imported here: peft takes seconds

                write_adapter(self.model, partial / ADAPTER_FOLDER, base)
            settings = {
                "family": self.family,
                "name": self.name,
                "dtype": next(name for name, dtype in DTYPES.items() if dtype == self.dtype),
                "processor": self.processor.settings(),
                "adapter": self.has_adapter,
                "quantised": quantised,
                "base": None if base is None else base.record(),
            }
            (partial / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Twin:
    """A narrow student of few layers that is like another one in all else.

    Attributes:
        student: The twin, with weights that say nothing.
        text_scale: Its width as a share of the other's, in the language model.
        vision_scale: The same of the vision tower.
        pixels: Gives the patches of what a vision tower takes, uint8, in one tensor.
    """

    student: Student
    text_scale: float
    vision_scale: float
    pixels: Callable[[VisualInput], Tensor]


def load_student(folder: Path, dtype: torch.dtype | None = None) -> Student:
    """Read what `Student.save` wrote, of whatever family.

    Args:
        folder: A folder that `Student.save` wrote: `checkpoints/student` of a run.
        dtype: Type of the base weights in memory, to train them; None is the type that the student computes in. An
            adapter is float32 in either.

    Raises:
        InputError: The folder does not hold a student of a family that is known here, or an adapter's base has changed.
    """
    path = folder / SETTINGS_FILE
    if not path.is_file():
        raise InputError(f"{folder}: no {SETTINGS_FILE}, so this is not a saved student; give a run's checkpoint")
    try:
        settings = _Settings.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
        raise InputError(
            f"{path}: cannot be read ({reason}), so it may be an older version's; train the student again"
        ) from None
    if settings.family not in FAMILIES:
        raise InputError(f"{path}: family {settings.family!r} is not known; choose a student of {', '.join(FAMILIES)}")
    module, _, class_name = FAMILIES[settings.family].rpartition(".")
    own = DTYPES[settings.dtype]
    base = None if settings.base is None else recorded_base(settings.base, path)  # before weights are read
    try:
        family: type[Student] = getattr(importlib.import_module(module), class_name)
        weights = folder if base is None else base.folder()
        student = family.read(weights, settings.name, settings.processor, dtype or own)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
    except Exception as error:  # whatever a file that is cut off or another student's makes a library raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise InputError(f"{folder}: cannot be read ({reason}); restore the student's folder") from None
    student.dtype, student.base = own, base or Base(str(folder.absolute()))
    for tower in settings.quantised:
        quantise(student.model, student.towers.linear_layers(tower))
    if settings.adapter:
        student.add_adapter(folder / ADAPTER_FOLDER)
    return student


class _Settings(Record):
    """`student.json`: see `Student.save`."""

    family: str
    name: str
    dtype: Literal["float32", "bfloat16"]
    processor: dict[str, Any]
    adapter: bool
    quantised: tuple[Tower, ...]
    base: BaseRecord | None
