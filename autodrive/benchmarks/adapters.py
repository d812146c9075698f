"""A training step and an evaluation with every adapter, against full fine-tuning and against merged weights."""

import copy
import math
from collections.abc import Mapping
from typing import Any, Literal

import torch

from autodrive.benchmarks.measure import Step, describe_machine, time_alternately
from autodrive.benchmarks.mixture import NEW_TOKENS, NUM_QUESTIONS, mixture_trees
from autodrive.benchmarks.workload import TreeSize, backward_packed, build_student, make_tree, without_answers
from autodrive.students.recipe import StudentSpec
from autodrive.students.student import Student
from autodrive.students.tuning import FullTuning, LowRankAdapter, Tuning, make_trainable
from autodrive.trees.clip_tree import TreeRow
from autodrive.trees.packing import pack_trees

KINDS: tuple[Literal["lora", "dora", "qlora", "qdora"], ...] = ("lora", "dora", "qlora", "qdora")


def adapter_benchmark(
    spec: StudentSpec,
    rank: int,
    prefix_tokens: int,
    tokens_per_row: int,
    repeats: int,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """One optimiser step over eight visits with every adapter, and a clip's questions before and after merging.

    Args:
        spec: Recipe that the student is built from.
        rank: Rank of the adapters, which are on all linear layers of the language model.
        prefix_tokens: Prefix length of every clip.
        tokens_per_row: Most tokens of a packed row.
        repeats: Number of repetitions that each median is taken over.
        device: Device that everything runs on.
        dtype: Type of weights that are not trained, and of the arithmetic.
    """
    tunings: dict[str, Tuning] = {"full": FullTuning()}
    for kind in KINDS:
        tunings[kind] = LowRankAdapter(kind, rank, alpha="2r", dropout=0.0, targets={"language": "all"})
    students = {kind: _student(spec, tuning, device, dtype) for kind, tuning in tunings.items()}
    size = TreeSize(prefix_tokens, NUM_QUESTIONS, prompt_tokens=60, target_tokens=0)
    (asked,) = pack_trees([without_answers(make_tree(students["full"], size))], 10**9)
    trees = mixture_trees(students["full"], prefix_tokens)
    rows = [row.to(device) for row in pack_trees(trees, tokens_per_row)]
    training = {kind: _training(student, rows) for kind, student in students.items()}
    training_s = time_alternately(training, repeats, device, tolerance=math.inf)  # every step moves the weights
    merged = {f"{kind}_merged": _merged(students[kind]) for kind in KINDS}
    replying = {kind: _replying(student, asked.to(device)) for kind, student in (students | merged).items()}
    replying_s = time_alternately(replying, repeats, device, tolerance=math.inf)
    return {
        "machine": describe_machine(device),
        "rank": rank,
        **{f"{kind}_train_vs_full_speedup": training_s["full"] / training_s[kind] for kind in KINDS},
        **{
            f"{kind}_replies_merged_vs_in_place_speedup": replying_s[kind] / replying_s[f"{kind}_merged"]
            for kind in KINDS
        },
        "parameters": {kind: _parameters(student) for kind, student in students.items()},
        "seconds": {"training": training_s, "replying": replying_s},
    }


def _student(spec: StudentSpec, tuning: Tuning, device: torch.device, dtype: torch.dtype) -> Student:
    student = build_student(spec, device, dtype)
    student.dtype = dtype
    make_trainable(student.towers, tuning, (), seed=0)
    return student.train()


def _training(student: Student, rows: list[TreeRow]) -> Step:
    device = next(student.parameters()).device
    optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=1e-5)

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=student.dtype != torch.float32):
            loss = backward_packed(student, rows)
        optimizer.step()
        return loss

    return step


def _merged(student: Student) -> Student:
    return copy.deepcopy(student).merge().as_read()


def _replying(student: Student, row: TreeRow) -> Step:
    student.eval()

    def step() -> float:
        with torch.inference_mode():
            return float(sum(len(reply.ids) for reply in student.prefill(row).generate([NEW_TOKENS] * NUM_QUESTIONS)))

    return step


def _parameters(student: Student) -> Mapping[str, int]:
    counts = student.towers.counts().values()
    held = sum(parameter.numel() * parameter.element_size() for parameter in student.parameters())
    return {"trained": sum(count.trained for count in counts), "weight_bytes": held}
