"""Greedy answers to all branches of a batch at once, over one shared cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import DynamicCache

from autodrive.mixture.clip_tree import TreeBatch
from autodrive.students.preprocessing import normalise

if TYPE_CHECKING:
    from autodrive.students.qwen2_5_vl import QwenStudent


def generate_branches(student: QwenStudent, batch: TreeBatch, max_new_tokens: int, end_id: int) -> list[list[int]]:
    """Greedy token ids for every span, without the token that ends them.

    The rows are read once, with their tree mask. Each step then adds one token per branch to every row; a new token
    sees what its prompt's end saw and the earlier new tokens of its own branch, so branches stay independent.

    Args:
        student: the model.
        batch: rows to continue; targets in it stay invisible.
        max_new_tokens: most tokens per answer.
        end_id: token that ends an answer.

    Returns:
        One list of ids per span, in the order of `batch.spans`.
    """
    slots = _slots(batch)
    cache = DynamicCache(config=student.model.config.get_text_config())
    hidden = student.model.model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        attention_mask=batch.attention_mask,
        pixel_values_videos=normalise(batch.patches_PD, student.mean, student.std),
        video_grid_thw=batch.grid_thw,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    rows = torch.arange(len(slots), device=slots.device)[:, None]
    hidden = hidden[rows, slots]
    mask = batch.attention_mask[rows, 0, slots][:, None]
    positions = batch.position_ids[:, rows, slots]
    own = torch.eye(slots.shape[1], dtype=torch.bool, device=slots.device).expand(len(slots), 1, -1, -1)
    steps = []
    finished = torch.zeros_like(slots, dtype=torch.bool)
    for step in range(max_new_tokens):
        tokens = student.model.lm_head(hidden).argmax(-1)
        steps.append(tokens)
        finished |= tokens == end_id
        if finished.all() or step == max_new_tokens - 1:
            break
        mask = torch.cat([mask, own], dim=-1)
        positions = positions + 1
        hidden = student.model.model(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
    return _collect(batch, torch.stack(steps, dim=-1) if steps else None, end_id)


def _slots(batch: TreeBatch) -> Tensor:
    """Columns (B, most branches in a row) of the branches' prompt ends; rows with fewer repeat their first one."""
    ends: list[list[int]] = [[] for _ in batch.clip_ids]
    for span in batch.spans:
        ends[span.row].append(span.target_start - 1)
    width = max((len(row) for row in ends), default=0)
    filled = [row + [row[0] if row else 0] * (width - len(row)) for row in ends]
    return torch.tensor(filled, dtype=torch.long, device=batch.input_ids.device).reshape(len(ends), width)


def _collect(batch: TreeBatch, tokens: Tensor | None, end_id: int) -> list[list[int]]:
    """Cut every branch's tokens at the first `end_id`."""
    if tokens is None:
        return [[] for _ in batch.spans]
    next_slot = [0] * len(batch.clip_ids)
    answers = []
    for span in batch.spans:
        ids = tokens[span.row, next_slot[span.row]].tolist()
        next_slot[span.row] += 1
        answers.append(ids[: ids.index(end_id)] if end_id in ids else ids)
    return answers
