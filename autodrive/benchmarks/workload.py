"""Made-up clip trees of a wanted size, and the plain sequences that one would train and ask without trees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from autodrive.errors import InputError
from autodrive.students.recipe import StudentSpec
from autodrive.students.resolution import Resolution
from autodrive.students.student import Student
from autodrive.training.losses import weighted_cross_entropy
from autodrive.trees.clip_tree import ClipTree, TokenBranch, TokenTurn, TreeRow
from autodrive.trees.sample import ClipSample, Video
from autodrive.video.decoder import DecodedFrames

FPS = 15
FRAME_SIDE = 280  # pixels; 10 x 10 visual tokens of 28 pixels
RESOLUTION = Resolution(100, 100)
TOKEN_INPUTS = {
    "input_ids": 0,
    "position_ids": 0,
    "mm_token_type_ids": 0,
    "labels": -100,
}  # and what they are padded with
ORDINARY_IDS = (50, 250)  # byte tokens of the tiny tokenizer, none of them special


@dataclass(frozen=True)
class TreeSize:
    """Size of one clip tree.

    Attributes:
        prefix_tokens: Tokens of system prompt and video.
        annotations: Number of branches behind the prefix.
        prompt_tokens: Number of tokens of each prompt.
        target_tokens: Number of tokens of each answer; 0 if the student is asked.
        options: Number of options of each branch.
        option_tokens: Number of tokens of each option.
    """

    prefix_tokens: int
    annotations: int
    prompt_tokens: int = 68
    target_tokens: int = 12
    options: int = 0
    option_tokens: int = 1


def build_student(spec: StudentSpec, device: torch.device, dtype: torch.dtype) -> Student:
    """A student of a recipe that starts from random weights."""
    return spec.build(["benchmark"] * 3, RESOLUTION, seed=0).to(device, dtype)


def make_tree(student: Student, size: TreeSize, seed: int = 0) -> ClipTree:
    """A clip tree of random pixels and tokens.

    Raises:
        InputError: Its prefix has no room for a group of frames.
    """
    random = torch.Generator().manual_seed(seed)
    one, two = (len(_video_alone(student, num_groups, random).prefix_ids) for num_groups in (1, 2))
    if size.prefix_tokens < two - one:
        found = f"prefix_tokens={size.prefix_tokens}: a group of frames of student={student.name} takes {two - one}"
        raise InputError(f"{found}; give at least as many")
    tree = _video_alone(student, size.prefix_tokens // (two - one), random, f"clip{seed}")
    branches = tuple(
        TokenBranch(
            f"{seed}/{number}",
            (TokenTurn(_ids(size.prompt_tokens, random), _ids(size.target_tokens, random)),),
            tuple(tuple(_ids(size.option_tokens, random)) for _ in range(size.options)),
        )
        for number in range(size.annotations)
    )
    return replace(_with_prefix_of(tree, size.prefix_tokens, random), branches=branches)


def smallest_prefix(student: Student) -> int:
    """Tokens of the prefix of a clip that is one group of frames."""
    return len(_video_alone(student, 1, torch.Generator()).prefix_ids)


def _video_alone(student: Student, num_groups: int, random: torch.Generator, clip_id: str = "clip") -> ClipTree:
    """Noise as a clip of so many groups of frames, about which nothing is asked."""
    processor = student.processor
    height, width = processor.frame_size(FRAME_SIDE, FRAME_SIDE)
    num_frames = num_groups * processor.frames_per_group
    pixels = torch.randint(0, 256, (num_frames, 3, height, width), dtype=torch.uint8, generator=random)
    frames = DecodedFrames(pixels, torch.arange(num_frames).double() / FPS)
    return processor.encode(ClipSample(clip_id, "", (Video(frames, FPS),), ()))


def _with_prefix_of(tree: ClipTree, num_tokens: int, random: torch.Generator) -> ClipTree:
    """The tree with text added or taken away before its video, so that its prefix has this length."""
    added = num_tokens - len(tree.prefix_ids)
    steps = torch.arange(max(0, added)).to(tree.prefix_positions).expand(len(tree.prefix_positions), -1)
    return replace(
        tree,
        prefix_ids=_ids(max(0, added), random) + tree.prefix_ids[max(0, -added) :],
        prefix_positions=torch.cat([steps, tree.prefix_positions[:, max(0, -added) :] + added], dim=1),
        branch_start=tree.branch_start + added,
    )


def _ids(count: int, random: torch.Generator) -> list[int]:
    return torch.randint(*ORDINARY_IDS, (count,), generator=random).tolist()


def plain_sequence(
    student: Student, tree: ClipTree, branch: TokenBranch, extra: tuple[int, ...] = ()
) -> dict[str, Tensor]:
    """One annotation as a sequence of its own for the stock model; `extra` tokens take its answer's place.

    The pixels are floats already, as a processor hands them over: what that costs is not held against it.
    """
    turn = branch.turns[-1]
    answer = list(extra) or turn.target_ids
    sequence = student.stock_inputs(tree, turn.prompt_ids + answer)
    labels = [-100] * (sequence["input_ids"].shape[1] - len(answer)) + answer
    return sequence | {"labels": torch.tensor([labels], device=sequence["input_ids"].device)}


def padded_batch(sequences: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Sequences as one padded batch, each with its own copy of the video, as the usual collator makes it."""
    longest = max(s["input_ids"].shape[1] for s in sequences)

    def joined(name: str, values: list[Tensor]) -> Tensor:
        if name not in TOKEN_INPUTS:
            return torch.cat(values)
        padded = [nn.functional.pad(v, (0, longest - v.shape[-1]), value=TOKEN_INPUTS[name]) for v in values]
        return torch.cat(padded, dim=-2)  # position ids may have axes before the batch

    attention_mask = joined("input_ids", [torch.ones_like(s["input_ids"]) for s in sequences])
    batch = {name: joined(name, [s[name] for s in sequences]) for name in sequences[0]}
    return batch | {"attention_mask": attention_mask}


def backward_packed(student: Student, rows: Sequence[TreeRow]) -> float:
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
    return replace(tree, branches=tuple(branch.asked() for branch in tree.branches))
