"""Qwen-VL models as students: the real transformers classes, fed with clip trees with explicit positions."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil

from autodrive.errors import InputError
from autodrive.students.anatomy import Anatomy
from autodrive.students.bases import Base
from autodrive.students.calls import Embedded
from autodrive.students.preprocessing import normalise
from autodrive.students.qwen_anatomy import anatomy_of, narrowed
from autodrive.students.qwen_checkpoint import read_checkpoint
from autodrive.students.qwen_last_layer import ask_last_layer
from autodrive.students.qwen_processor import QwenProcessor, QwenVisual, QwenVLProcessor
from autodrive.students.qwen_vision import use_fast_vision
from autodrive.students.resolution import Resolution
from autodrive.students.student import Student, Twin
from autodrive.trees.clip_tree import ClipTree, TreeRow


class QwenVLStudent(Student):
    """What the generations of Qwen-VL have in common.

    Attributes:
        model_class: The class of `model`.
        processor_class: The class of `processor`.
    """

    model_class: ClassVar[type[PreTrainedModel]]
    processor_class: ClassVar[type[QwenVLProcessor]]
    model: Any
    processor: QwenVLProcessor

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        processor: QwenVLProcessor,
        base: Base | None = None,
    ) -> None:
        """Wrap a model, whose vision tower then computes the same faster, see `qwen_vision`."""
        super().__init__(name, model, processor, base)
        use_fast_vision(self.model, processor.vision.image_mean, processor.vision.image_std)

    @property
    def text_model(self) -> PreTrainedModel:
        """The language model without its head; its embedding is in it."""
        return cast(PreTrainedModel, self.model.model.language_model)

    @property
    def head(self) -> nn.Module:
        """The language model's head."""
        return self.model.lm_head

    @property
    def vision(self) -> nn.Module:
        """The vision tower with its merger."""
        return self.model.model.visual

    @property
    def projectors(self) -> Sequence[nn.Module]:
        """The merger at the vision tower's end."""
        return (self.model.model.visual.merger,)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """See `Student`."""
        return self.model.model.visual.blocks

    def stock_model(self) -> PreTrainedModel:
        """Transformers' model with its own vision tower and attention."""
        parameter = next(self.model.parameters())
        model = self.model_class(copy.deepcopy(self.model.config))
        model.set_attn_implementation("sdpa")
        model.load_state_dict(self.base_weights())
        return cast(Any, model).to(parameter.device, parameter.dtype)

    def stock_inputs(self, tree: ClipTree, ids: list[int]) -> dict[str, Tensor]:
        """A plain sequence; its pixels are floats already, as transformers' processor hands them over."""
        parameter = next(self.model.parameters())
        visual, vision = cast(QwenVisual, tree.visual), self.processor.vision
        steps = (torch.arange(len(ids)) + tree.branch_start).to(tree.prefix_positions)
        inputs = {
            "input_ids": torch.tensor([tree.prefix_ids + ids]),
            "position_ids": torch.cat([tree.prefix_positions, steps.expand(3, -1)], dim=1)[:, None],
        }
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == self.model.config.video_token_id).int() * 2
        if len(visual.grid_thw):
            mean, std = torch.tensor(vision.image_mean), torch.tensor(vision.image_std)
            inputs["pixel_values_videos"] = normalise(visual.patches_PD, mean, std).to(parameter.dtype)
            inputs["video_grid_thw"] = visual.grid_thw
        return {name: value.to(parameter.device) for name, value in inputs.items()}

    def write(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write a checkpoint in Hugging Face layout, as the released ones are: what they are read with reads it."""
        self.model.save_pretrained(folder, state_dict=dict(weights))
        self.processor.tokenizer.save_pretrained(folder)
        vision = self.processor.vision
        pixels = Qwen2VLImageProcessorPil(
            patch_size=vision.patch_size,
            temporal_patch_size=vision.temporal_patch_size,
            merge_size=vision.merge_size,
            image_mean=list(vision.image_mean),
            image_std=list(vision.image_std),
        )
        pixels.save_pretrained(folder)

    @classmethod
    def read(cls, folder: Path, name: str, processor: Mapping[str, Any], dtype: torch.dtype) -> Self:
        """Read a checkpoint in Hugging Face layout.

        Raises:
            InputError: It cannot be read, or the processor cuts other patches than the vision tower takes.
        """
        model, tokenizer = read_checkpoint(str(folder), cls.model_class, dtype)
        ours = cls.processor_class.from_settings(tokenizer, processor)
        tower = cast(Any, model.config.vision_config)
        theirs = {name: getattr(tower, name) for name in ("patch_size", "temporal_patch_size")}
        theirs["merge_size"] = tower.spatial_merge_size
        for key, value in theirs.items():
            if getattr(ours.vision, key) != value:
                found = f"student.json: vision.{key} is {getattr(ours.vision, key)}, but config.json says {value}"
                raise InputError(f"{found}; restore the student's folder")
        return cls(name, model, ours)


class QwenStudent(QwenVLStudent):
    """A `Qwen2_5_VLForConditionalGeneration`: Qwen2.5-VL and Cosmos-Reason1."""

    family: ClassVar[str] = "qwen2_5_vl"
    asks_last_layer: ClassVar[bool] = True
    model_class: ClassVar[type[PreTrainedModel]] = Qwen2_5_VLForConditionalGeneration
    processor_class: ClassVar[type[QwenVLProcessor]] = QwenProcessor
    model: Qwen2_5_VLForConditionalGeneration
    processor: QwenProcessor

    def __init__(
        self,
        name: str,
        model: Qwen2_5_VLForConditionalGeneration,
        processor: QwenProcessor,
        base: Base | None = None,
    ) -> None:
        """Wrap a model, whose last layer then computes only what is asked for."""
        super().__init__(name, model, processor, base)
        ask_last_layer(self.text_model)

    def embed(self, row: TreeRow) -> Embedded:
        """Embeddings of a row's tokens, the video's in the places of its placeholders."""
        visual = cast(QwenVisual, row.visual)
        embeddings_NC = self.text_model.get_input_embeddings()(row.input_ids)
        if not len(visual.grid_thw):
            return Embedded(embeddings_NC)
        features = self.model.model.visual(visual.patches_PD, grid_thw=visual.grid_thw).pooler_output
        _, places = self.model.model.get_placeholder_mask(
            cast(torch.LongTensor, row.input_ids), embeddings_NC, video_features=features
        )
        return Embedded(embeddings_NC.masked_scatter(places, features.to(embeddings_NC.dtype)))

    def anatomy(self) -> Anatomy:
        """See `Student`."""
        return anatomy_of(self.model.config, self.processor)

    def twin(self, num_layers: int, resolution: Resolution) -> Twin:
        """See `Student`."""
        model, text_scale, vision_scale = narrowed(self.model.config, self.processor, num_layers)
        processor = self.processor.with_resolution(resolution)
        student = QwenStudent(f"twin of {self.name}", model.to(self.dtype), processor)
        return Twin(student, text_scale, vision_scale, lambda visual: cast(QwenVisual, visual).patches_PD)
