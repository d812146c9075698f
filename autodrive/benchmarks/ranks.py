"""One optimiser step in one process, and the same step shared by two: what sharing costs, and for what."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from autodrive.benchmarks.measure import describe_machine, seconds
from autodrive.benchmarks.mixture import mixture_trees
from autodrive.benchmarks.workload import backward_packed, build_student
from autodrive.errors import InputError
from autodrive.ranks.group import Group, this_group
from autodrive.ranks.launching import run_ranks
from autodrive.runs.machine import quiet_libraries
from autodrive.students.recipe import StudentSpec
from autodrive.trees.clip_tree import TreeRow
from autodrive.trees.packing import TreeSize, sum_of_weights
from autodrive.trees.sharing import SharedRow, laid_out, passes, shared_rows

NUM_RANKS = 2
TOLERANCE = 1e-3  # relative, between losses of the same step


@dataclass(frozen=True)
class RanksWork:
    """What is measured.

    Attributes:
        spec: Recipe that the student is built from.
        prefix_tokens: Prefix length of every clip.
        tokens_per_row: Most tokens of a packed row.
        repeats: Number of repetitions that each median is taken over.
        device: Kind of device; every process has one of its own.
        dtype: Type of weights and arithmetic.
    """

    spec: StudentSpec
    prefix_tokens: int
    tokens_per_row: int
    repeats: int
    device: torch.device
    dtype: torch.dtype


def ranks_benchmark(
    spec: StudentSpec,
    prefix_tokens: int,
    tokens_per_row: int,
    repeats: int,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """A step over eight visits with data parallelism: processor seconds on a CPU, wall seconds on GPUs.

    Args:
        spec: See `RanksWork`.
        prefix_tokens: See `RanksWork`.
        tokens_per_row: See `RanksWork`.
        repeats: See `RanksWork`.
        device: See `RanksWork`.
        dtype: See `RanksWork`.

    Returns:
        Seconds of the step in one process (`alone_s`); of both together (`ranks_s`) and what that is in the one's
        (`ranks_over_alone`); the share of it that adds up gradients (`communication_share`); the share of all rows'
        cost that is rows of weight 0 (`empty_rows_share`); and the costlier process's rows over the mean
        (`imbalance`), each minus 1 where that is nothing.

    Raises:
        InputError: There are fewer GPUs than processes.
        RuntimeError: One process and two do not find the same loss; they did not do the same work.
    """
    if device.type == "cuda" and torch.cuda.device_count() < NUM_RANKS:
        raise InputError(f"name=ranks: needs {NUM_RANKS} GPUs, {torch.cuda.device_count()} found; give accelerator=cpu")
    work = RanksWork(spec, prefix_tokens, tokens_per_row, repeats, device, dtype)
    alone = measure_share(work)
    ranks = run_ranks(measure_in_rank, (work,), NUM_RANKS)
    losses = alone["loss"], sum(rank["loss"] for rank in ranks)
    if abs(losses[0] - losses[1]) > TOLERANCE * max(1.0, abs(losses[0])):
        raise RuntimeError(f"one process and {NUM_RANKS} disagree: {losses}")
    total_s = sum(rank["rows_s"] + rank["communication_s"] for rank in ranks)
    costs = [rank["cost"] for rank in ranks]
    return {
        "alone_s": alone["rows_s"],
        "ranks_s": total_s,
        "ranks_over_alone": total_s / alone["rows_s"],
        "communication_share": sum(rank["communication_s"] for rank in ranks) / total_s,
        "empty_rows_share": sum(rank["empty_cost"] for rank in ranks) / sum(costs),
        "imbalance": max(costs) / statistics.mean(costs),
        "rows": {"alone": alone["rows"], "each": ranks[0]["rows"]},
        "machine": describe_machine(device),
    }


def measure_in_rank(work: RanksWork) -> list[dict[str, float]]:
    """What each process does; all that they found, by process."""
    quiet_libraries()
    torch.set_num_threads(1)
    return this_group().all_of(measure_share(work))


def measure_share(work: RanksWork) -> dict[str, float]:
    """Time this process's rows of the step and, where there are others, adding up the gradient with them."""
    group = this_group()
    device = torch.device("cuda", group.rank) if work.device.type == "cuda" else work.device
    student = build_student(work.spec, device, work.dtype)
    share, rows, cost = _share_of(student, work, group)
    rows = [row.to(device) for row in rows]
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-5)
    taken: dict[str, list[float]] = {"rows": [], "communication": []}
    losses = []
    for _ in range(work.repeats + 1):
        optimizer.zero_grad()
        rows_s, loss = seconds(partial(backward_packed, student, rows), device)
        communication_s = 0.0
        if group.size > 1:
            communication_s, _ = seconds(partial(_add_up, list(student.parameters()), group.size), device)
        step_s, _ = seconds(lambda: (optimizer.step(), 0.0)[1], device)
        losses.append(loss)
        taken["rows"].append(rows_s + step_s)
        taken["communication"].append(communication_s)
    medians = {f"{name}_s": statistics.median(values[1:]) for name, values in taken.items()}  # the first one warms up
    filled = [not row.filler for row in share]
    empty = sum(value for value, own in zip(cost, filled, strict=True) if not own)
    # The first loss is that of equal weights: each process goes on with its own gradient, which takes as long.
    return {**medians, "loss": losses[0], "rows": len(rows), "cost": sum(cost), "empty_cost": empty}


def _share_of(student: Any, work: RanksWork, group: Group) -> tuple[list[SharedRow], Sequence[TreeRow], list[float]]:
    """This process's rows as they were dealt, with their tokens, and what each costs."""
    trees = mixture_trees(student, work.prefix_tokens)
    sizes = [TreeSize.of(tree) for tree in trees]
    price = partial(passes, width=student.text_model.config.hidden_size)
    share = shared_rows(sizes, work.tokens_per_row, group.size, price)[group.rank]
    normaliser = sum_of_weights([branch for tree in trees for branch in tree.branches], "annotations")
    costs = [sum(price(sizes[place].part(branches)) for place, branches in row.pieces) for row in share]
    return share, laid_out(share, dict(enumerate(trees)), normaliser, "annotations"), costs


def _add_up(parameters: Sequence[nn.Parameter], num_ranks: int) -> float:
    """Add up the gradients of all processes, as one message."""
    gradients = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    dist.all_reduce(gradients)
    return float(gradients[0]) / num_ranks
