"""Log-probabilities of answer options, all of a batch in one forward pass."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from autodrive.mixture.clip_tree import TreeBatch

if TYPE_CHECKING:
    from autodrive.students.qwen2_5_vl import QwenStudent


def option_log_probs(student: QwenStudent, batch: TreeBatch) -> list[tuple[float, ...]]:
    """For every span of the batch, the summed log-probability of each of its options after its prompt.

    An option of one token is read off the prompt's last position. Of a longer option all tokens but the last are put
    at the end of the row as a branch of their branch, which sees the prompt and itself; still one forward pass.

    Returns:
        One tuple per span in the order of its `option_ids`; empty for a span without options.
    """
    extended, sources = add_options(batch)
    flat = [(index, token) for index, options in enumerate(sources) for option in options for token in option]
    if not flat:
        return [() for _ in batch.spans]
    device = batch.input_ids.device
    positions = torch.tensor([token[:2] for _, token in flat], device=device)
    tokens = torch.tensor([token[2] for _, token in flat], device=device)
    logits = student.logits_at(student.hidden_states(extended), positions).float()
    log_probs = iter(logits.log_softmax(-1).gather(1, tokens[:, None]).squeeze(1).tolist())
    return [tuple(sum(next(log_probs) for _ in option) for option in options) for options in sources]


def add_options(batch: TreeBatch) -> tuple[TreeBatch, list[list[list[tuple[int, int, int]]]]]:
    """Append the options of more than one token to their rows.

    Returns:
        The longer batch; and for every span, option and option token: row, column of the position that predicts it,
        and the token.
    """
    used = [batch.input_ids.shape[1]] * len(batch.clip_ids)
    sources: list[list[list[tuple[int, int, int]]]] = []
    additions: list[tuple[int, int, int, list[int]]] = []  # row, prompt end, first new column, tokens
    for span in batch.spans:
        prompt_end = span.target_start - 1
        sources.append([])
        for option in span.option_ids:
            first = used[span.row]
            columns = [prompt_end, *range(first, first + len(option) - 1)]
            sources[-1].append([(span.row, column, token) for column, token in zip(columns, option, strict=True)])
            if len(option) > 1:
                additions.append((span.row, prompt_end, first, list(option[:-1])))
                used[span.row] += len(option) - 1
    return _lengthen(batch, max(used) - batch.input_ids.shape[1], additions), sources


def _lengthen(batch: TreeBatch, extra: int, additions: list[tuple[int, int, int, list[int]]]) -> TreeBatch:
    """The batch with `extra` columns that hold the additions, each seeing what its prompt's end sees, and itself."""
    if not extra:
        return batch
    pad_id = int(batch.input_ids[0, -1])
    input_ids = F.pad(batch.input_ids, (0, extra), value=pad_id)
    position_ids = F.pad(batch.position_ids, (0, extra))
    mask = F.pad(batch.attention_mask, (0, extra, 0, extra))
    mask |= torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)
    for row, prompt_end, first, tokens in additions:
        columns = slice(first, first + len(tokens))
        input_ids[row, columns] = torch.tensor(tokens, device=input_ids.device)
        steps = torch.arange(1, len(tokens) + 1, device=input_ids.device)
        position_ids[:, row, columns] = position_ids[:, row, prompt_end, None] + steps.to(position_ids)
        _open(mask, row, columns, prompt_end)
    return replace(batch, input_ids=input_ids, position_ids=position_ids, attention_mask=mask)


def _open(mask: Tensor, row: int, columns: slice, prompt_end: int) -> None:
    """Let the new columns of a row see what `prompt_end` sees, and each other causally, in place."""
    count = columns.stop - columns.start
    mask[row, 0, columns] |= mask[row, 0, prompt_end]
    mask[row, 0, columns, columns] = torch.ones(count, count, dtype=torch.bool, device=mask.device).tril()
