"""Released checkpoints as students: Qwen2.5-VL 3B and 7B, Cosmos-Reason1 7B."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, cast

import torch
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig

from autodrive.students.bases import Base
from autodrive.students.qwen_checkpoint import read_checkpoint, read_config, unreadable
from autodrive.students.qwen_positions import PositionMode
from autodrive.students.qwen_processor import QwenProcessor, VisionFormat
from autodrive.students.qwen_student import QwenStudent, qwen_towers
from autodrive.students.resolution import Resolution
from autodrive.students.student import DTYPES
from autodrive.students.towers import Towers


@dataclass(frozen=True)
class PretrainedQwen2_5_VL:  # noqa: N801
    """Recipe of a released student (`conf/student/qwen2_5_vl_7b.yaml` and its like).

    Attributes:
        name: Name of the student, kept in records.
        checkpoint: Repository on the Hugging Face hub, or a local folder in the same layout.
        dtype: Type that the student computes in outside of training, and of weights that are not trained. Those that
            are trained are float32.
        position_mode: How video frames get their temporal ids, see `qwen_positions`.
    """

    full_size: ClassVar[bool] = True
    frames_per_group: ClassVar[int] = 2

    name: str
    checkpoint: str
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    position_mode: PositionMode = "reference"

    def base(self) -> Base:
        """The checkpoint, see `StudentSpec`; a folder by its whole path, so that it may be named from anywhere."""
        folder = Path(self.checkpoint)
        return Base(str(folder.absolute()) if folder.is_dir() else self.checkpoint)

    def outline(self) -> Towers:
        """The model on `meta`, see `StudentSpec`; of a repository its config.json is read."""
        with torch.device("meta"):
            return qwen_towers(Qwen2_5_VLForConditionalGeneration(read_config(self.checkpoint)))

    def build(self, texts: Iterable[str], resolution: Resolution, seed: int) -> QwenStudent:
        """Read the checkpoint; `texts` and `seed` are for students from scratch.

        Raises:
            InputError: The checkpoint cannot be read or lacks weights.
        """
        del texts, seed
        model, tokenizer = read_checkpoint(self.checkpoint, DTYPES[self.dtype])
        try:
            pixels = Qwen2VLImageProcessorPil.from_pretrained(self.checkpoint)
        except (OSError, ValueError) as error:
            raise unreadable(self.checkpoint, error) from error
        vision_config = cast(Qwen2_5_VLVisionConfig, model.config.vision_config)
        vision = VisionFormat(
            tokens_per_second=vision_config.tokens_per_second,
            image_mean=tuple(pixels.image_mean),
            image_std=tuple(pixels.image_std),
            patch_size=cast(int, vision_config.patch_size),
            temporal_patch_size=cast(int, vision_config.temporal_patch_size),
            merge_size=vision_config.spatial_merge_size,
        )
        processor = QwenProcessor(tokenizer, vision, resolution, self.position_mode)
        base = replace(self.base(), revision=getattr(model.config, "_commit_hash", None))  # the one that was read
        return QwenStudent(self.name, model, processor, base)
