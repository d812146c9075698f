"""Released checkpoints as students: Qwen2.5-VL, Cosmos-Reason1, Qwen3-VL, Cosmos-Reason2."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen3VLForConditionalGeneration,
)

from autodrive.released.configurations import released_configurations
from autodrive.students.bases import Base
from autodrive.students.qwen3_processor import Qwen3VLProcessor
from autodrive.students.qwen3_student import Qwen3VLStudent
from autodrive.students.qwen_checkpoint import read_checkpoint, read_config, unreadable
from autodrive.students.qwen_positions import PositionMode
from autodrive.students.qwen_processor import QwenProcessor, TimedVisionFormat, VisionFormat
from autodrive.students.qwen_student import QwenStudent, QwenVLStudent
from autodrive.students.qwen_tokenizer import byte_tokenizer
from autodrive.students.resolution import Resolution
from autodrive.students.student import DTYPES


@dataclass(frozen=True)
class PretrainedQwenVL:
    """Recipe of a released student; what its generation adds is in the classes below.

    Attributes:
        model_class: Class of its model.
        sketched_pixels: Its pixel statistics, before its files are there.
        name: Name of the student, kept in records.
        checkpoint: Repository on the Hugging Face hub, or a local folder in the same layout.
        dtype: Type that the student computes in outside of training, and of weights that are not trained. Those that
            are trained are float32.
    """

    full_size: ClassVar[bool] = True
    frames_per_group: ClassVar[int] = 2
    fixed_resolution: ClassVar[bool] = False
    model_class: ClassVar[type[PreTrainedModel]]
    sketched_pixels: ClassVar[dict[str, Any]]

    name: str
    checkpoint: str
    dtype: Literal["float32", "bfloat16"] = "bfloat16"

    def base(self) -> Base:
        """The checkpoint, see `StudentSpec`; a folder by its whole path, so that it may be named from anywhere."""
        folder = Path(self.checkpoint)
        return Base(str(folder.absolute()) if folder.is_dir() else self.checkpoint)

    def build(self, texts: Iterable[str], resolution: Resolution, seed: int) -> QwenVLStudent:
        """Read the checkpoint; `texts` and `seed` are for students from scratch.

        Raises:
            InputError: The checkpoint cannot be read or lacks weights.
        """
        del texts, seed
        model, tokenizer = read_checkpoint(self.checkpoint, self.model_class, DTYPES[self.dtype])
        try:
            pixels = Qwen2VLImageProcessorPil.from_pretrained(self.checkpoint)
        except (OSError, ValueError) as error:
            raise unreadable(self.checkpoint, error) from error
        return self._wrapped(model, tokenizer, pixels, resolution)

    def sketch(self, resolution: Resolution) -> QwenVLStudent:
        """The student without weights, see `StudentSpec`; of a checkpoint that is not known here config.json is read.

        Raises:
            InputError: It cannot be read, or is of another family.
        """
        known = released_configurations().get(self.checkpoint)
        if known is None:
            config = read_config(self.checkpoint, self.model_class)
        else:
            config = cast(Any, self.model_class.config_class).from_dict(dict(known.config))
        with torch.device("meta"):
            model = self.model_class(config)
        model.tie_weights()
        model = cast(Any, model).to(DTYPES[self.dtype])
        return self._wrapped(model, byte_tokenizer(), Qwen2VLImageProcessorPil(**self.sketched_pixels), resolution)

    def _wrapped(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        pixels: Qwen2VLImageProcessorPil,
        resolution: Resolution,
    ) -> QwenVLStudent:
        vision = model.config.vision_config
        pixel_format = {
            "image_mean": tuple(pixels.image_mean),
            "image_std": tuple(pixels.image_std),
            "patch_size": vision.patch_size,
            "temporal_patch_size": vision.temporal_patch_size,
            "merge_size": vision.spatial_merge_size,
        }
        base = replace(self.base(), revision=getattr(model.config, "_commit_hash", None))  # the one that was read
        return self._student(model, tokenizer, pixel_format, resolution, base)

    def _student(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, pixels: dict[str, Any], resolution: Resolution, base: Base
    ) -> QwenVLStudent:
        """The student of this generation around a model and its tokenizer."""
        raise NotImplementedError


@dataclass(frozen=True)
class PretrainedQwen2_5_VL(PretrainedQwenVL):  # noqa: N801
    """Recipe of a released Qwen2.5-VL or Cosmos-Reason1 (`conf/student/qwen2_5_vl_7b.yaml` and its like).

    Attributes:
        position_mode: How video frames get their temporal ids, see `qwen_positions`.
    """

    model_class: ClassVar[type[PreTrainedModel]] = Qwen2_5_VLForConditionalGeneration
    sketched_pixels: ClassVar[dict[str, Any]] = {}

    position_mode: PositionMode = "reference"

    def _student(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, pixels: dict[str, Any], resolution: Resolution, base: Base
    ) -> QwenStudent:
        tokens_per_second = model.config.vision_config.tokens_per_second
        vision = TimedVisionFormat(tokens_per_second=tokens_per_second, **pixels)
        processor = QwenProcessor(tokenizer, vision, resolution, self.position_mode)
        return QwenStudent(self.name, model, processor, base)


@dataclass(frozen=True)
class PretrainedQwen3VL(PretrainedQwenVL):
    """Recipe of a released Qwen3-VL or Cosmos-Reason2 (`conf/student/qwen3_vl_8b.yaml` and its like)."""

    model_class: ClassVar[type[PreTrainedModel]] = Qwen3VLForConditionalGeneration
    sketched_pixels: ClassVar[dict[str, Any]] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}

    def _student(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, pixels: dict[str, Any], resolution: Resolution, base: Base
    ) -> Qwen3VLStudent:
        processor = Qwen3VLProcessor(tokenizer, VisionFormat(**pixels), resolution)
        return Qwen3VLStudent(self.name, model, processor, base)
