"""Qwen2.5-VL (and Cosmos-Reason1, which is one) as a student: the real transformers model, fed with clip trees."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration

from autodrive.errors import InputError
from autodrive.mixture.clip_tree import TreeBatch
from autodrive.students.checkpoint import read_checkpoint
from autodrive.students.generation import generate_branches
from autodrive.students.preprocessing import normalise
from autodrive.students.processor import QwenProcessor
from autodrive.students.scoring import option_log_probs
from autodrive.students.vision import use_fast_vision

SETTINGS_FILE = "student.json"


class QwenStudent(nn.Module):
    """A `Qwen2_5_VLForConditionalGeneration` with explicit positions, tree masks and logits only where needed.

    Attributes:
        name: of the recipe, kept in records.
        model: transformers' model; adapters are injected into it in place.
        processor: makes its batches.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, model: Qwen2_5_VLForConditionalGeneration, processor: QwenProcessor) -> None:
        """Wrap a model; its vision tower gets the fast exact parts of `vision`."""
        super().__init__()
        self.name = name
        self.model = model
        self.processor = processor
        self.register_buffer("mean", torch.tensor(processor.vision.image_mean), persistent=False)
        self.register_buffer("std", torch.tensor(processor.vision.image_std), persistent=False)
        use_fast_vision(model)

    def hidden_states(self, batch: TreeBatch) -> Tensor:
        """Last hidden states (B, L, width) of a batch."""
        return self.model.model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask=batch.attention_mask,
            pixel_values_videos=normalise(batch.patches_PD, self.mean, self.std),
            video_grid_thw=batch.grid_thw,
            use_cache=False,
        ).last_hidden_state

    def logits_at(self, hidden_BLC: Tensor, positions: Tensor) -> Tensor:
        """Logits (N, vocabulary) after the tokens at `positions` (N, 2), row and column."""
        return self.model.lm_head(hidden_BLC[positions[:, 0], positions[:, 1]])

    def forward(self, batch: TreeBatch) -> Tensor:
        """Logits (S, vocabulary) of the tokens that follow the batch's `source_positions`."""
        return self.logits_at(self.hidden_states(batch), batch.source_positions)

    def supervised_logits(self, batch: TreeBatch) -> Tensor:
        """The forward pass by its protocol name; it goes through `forward` so that FSDP's hooks run."""
        return self(batch)

    @torch.no_grad()
    def next_token_log_probs(self, batch: TreeBatch) -> Tensor:
        """Log-probabilities (spans, vocabulary), float32, of the first token of every branch's answer."""
        ends = [(span.row, span.target_start - 1) for span in batch.spans]
        positions = torch.tensor(ends, device=batch.input_ids.device)
        return self.logits_at(self.hidden_states(batch), positions).float().log_softmax(-1)

    @torch.no_grad()
    def score_options(self, batch: TreeBatch) -> list[tuple[float, ...]]:
        """For every branch, the log-probability of each of its options, in one forward pass for the batch."""
        return option_log_probs(self, batch)

    @torch.no_grad()
    def generate(self, batch: TreeBatch, max_new_tokens: int) -> list[str]:
        """For every branch, the greedy answer to its prompt; targets in the batch are not seen."""
        ids = generate_branches(self, batch, max_new_tokens, self.processor.end_id)
        return [self.processor.decode(answer) for answer in ids]

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
