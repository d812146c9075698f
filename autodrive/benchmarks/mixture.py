"""A whole optimiser step over a realised mixture, and all of a clip's evaluation, against the usual loops."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from autodrive.benchmarks.measure import Step, describe_machine, time_alternately
from autodrive.benchmarks.workload import (
    TreeSize,
    backward_packed,
    backward_plain,
    build_student,
    make_tree,
    padded_batch,
    plain_sequence,
    without_answers,
)
from autodrive.students.recipe import StudentSpec
from autodrive.students.student import Student
from autodrive.trees.clip_tree import ClipTree
from autodrive.trees.packing import pack_trees

# VLM-AutoDrive's upsampled mixture: 349k annotations over 68k visits of clips are 5.1 a visit, not the 6.6 a clip has.
ANNOTATIONS_OF_VISITS = (6, 5, 4, 6, 5, 5, 5, 5)
PROMPT_TOKENS = (48, 88, 68, 60)
TARGET_TOKENS = (4, 24, 8, 12)
NEW_TOKENS = 8
NUM_QUESTIONS = 8
MADE_BY_GENERATE = ("position_ids", "labels")


def mixture_benchmark(
    spec: StudentSpec,
    prefix_tokens: int,
    tokens_per_row: int,
    padded_batch_size: int,
    repeats: int,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """One optimiser step over eight visits, AdamW included.

    Args:
        spec: Recipe that the student is built from.
        prefix_tokens: Prefix length of every clip.
        tokens_per_row: Most tokens of our packed rows.
        padded_batch_size: Sequences that the usual loop puts into a batch.
        repeats: Number of repetitions that each median is taken over.
        device: Device that everything runs on.
        dtype: Type of weights and activations.
    """
    student = build_student(spec, device, dtype)
    trees = mixture_trees(student, prefix_tokens)
    steps = {
        "packed": _packed_step(student, trees, tokens_per_row),
        "one_by_one": _plain_step(student, trees, 1),
        "padded": _plain_step(student, trees, padded_batch_size),
    }
    costs = time_alternately(steps, repeats, device, tolerance=math.inf)  # every step moves the weights
    annotations = sum(len(tree.branches) for tree in trees)
    return {
        "machine": describe_machine(device),
        "visits": len(trees),
        "annotations": annotations,
        "rows": len(pack_trees(trees, tokens_per_row)),
        "train_vs_one_by_one_speedup": costs["one_by_one"] / costs["packed"],
        "train_vs_padded_speedup": costs["padded"] / costs["packed"],
        "annotations_per_s": {name: annotations / cost for name, cost in costs.items()},
        "seconds": costs,
    }


def mixture_trees(student: Student, prefix_tokens: int) -> list[ClipTree]:
    """Eight visits whose annotations differ in number and length."""
    trees = []
    for seed, count in enumerate(ANNOTATIONS_OF_VISITS):
        place = seed % len(PROMPT_TOKENS)
        size = TreeSize(prefix_tokens, count, PROMPT_TOKENS[place], TARGET_TOKENS[place])
        trees.append(make_tree(student, size, seed))
    return trees


def _packed_step(student: Student, trees: Sequence[ClipTree], tokens_per_row: int) -> Step:
    device = next(student.parameters()).device
    rows = [row.to(device) for row in pack_trees(trees, tokens_per_row)]
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-5)

    def step() -> float:
        optimizer.zero_grad()
        loss = backward_packed(student, rows)
        optimizer.step()
        return loss

    return step


def _plain_step(student: Student, trees: Sequence[ClipTree], batch_size: int) -> Step:
    model = student.stock_model()
    sequences = [plain_sequence(student, tree, branch) for tree in trees for branch in tree.branches]
    groups = [sequences[start : start + batch_size] for start in range(0, len(sequences), batch_size)]
    batches = [padded_batch(group) if batch_size > 1 else group[0] for group in groups]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> float:
        optimizer.zero_grad()
        loss = backward_plain(model, batches)
        optimizer.step()
        return loss

    return step


def evaluation_benchmark(
    spec: StudentSpec, prefix_tokens: int, repeats: int, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """All of one clip's evaluation: eight questions, each with a reply of eight tokens and the scores of three options.

    Against it: transformers' `generate` for every question and a forward pass for every option.
    """
    student = build_student(spec, device, dtype).eval()
    stock: Any = student.stock_model().eval()
    size = TreeSize(prefix_tokens, NUM_QUESTIONS, prompt_tokens=60, target_tokens=0, options=3, option_tokens=3)
    tree = without_answers(make_tree(student, size))
    (row,) = (row.to(device) for row in pack_trees([tree], 10**9))

    def ours() -> float:
        with torch.inference_mode():
            prefilled = student.prefill(row)
            prefilled.score_options()
            return float(sum(len(answer.ids) for answer in prefilled.generate([NEW_TOKENS] * NUM_QUESTIONS)))

    # `generate` makes its own positions.
    asked = [
        {name: value for name, value in plain_sequence(student, tree, branch).items() if name not in MADE_BY_GENERATE}
        for branch in tree.branches
    ]
    scored = [plain_sequence(student, tree, b, option[:-1]) for b in tree.branches for option in b.option_ids]

    def theirs() -> float:
        with torch.inference_mode():
            total = 0
            for sequence in asked:
                made = stock.generate(**sequence, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None)
                total += made.shape[1] - sequence["input_ids"].shape[1]
            for sequence in scored:
                stock(**{name: value for name, value in sequence.items() if name != "labels"}, use_cache=False)
            return float(total)

    costs = time_alternately({"prefill": ours, "generate_and_forwards": theirs}, repeats, device, tolerance=math.inf)
    return {
        "machine": describe_machine(device),
        "size": vars(size) | {"new_tokens": NEW_TOKENS},
        "evaluate_all_speedup": costs["generate_and_forwards"] / costs["prefill"],
        "seconds": costs,
    }
