"""NVILA as a student."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, SiglipVisionConfig

from autodrive.errors import InputError
from autodrive.students.anatomy import Anatomy
from autodrive.students.calls import Embedded
from autodrive.students.nvila_anatomy import anatomy_of_nvila, narrowed_nvila
from autodrive.students.nvila_checkpoint import read_nvila, write_nvila
from autodrive.students.nvila_model import GREY, NvilaModel, NvilaSizes, StockNvila, frames_of
from autodrive.students.nvila_processor import NvilaProcessor, NvilaVisual
from autodrive.students.preprocessing import normalise
from autodrive.students.resolution import Resolution
from autodrive.students.student import Student, Twin
from autodrive.trees.clip_tree import ClipTree, TreeRow


class NvilaStudent(Student):
    """An `NvilaModel`: NVILA-8B and 15B, and with the other projector NVILA-Lite."""

    family: ClassVar[str] = "nvila"
    model: NvilaModel
    processor: NvilaProcessor

    @property
    def text_model(self) -> PreTrainedModel:
        """The language model without its head; its embedding is in it."""
        return cast(PreTrainedModel, self.model.llm.model)

    @property
    def head(self) -> nn.Module:
        """The language model's head."""
        return self.model.llm.lm_head

    @property
    def vision(self) -> nn.Module:
        """The tower; the projector lies behind it."""
        return self.model.vision_tower

    @property
    def projectors(self) -> Sequence[nn.Module]:
        """The projector."""
        return (self.model.mm_projector,)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """See `Student`; the last one of the tower is not read."""
        return cast(Any, self.model.vision_tower).encoder.layers[:-1]

    def anatomy(self) -> Anatomy:
        """See `Student`."""
        return anatomy_of_nvila(self.model.sizes, self.processor)

    def twin(self, num_layers: int, resolution: Resolution) -> Twin:
        """See `Student`; its frames are as large, whatever the resolution."""
        model, text_scale, vision_scale = narrowed_nvila(self.model.sizes, self.processor, num_layers)
        student = NvilaStudent(f"twin of {self.name}", model.to(self.dtype), self.processor)
        return Twin(student, text_scale, vision_scale, lambda visual: cast(NvilaVisual, visual).patches_PD)

    def embed(self, row: TreeRow) -> Embedded:
        """Embeddings of a row's tokens, the frames' in the places of their placeholders."""
        visual = cast(NvilaVisual, row.visual)
        return Embedded(self.model.embed(row.input_ids, visual.patches_PD, visual.frames_B))

    def stock_model(self) -> StockNvila:
        """Stock parts, all of the tower among them."""
        parameter = next(self.model.parameters())
        sizes = self.model.sizes
        text = copy.deepcopy(sizes.text)
        text._attn_implementation = "sdpa"
        vision = SiglipVisionConfig(**sizes.vision.to_dict())
        stock_sizes = NvilaSizes(vision, text, sizes.projector, sizes.media_id)
        model = StockNvila(stock_sizes, self.processor.pooled_frames)
        model.load_state_dict(self.base_weights())
        return model.to(parameter.device, parameter.dtype).eval()

    def stock_inputs(self, tree: ClipTree, ids: list[int]) -> dict[str, Tensor]:
        """A plain sequence and whole frames; without positions: the stock model counts by itself."""
        parameter = next(self.model.parameters())
        grey, form = torch.tensor(GREY), self.processor
        floats = normalise(cast(NvilaVisual, tree.visual).patches_PD, grey, grey)
        frames = frames_of(floats, form.frame_side // form.patch_size, form.patch_size)
        inputs = {"input_ids": torch.tensor([tree.prefix_ids + ids]), "pixel_values": frames.to(parameter.dtype)}
        return {name: value.to(parameter.device) for name, value in inputs.items()}

    def write(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write a checkpoint in the layout of the released ones."""
        write_nvila(folder, self.model.sizes, weights)
        self.processor.tokenizer.save_pretrained(folder)

    @classmethod
    def read(cls, folder: Path, name: str, processor: Mapping[str, Any], dtype: torch.dtype) -> Self:
        """Read a checkpoint in the layout of the released ones.

        Raises:
            InputError: It cannot be read, or the processor cuts other patches than the tower takes.
        """
        model, tokenizer = read_nvila(folder, dtype, str(folder))
        ours = NvilaProcessor.from_settings(tokenizer, processor)
        theirs = processor_of(model.sizes, tokenizer, ours.pooled_frames)
        if ours != theirs:
            raise InputError("student.json: the processor does not fit config.json; restore the student's folder")
        return cls(name, model, ours)


def processor_of(sizes: NvilaSizes, tokenizer: Any, pooled_frames: int) -> NvilaProcessor:
    """The processor that a model's sizes ask for."""
    vision: Any = sizes.vision
    return NvilaProcessor(tokenizer, vision.image_size, vision.patch_size, sizes.projector, pooled_frames)
