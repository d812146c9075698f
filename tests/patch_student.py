"""A second family of students, for tests alone: a linear projector in front of a stock Qwen2.

It differs from the first wherever the house could have grown around that one: positions have one axis, every frame is a
group of visual tokens of its own with a line break behind it, and the model is put together from parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from autodrive.students.calls import Embedded
from autodrive.students.preprocessing import patchify
from autodrive.students.processor import Processor, options_told_apart
from autodrive.students.qwen_tokenizer import END_OF_TURN, START_OF_TURN, VIDEO_PAD, train_tokenizer
from autodrive.students.resolution import Resolution
from autodrive.students.student import Student
from autodrive.trees.clip_tree import ClipTree, TokenBranch, TokenTurn, TreeRow
from autodrive.trees.sample import Branch, ClipSample, Text
from autodrive.trees.visual import VisualInput

SIDE = 28
WIDTH = 64


@dataclass(frozen=True)
class PatchVisual(VisualInput):
    """Patches of all frames, (tokens, pixels) uint8."""

    patches: Tensor

    @classmethod
    def cat(cls, inputs: Sequence[Self]) -> Self:
        return cls(torch.cat([visual.patches for visual in inputs]))

    def to(self, device: torch.device | str) -> Self:
        return replace(self, patches=self.patches.to(device))


@dataclass(frozen=True)
class PatchProcessor(Processor):
    tokenizer: PreTrainedTokenizerBase

    @property
    def frames_per_group(self) -> int:
        return 1

    @property
    def end_id(self) -> int:
        return self._id(END_OF_TURN)

    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        return 2 * SIDE, 2 * SIDE

    def visual_tokens(self, num_frames: int, width: int, height: int) -> int:
        return 4 * num_frames

    def tokens_between(self, num_frames: int) -> int:
        return num_frames * len(self._text("\n"))

    def encode(self, sample: ClipSample) -> ClipTree:
        ids = self._text(f"{sample.system}\n")
        visuals = [PatchVisual(torch.empty(0, 3 * SIDE**2, dtype=torch.uint8))]
        for part in sample.prefix:
            if isinstance(part, Text):
                ids += self._text(part.text)
                continue
            patches, grid = patchify(part.frames.frames_TCHW, SIDE, temporal_patch_size=1, merge_size=1)
            visuals.append(PatchVisual(patches))
            ids += ([self._id(VIDEO_PAD)] * (grid[1] * grid[2]) + self._text("\n")) * grid[0]
        return ClipTree(
            clip_id=sample.clip_id,
            visual=PatchVisual.cat(visuals),
            prefix_ids=ids,
            prefix_positions=torch.arange(len(ids))[None],
            branch_start=len(ids),
            branches=tuple(self._branch(branch) for branch in sample.branches),
        )

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def settings(self) -> dict[str, Any]:
        return {}

    def with_resolution(self, resolution: Resolution) -> "PatchProcessor":
        return self

    def _branch(self, branch: Branch) -> TokenBranch:
        turns = tuple(
            TokenTurn(
                [*self._text(turn.prompt), self._id(START_OF_TURN)],
                [] if turn.target is None else [*self._text(turn.target), self.end_id],
            )
            for turn in branch.turns
        )
        options = options_told_apart([self._text(text) for text in branch.option_targets], self.end_id)
        return TokenBranch(branch.annotation_id, turns, options, branch.weight, branch.mode)

    def _id(self, token: str) -> int:
        return self.tokenizer.get_vocab()[token]

    def _text(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


class PatchModel(nn.Module):
    """Stock parts, and the plain way through them."""

    def __init__(self, config: Qwen2Config, video_id: int) -> None:
        super().__init__()
        self.projector = nn.Sequential(nn.Linear(3 * SIDE**2, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
        self.language_model = Qwen2ForCausalLM(config)
        self.video_id = video_id

    def embed(self, input_ids: Tensor, patches: Tensor) -> Tensor:
        embeddings = self.language_model.get_input_embeddings()(input_ids)
        features = self.projector(patches.to(embeddings.dtype) / 127.5 - 1).to(embeddings.dtype)
        return embeddings.masked_scatter((input_ids == self.video_id)[..., None], features)

    def forward(self, input_ids: Tensor, patches: Tensor, use_cache: bool = False) -> Any:
        return self.language_model(inputs_embeds=self.embed(input_ids, patches), use_cache=use_cache)


class PatchStudent(Student):
    family: ClassVar[str] = "patches"
    model: PatchModel
    processor: PatchProcessor

    @property
    def text_model(self) -> PreTrainedModel:
        return cast(PreTrainedModel, self.model.language_model.model)

    @property
    def head(self) -> nn.Module:
        return self.model.language_model.lm_head

    @property
    def vision(self) -> nn.Module:
        return self.model.projector

    def embed(self, row: TreeRow) -> Embedded:
        return Embedded(self.model.embed(row.input_ids, cast(PatchVisual, row.visual).patches))

    def stock_model(self) -> PatchModel:
        config = Qwen2Config(**self.model.language_model.config.to_dict())
        config._attn_implementation = "sdpa"
        model = PatchModel(config, self.model.video_id)
        model.load_state_dict(self.base_weights())
        return model.eval()

    def stock_inputs(self, tree: ClipTree, ids: list[int]) -> dict[str, Tensor]:
        """Without positions: the stock model counts by itself."""
        return {
            "input_ids": torch.tensor([tree.prefix_ids + ids]),
            "patches": cast(PatchVisual, tree.visual).patches,
        }

    def write(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
        self.model.language_model.config.save_pretrained(folder)
        self.processor.tokenizer.save_pretrained(folder)

    @classmethod
    def read(cls, folder: Path, name: str, processor: Mapping[str, Any], dtype: torch.dtype) -> Self:
        patch_processor = PatchProcessor(AutoTokenizer.from_pretrained(folder))
        model = PatchModel(Qwen2Config.from_pretrained(folder), patch_processor._id(VIDEO_PAD)).to(dtype)
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return cls(name, model.eval(), patch_processor)


def build_patch_student(texts: Sequence[str], seed: int) -> PatchStudent:
    """Random weights, scaled by fan-in, so that logits are sensitive to every position and mask."""
    processor = PatchProcessor(train_tokenizer(texts, 400))
    config = Qwen2Config(
        vocab_size=len(processor.tokenizer),
        hidden_size=WIDTH,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = PatchModel(config, processor._id(VIDEO_PAD))
    generator = torch.Generator().manual_seed(seed)
    embeddings = model.language_model.get_input_embeddings().weight
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter is embeddings:
                nn.init.normal_(parameter, std=0.5, generator=generator)
            elif parameter.ndim == 1:
                nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
            else:
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5, generator=generator)
    return PatchStudent("patches", model, processor)
