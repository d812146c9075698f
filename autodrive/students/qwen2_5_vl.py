"""Qwen2.5-VL (and Cosmos-Reason1, which is one) as a student: the real transformers model, fed with clip trees."""

import json
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import Cache, Qwen2_5_VLForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from autodrive.errors import InputError
from autodrive.mixture.clip_tree import TreeRow
from autodrive.students.checkpoint import read_checkpoint
from autodrive.students.prefill import PrefilledRow
from autodrive.students.processor import QwenProcessor
from autodrive.students.tree_attention import TreeLayout, use_tree_attention
from autodrive.students.vision import use_fast_vision

SETTINGS_FILE = "student.json"


class QwenStudent(nn.Module):
    """A `Qwen2_5_VLForConditionalGeneration` with explicit positions, tree attention and logits only where needed.

    Attributes:
        name: of the recipe, kept in records.
        model: transformers' model; adapters are injected into it in place.
        processor: makes its batches.
    """

    def __init__(self, name: str, model: Qwen2_5_VLForConditionalGeneration, processor: QwenProcessor) -> None:
        """Wrap a model: its vision tower gets the fast exact parts of `vision`, its text layers tree attention."""
        super().__init__()
        self.name = name
        self.model = model
        self.processor = processor
        use_fast_vision(model, processor.vision.image_mean, processor.vision.image_std)
        use_tree_attention(model)

    def hidden_states(self, row: TreeRow, cache: Cache | None = None) -> Tensor:
        """Last hidden states (N, width) of a row; keys and values go into `cache`, if one is given."""
        visual = self.model.model.visual(row.patches_PD, grid_thw=row.grid_thw).pooler_output
        return self.model.model(
            input_ids=row.input_ids[None],
            position_ids=row.position_ids[:, None],
            mm_encoder_outputs={"video": BaseModelOutputWithPooling(pooler_output=cast(Any, (visual,)))},
            past_key_values=cache,
            use_cache=cache is not None,
            tree_layout=TreeLayout.of(row),
        ).last_hidden_state[0]

    def forward(self, row: TreeRow) -> Tensor:
        """Logits (S, vocabulary) of the tokens that follow the row's `source_positions`."""
        return self.model.lm_head(self.hidden_states(row)[row.source_positions])

    def supervised_logits(self, row: TreeRow) -> Tensor:
        """The forward pass by its protocol name; it goes through `forward` so that FSDP's hooks run."""
        return self(row)

    @torch.no_grad()
    def prefill(self, row: TreeRow) -> PrefilledRow:
        """Read a row once, to score options and to generate from it."""
        return PrefilledRow(self, row)

    def save(self, folder: Path) -> None:
        """Write the model in Hugging Face layout (safetensors), its tokenizer, and `student.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(folder)
        self.processor.tokenizer.save_pretrained(folder)
        settings = {"name": self.name, "processor": self.processor.settings()}
        (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype = torch.float32) -> "QwenStudent":
        """Read what `save` wrote.

        Raises:
            InputError: the folder is not such a student.
        """
        path = folder / SETTINGS_FILE
        if not path.is_file():
            raise InputError(f"{folder}: no {SETTINGS_FILE}, so this is not a saved student; give a run's checkpoint")
        settings = json.loads(path.read_text(encoding="utf-8"))
        model, tokenizer = read_checkpoint(str(folder), dtype)
        processor = QwenProcessor.from_settings(tokenizer, settings["processor"])
        return cls(settings["name"], model, processor)
