"""Qwen3-VL (and Cosmos-Reason2, which is one) as a student."""

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import nn
from transformers import PreTrainedModel, Qwen3VLForConditionalGeneration

from autodrive.students.anatomy import Anatomy
from autodrive.students.calls import Embedded
from autodrive.students.qwen3_processor import Qwen3VLProcessor
from autodrive.students.qwen_anatomy import anatomy_of_qwen3, narrowed_qwen3
from autodrive.students.qwen_processor import QwenVisual, QwenVLProcessor
from autodrive.students.qwen_student import QwenVLStudent
from autodrive.students.resolution import Resolution
from autodrive.students.student import Twin
from autodrive.trees.clip_tree import TreeRow


class Qwen3VLStudent(QwenVLStudent):
    """A `Qwen3VLForConditionalGeneration`.

    Features of several vision blocks go into the language model: the last ones in the places of their placeholders, the
    others (deepstack) are added there behind its first layers. Each depth has a projector of its own.
    """

    family: ClassVar[str] = "qwen3_vl"
    model_class: ClassVar[type[PreTrainedModel]] = Qwen3VLForConditionalGeneration
    processor_class: ClassVar[type[QwenVLProcessor]] = Qwen3VLProcessor
    model: Qwen3VLForConditionalGeneration
    processor: Qwen3VLProcessor

    @property
    def projectors(self) -> Sequence[nn.Module]:
        """The merger at the vision tower's end, and those of the blocks before it."""
        return (self.model.model.visual.merger, *self.model.model.visual.deepstack_merger_list)

    def anatomy(self) -> Anatomy:
        """See `Student`."""
        return anatomy_of_qwen3(self.model.config, self.processor)

    def twin(self, num_layers: int, resolution: Resolution) -> Twin:
        """See `Student`; one block hands its features over, of a released one three."""
        model, text_scale, vision_scale = narrowed_qwen3(self.model.config, self.processor, num_layers)
        processor = self.processor.with_resolution(resolution)
        student = Qwen3VLStudent(f"twin of {self.name}", model.to(self.dtype), processor)
        return Twin(student, text_scale, vision_scale, lambda visual: cast(QwenVisual, visual).patches_PD)

    def embed(self, row: TreeRow) -> Embedded:
        """Embeddings of a row's tokens, and the features that the first layers add to the video's."""
        visual = cast(QwenVisual, row.visual)
        embeddings_NC = self.text_model.get_input_embeddings()(row.input_ids)
        if not len(visual.grid_thw):
            return Embedded(embeddings_NC)
        seen: Any = self.model.model.visual(visual.patches_PD, grid_thw=visual.grid_thw)
        features = seen.pooler_output
        _, places = self.model.model.get_placeholder_mask(
            cast(torch.LongTensor, row.input_ids), embeddings_NC, video_features=features
        )
        # Handed over with the places of the whole row: a tree's features must meet its own tokens in every layer.
        further = {"visual_pos_masks": places[None, :, 0], "deepstack_visual_embeds": seen.deepstack_features}
        return Embedded(embeddings_NC.masked_scatter(places, features.to(embeddings_NC.dtype)), further)
