"""NVILA checkpoints as students, and a tiny one that is trained from scratch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from annotated_types import Ge, Le
from transformers import PretrainedConfig, PreTrainedTokenizerBase, Qwen2Config, SiglipVisionConfig

from autodrive.bounds import Count, Layers
from autodrive.errors import InputError
from autodrive.released.configurations import released_configurations
from autodrive.students.bases import Base
from autodrive.students.nvila_checkpoint import read_nvila, sizes_of
from autodrive.students.nvila_model import NvilaModel, NvilaSizes, ProjectorKind, initialise
from autodrive.students.nvila_processor import VIDEO_MEDIA
from autodrive.students.nvila_student import NvilaStudent, processor_of
from autodrive.students.qwen_checkpoint import unreadable
from autodrive.students.qwen_tiny import SMALLEST_VOCABULARY
from autodrive.students.qwen_tokenizer import SPECIAL_TOKENS, train_tokenizer
from autodrive.students.resolution import Resolution
from autodrive.students.student import DTYPES
from autodrive.students.tiny_sizes import TinySizes


@dataclass(frozen=True)
class PretrainedNvila:
    """Recipe of a released student (`conf/student/nvila_8b.yaml` and its like).

    Attributes:
        name: Name of the student, kept in records.
        checkpoint: Repository on the Hugging Face hub in the layout of the `-hf` releases, or such a folder.
        dtype: Type that the student computes in outside of training, and of weights that are not trained. Those that
            are trained are float32.
        pooled_frames: Frames whose features are averaged, see `NvilaProcessor`.
    """

    full_size: ClassVar[bool] = True
    fixed_resolution: ClassVar[bool] = True

    name: str
    checkpoint: str
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    pooled_frames: Annotated[Count, Le(4096)] = 1

    @property
    def frames_per_group(self) -> int:
        """Frames that a block of visual tokens stands for."""
        return self.pooled_frames

    def base(self) -> Base:
        """The checkpoint, see `StudentSpec`; a folder by its whole path, so that it may be named from anywhere."""
        folder = Path(self.checkpoint)
        return Base(str(folder.absolute()) if folder.is_dir() else self.checkpoint)

    def build(self, texts: Iterable[str], resolution: Resolution, seed: int) -> NvilaStudent:
        """Read the checkpoint; the rest is for other students.

        Raises:
            InputError: The checkpoint cannot be read, or its tensors are not those of its configuration.
        """
        del texts, resolution, seed
        base = self.base()
        try:
            folder = base.folder()
        except InputError as error:
            raise unreadable(self.checkpoint, error) from None
        if folder != Path(base.source):  # a copy from the hub, in a folder that is named after its commit
            base = replace(base, revision=folder.name)
        where = f"student.checkpoint={self.checkpoint}"
        model, tokenizer = read_nvila(folder, DTYPES[self.dtype], where)
        return NvilaStudent(self.name, model, processor_of(model.sizes, tokenizer, self.pooled_frames), base)

    def sketch(self, resolution: Resolution) -> NvilaStudent:
        """The student without weights, see `StudentSpec`; of a checkpoint that is not known here config.json is read.

        Raises:
            InputError: It cannot be read, or is of another family.
        """
        del resolution
        known = released_configurations().get(self.checkpoint)
        try:
            config = PretrainedConfig.get_config_dict(self.checkpoint)[0] if known is None else known.config
        except (OSError, ValueError) as error:
            raise unreadable(self.checkpoint, error) from error
        sizes = sizes_of(config, f"student.checkpoint={self.checkpoint}")
        with torch.device("meta"):
            model = NvilaModel(sizes)
        model.llm.tie_weights()
        tokenizer = nvila_tokenizer((), SMALLEST_VOCABULARY + 1)
        return NvilaStudent(
            self.name, model.to(DTYPES[self.dtype]), processor_of(sizes, tokenizer, self.pooled_frames), self.base()
        )


@dataclass(frozen=True)
class TinyNvila(TinySizes):
    """Recipe of the tiny twin (`conf/student/tiny_nvila.yaml`): SigLIP, a projector and Qwen2, from scratch.

    A patch sees one frame, and features of frames meet in the language model alone.

    Attributes:
        projector: Kind of the projector: that of 8B and 15B, or that of Lite.
        vocab_size: Most entries of the byte-level tokenizer that is trained on the run's texts.
        frame_side: Pixels along the side of a frame; a multiple of `patch_size`.
        patch_size: Pixels along the side of a patch.
        vision_layers: Layers of the tower; features are those of the last but one.
        pooled_frames: Frames whose features are averaged, see `NvilaProcessor`.
    """

    fixed_resolution: ClassVar[bool] = True
    multiple_of_heads: ClassVar[Mapping[str, int]] = {"vision": 1, "text": 2}  # rotary positions turn pairs of numbers

    projector: ProjectorKind = "space_to_depth"
    vocab_size: Annotated[int, Ge(SMALLEST_VOCABULARY + 1), Le(1_000_000)] = 768
    frame_side: Annotated[Count, Le(4096)] = 56
    patch_size: Annotated[Count, Le(64)] = 14
    vision_layers: Annotated[Layers, Ge(2)] = 3
    pooled_frames: Annotated[Count, Le(4096)] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frame_side % self.patch_size:
            message = f"student.frame_side={self.frame_side}: must be a multiple of student.patch_size"
            raise InputError(f"{message}={self.patch_size}")

    @property
    def frames_per_group(self) -> int:
        """Frames that a block of visual tokens stands for."""
        return self.pooled_frames

    def build(self, texts: Iterable[str], resolution: Resolution, seed: int) -> NvilaStudent:
        """Train the tokenizer, draw the weights, and wrap both; see `StudentSpec`."""
        del resolution
        tokenizer = nvila_tokenizer(texts, self.vocab_size)
        sizes = self._sizes(tokenizer, len(tokenizer))
        model = NvilaModel(sizes)
        positions = cast(Any, model.vision_tower).embeddings.position_embedding.weight
        embeddings = (cast(Any, model.llm.get_input_embeddings()).weight, positions)
        initialise(model, embeddings, torch.Generator().manual_seed(seed))
        return NvilaStudent(self.name, model, processor_of(sizes, tokenizer, self.pooled_frames))

    def sketch(self, resolution: Resolution) -> NvilaStudent:
        """The student without weights; its vocabulary is as large as it may become. See `StudentSpec`."""
        del resolution
        tokenizer = nvila_tokenizer((), SMALLEST_VOCABULARY + 1)
        sizes = self._sizes(tokenizer, self.vocab_size)
        with torch.device("meta"):
            model = NvilaModel(sizes)
        return NvilaStudent(self.name, model, processor_of(sizes, tokenizer, self.pooled_frames))

    def _sizes(self, tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> NvilaSizes:
        vision = SiglipVisionConfig(
            hidden_size=self.vision_width,
            intermediate_size=self.vision_mlp,
            num_hidden_layers=self.vision_layers,
            num_attention_heads=self.vision_heads,
            image_size=self.frame_side,
            patch_size=self.patch_size,
            vision_use_head=False,
        )
        text = Qwen2Config(
            vocab_size=vocab_size,
            hidden_size=self.text_width,
            intermediate_size=self.text_mlp,
            num_hidden_layers=self.text_layers,
            num_attention_heads=self.text_heads,
            num_key_value_heads=self.text_kv_heads,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=None,
        )
        return NvilaSizes(vision, text, self.projector, tokenizer.get_vocab()[VIDEO_MEDIA])


def nvila_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """A small byte-level tokenizer with NVILA's special tokens, for students trained from scratch."""
    return train_tokenizer(texts, vocab_size, (*SPECIAL_TOKENS, VIDEO_MEDIA))
