"""Made-up clip trees of a wanted size, and the plain sequences that one would train and ask without trees."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration

from autodrive.mixture.clip_tree import ClipTree, TokenBranch, TreeRow
from autodrive.students.positions import prefix_positions, reference_times
from autodrive.students.preprocessing import Resolution, normalise
from autodrive.students.qwen2_5_vl import QwenStudent
from autodrive.students.tiny import TinyQwen2_5_VL
from autodrive.students.tokenizer import VIDEO_PAD
from autodrive.training.losses import weighted_cross_entropy

TOKENS_PER_PATCH = (10, 10)  # rows and columns of visual tokens: frames of 280 x 280 pixels
ORDINARY_IDS = (50, 250)  # byte tokens of the tiny tokenizer, none of them special


@dataclass(frozen=True)
class TreeSize:
    """Size of one clip tree.

    Attributes:
        prefix_tokens: system prompt and video.
        annotations: branches.
        prompt_tokens: of each branch.
        target_tokens: of each branch; 0 to ask.
        options: of each branch, each of `option_tokens`.
        option_tokens: tokens of an option.
    """

    prefix_tokens: int
    annotations: int
    prompt_tokens: int = 68
    target_tokens: int = 12
    options: int = 0
    option_tokens: int = 1


def build_student(recipe: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> QwenStudent:
    """A student with random weights, of `TinyQwen2_5_VL`'s arguments."""
    student = TinyQwen2_5_VL("benchmark", **recipe).build(["benchmark"] * 3, 15, Resolution(100, 100), seed=0)
    return student.to(device, dtype)


def make_tree(student: QwenStudent, size: TreeSize, seed: int = 0) -> ClipTree:
    """A clip tree of random pixels and tokens."""
    random = torch.Generator().manual_seed(seed)
    rows, columns = TOKENS_PER_PATCH
    num_patches = max(1, size.prefix_tokens // (rows * columns))
    num_text = max(2, size.prefix_tokens - num_patches * rows * columns)
    merge = student.processor.vision.merge_size
    grid = (num_patches, rows * merge, columns * merge)
    times = reference_times(num_patches, 15, student.processor.vision.tokens_per_second)
    positions, branch_start = prefix_positions(num_text - 1, times, grid[1:], 1)
    video = int(student.processor.tokenizer.get_vocab()[VIDEO_PAD])
    text = _ids(num_text, random)
    patches = (grid[0] * grid[1] * grid[2], 1176)
    return ClipTree(
        clip_id=f"clip{seed}",
        patches_PD=torch.randint(0, 256, patches, dtype=torch.uint8, generator=random),
        grid_thw=grid,
        prefix_ids=text[:-1] + [video] * (num_patches * rows * columns) + text[-1:],
        prefix_positions=positions,
        branch_start=branch_start,
        branches=tuple(
            TokenBranch(
                f"{seed}/{number}",
                _ids(size.prompt_tokens, random),
                _ids(size.target_tokens, random),
                tuple(tuple(_ids(size.option_tokens, random)) for _ in range(size.options)),
            )
            for number in range(size.annotations)
        ),
    )


def _ids(count: int, random: torch.Generator) -> list[int]:
    return torch.randint(*ORDINARY_IDS, (count,), generator=random).tolist()


def stock_model(student: QwenStudent) -> nn.Module:
    """The stock transformers model with the student's weights and none of our replacements."""
    parameter = next(student.parameters())
    model = Qwen2_5_VLForConditionalGeneration(copy.deepcopy(student.model.config))
    model.set_attn_implementation("sdpa")
    model.load_state_dict(student.model.state_dict())
    return cast(nn.Module, model).to(parameter.device, parameter.dtype)


def plain_sequence(student: QwenStudent, tree: ClipTree, branch: TokenBranch, extra: tuple[int, ...] = ()) -> dict:
    """One annotation as a sequence of its own, as transformers takes it; `extra` tokens follow its prompt.

    The pixels are floats already, as a processor hands them over: what that costs is not held against it.
    """
    device, dtype = next(student.parameters()).device, next(student.parameters()).dtype
    answer = list(extra) or branch.target_ids
    ids = tree.prefix_ids + branch.prompt_ids + answer
    steps = torch.arange(len(ids) - len(tree.prefix_ids)).to(tree.prefix_positions) + tree.branch_start
    positions = torch.cat([tree.prefix_positions, steps.expand(3, -1)], dim=1)
    vision = student.processor.vision
    mean, std = torch.tensor(vision.image_mean), torch.tensor(vision.image_std)
    labels = [-100] * (len(ids) - len(answer)) + answer
    sequence = {
        "input_ids": torch.tensor([ids]),
        "position_ids": positions[:, None],
        "labels": torch.tensor([labels]),
        "pixel_values_videos": normalise(tree.patches_PD, mean, std).to(dtype),
        "video_grid_thw": torch.tensor([tree.grid_thw]),
    }
    return {name: value.to(device) for name, value in sequence.items()}


def padded_batch(sequences: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Sequences as one padded batch, each with its own copy of the video, as the usual collator makes it."""
    longest = max(s["input_ids"].shape[1] for s in sequences)

    def pad(name: str, value: int) -> Tensor:
        parts = [nn.functional.pad(s[name], (0, longest - s[name].shape[-1]), value=value) for s in sequences]
        return torch.cat(parts, dim=1 if name == "position_ids" else 0)

    mask = [torch.ones_like(s["input_ids"]) for s in sequences]
    return {
        "input_ids": pad("input_ids", 0),
        "position_ids": pad("position_ids", 0),
        "labels": pad("labels", -100),
        "attention_mask": torch.cat([nn.functional.pad(m, (0, longest - m.shape[1])) for m in mask]),
        "pixel_values_videos": torch.cat([s["pixel_values_videos"] for s in sequences]),
        "video_grid_thw": torch.cat([s["video_grid_thw"] for s in sequences]),
    }


def backward_packed(student: QwenStudent, rows: Sequence[TreeRow]) -> float:
    """Forward and backward of packed rows; the loss of the step."""
    total = 0.0
    for row in rows:
        loss = weighted_cross_entropy(student.supervised_logits(row), row.target_ids, row.target_weights)
        loss.backward()
        total += loss.item()
    return total


def backward_plain(model: nn.Module, batches: Sequence[Mapping[str, Tensor]]) -> float:
    """Forward and backward of plain batches, gradients accumulated; the mean of their losses."""
    total = 0.0
    for batch in batches:
        loss = model(**batch, use_cache=False).loss / len(batches)
        loss.backward()
        total += loss.item()
    return total


def without_answers(tree: ClipTree) -> ClipTree:
    """The tree as it is asked."""
    return replace(tree, branches=tuple(replace(branch, target_ids=[]) for branch in tree.branches))
