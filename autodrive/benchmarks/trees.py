"""Clip trees against one sequence per annotation: training and evaluation of one clip, and how the cost grows."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from autodrive.benchmarks.measure import (
    Step,
    count_flops,
    describe_machine,
    matmul_flops_per_s,
    peak_memory_mb,
    time_alternately,
)
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
from autodrive.trees.clip_tree import TreeRow
from autodrive.trees.packing import pack_trees

ONE_ROW = 10**9


def packed_training(spec: StudentSpec, size: TreeSize, frozen: bool, device: torch.device, dtype: torch.dtype) -> Step:
    """Forward and backward of one clip as a tree."""
    student = _student(spec, frozen, device, dtype)
    (row,) = pack_trees([make_tree(student, size)], ONE_ROW)
    row = row.to(device)

    def step() -> float:
        student.zero_grad()
        return backward_packed(student, [row])

    return step


def one_by_one_training(
    spec: StudentSpec, size: TreeSize, frozen: bool, device: torch.device, dtype: torch.dtype
) -> Step:
    """The same annotations through transformers, a sequence each, gradients accumulated."""
    student = _student(spec, frozen, device, dtype)
    tree, model = make_tree(student, size), _stock_model(student)
    sequences = [plain_sequence(student, tree, branch) for branch in tree.branches]

    def step() -> float:
        model.zero_grad()
        return backward_plain(model, sequences)

    return step


def padded_training(spec: StudentSpec, size: TreeSize, frozen: bool, device: torch.device, dtype: torch.dtype) -> Step:
    """The same annotations through transformers as one padded batch."""
    student = _student(spec, frozen, device, dtype)
    tree, model = make_tree(student, size), _stock_model(student)
    batch = padded_batch([plain_sequence(student, tree, branch) for branch in tree.branches])

    def step() -> float:
        model.zero_grad()
        return backward_plain(model, [batch])

    return step


def _student(spec: StudentSpec, frozen: bool, device: torch.device, dtype: torch.dtype) -> Student:
    student = build_student(spec, device, dtype)
    student.vision.requires_grad_(not frozen)
    return student


def _stock_model(student: Student) -> nn.Module:
    """The stock model, frozen where the student is."""
    model = student.stock_model()
    trained = {name for name, parameter in student.model.named_parameters() if parameter.requires_grad}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    return model


TRAINING = {"packed": packed_training, "one_by_one": one_by_one_training, "padded": padded_training}


def tree_benchmark(
    spec: StudentSpec,
    prefix_tokens: Sequence[int],
    annotations: Sequence[int],
    repeats: int,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """Compare one clip's training and evaluation as a tree with one sequence per annotation.

    Args:
        spec: Recipe that the student is built from.
        prefix_tokens: Prefixes of the curve; the last is that of the main figures.
        annotations: Annotations per clip of the curve.
        repeats: Number of repetitions that each median is taken over.
        device: Device that everything runs on.
        dtype: Type of weights and activations.
    """
    main = TreeSize(prefix_tokens[-1], annotations=7)
    how = (device, dtype)
    costs = _training_costs(spec, main, False, repeats, *how)
    frozen = _training_costs(spec, main, True, repeats, *how, names=("packed", "one_by_one"))
    memory = {name: peak_memory_mb(build, spec, main, False, *how, device=device) for name, build in TRAINING.items()}
    curve = [
        _curve_point(spec, TreeSize(tokens, count), repeats, *how) for tokens in prefix_tokens for count in annotations
    ]
    flops = count_flops(packed_training(spec, main, False, *how))
    peak = matmul_flops_per_s(device, dtype)
    return {
        "machine": describe_machine(device),
        "size": vars(main),
        "train_vs_one_by_one_speedup": costs["one_by_one"] / costs["packed"],
        "train_vs_padded_speedup": costs["padded"] / costs["packed"],
        "train_frozen_vision_vs_one_by_one_speedup": frozen["one_by_one"] / frozen["packed"],
        "predicted_speedup": _predicted(main),
        **evaluation_of_options(spec, main.prefix_tokens, repeats, *how),
        "seconds": costs,
        "peak_memory_mb": memory,
        "peak_memory_share_of_padded": _ratio(memory["packed"], memory["padded"]),
        "curve": curve,
        "floor": {
            "gflop": flops / 1e9,
            "matmul_gflop_per_s": peak / 1e9,
            "seconds": flops / peak,
            "measured_over_floor": costs["packed"] / (flops / peak),
        },
    }


def _training_costs(
    spec: StudentSpec,
    size: TreeSize,
    frozen: bool,
    repeats: int,
    device: torch.device,
    dtype: torch.dtype,
    names: Sequence[str] = tuple(TRAINING),
) -> dict[str, float]:
    steps = {name: TRAINING[name](spec, size, frozen, device, dtype) for name in names}
    return time_alternately(steps, repeats, device, _tolerance(dtype))


def _tolerance(dtype: torch.dtype) -> float:
    return 1e-3 if dtype == torch.float32 else 2e-2


def _curve_point(
    spec: StudentSpec, size: TreeSize, repeats: int, device: torch.device, dtype: torch.dtype
) -> dict[str, float]:
    costs = _training_costs(spec, size, False, repeats, device, dtype, names=("packed", "one_by_one"))
    return {
        "prefix_tokens": size.prefix_tokens,
        "annotations": size.annotations,
        "packed_s": costs["packed"],
        "one_by_one_s": costs["one_by_one"],
        "train_vs_one_by_one_speedup": costs["one_by_one"] / costs["packed"],
        "predicted_speedup": _predicted(size),
    }


def _predicted(size: TreeSize) -> float:
    """The ratio of token counts: what is left to gain when every token costs the same."""
    branch = size.prompt_tokens + size.target_tokens
    return size.annotations * (size.prefix_tokens + branch) / (size.prefix_tokens + size.annotations * branch)


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None


def evaluation_of_options(
    spec: StudentSpec, prefix_tokens: int, repeats: int, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """Eight questions of three options: one prefill against a forward pass per option and per question."""
    student = build_student(spec, device, dtype).eval()
    stock = student.stock_model().eval()
    several, single = (
        TreeSize(prefix_tokens, 8, prompt_tokens=60, target_tokens=0, options=3, option_tokens=tokens)
        for tokens in (3, 1)
    )
    steps = {}
    for name, size in (("options", several), ("questions", single)):
        tree = without_answers(make_tree(student, size))
        (row,) = pack_trees([tree], ONE_ROW)
        steps[name] = (
            _prefilled(student, row.to(device)),
            _forwards(student, stock, tree, per_option=name == "options"),
        )
    costs = {
        name: time_alternately({"prefill": ours, "forwards": theirs}, repeats, device, _tolerance(dtype))
        for name, (ours, theirs) in steps.items()
    }
    return {
        **{f"evaluate_{name}_speedup": cost["forwards"] / cost["prefill"] for name, cost in costs.items()},
        "evaluate_seconds": costs,
    }


def _prefilled(student: Student, row: TreeRow) -> Step:
    def step() -> float:
        with torch.inference_mode():
            return sum(sum(scores) for scores in student.prefill(row).score_options())

    return step


def _forwards(student: Student, stock: Any, tree: Any, per_option: bool) -> Step:
    """Sum of all options' log-probabilities, by a forward pass for each option, or for each question."""
    asked = [
        (branch, options, plain_sequence(student, tree, branch, options[0][:-1] if per_option else ()))
        for branch in tree.branches
        for options in ([(option,) for option in branch.option_ids] if per_option else [branch.option_ids])
    ]

    def step() -> float:
        total = 0.0
        with torch.inference_mode():
            for _, options, sequence in asked:
                inputs = {name: value for name, value in sequence.items() if name != "labels"}
                count = len(options[0])
                log_probs = stock(**inputs, use_cache=False).logits[0, -count:].float().log_softmax(-1)
                total += sum(log_probs[place, token].item() for o in options for place, token in enumerate(o))
        return total

    return step
