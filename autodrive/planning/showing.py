"""A plan on the screen, in a hundred columns."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from autodrive.planning.estimate import ESTIMATED, GIB, SHARED_OUT, Plan

WHAT_IS_HELD = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimiser",
    "copies": "copies of float32 weights in bfloat16",
    "gathered": "weights that are whole for a while",
    "activations": "activations of a packed row",
    "context": "driver and libraries",
}
HOW_IT_IS_KNOWN = {
    "activations": "estimate, from a small twin",
    "context": "estimate, a usual figure",
}
UNITS = ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"))


def show_plan(plan: Plan, title: str, source: str, console: Console) -> None:
    """Print parameters, tokens, memory of a device and arithmetic.

    Args:
        plan: The plan.
        title: What is planned.
        source: Where the student's sizes come from.
        console: Where it is printed.
    """
    table = Table(title=title, title_justify="left")
    for column in ("parameters", "trained", "frozen", "all"):
        table.add_column(column, justify="left" if column == "parameters" else "right")
    for tower, (trained, frozen) in plan.parameters.items():
        table.add_row(tower, *(f"{count:,}" for count in (trained, frozen, trained + frozen)))
    trained, frozen = (sum(counts) for counts in zip(*plan.parameters.values(), strict=True))
    table.add_row("all", *(f"{count:,}" for count in (trained, frozen, trained + frozen)), style="bold")
    console.print(table)
    console.print(f"sizes: {source}", highlight=False)
    _show_tokens(plan, console)
    console.print(_memory(plan))
    console.print(_arithmetic(plan))


def show_changes(changes: Mapping[str, Plan], console: Console) -> None:
    """Print what would make it fit."""
    if not changes:
        console.print("none of the usual changes would make it fit")
        return
    table = Table(title="each of these would make it fit", title_justify="left")
    table.add_column("change")
    table.add_column("GiB on a device", justify="right")
    for change, other in changes.items():
        table.add_row(change, f"{other.needed_gib:.1f}")
    console.print(table)


def _show_tokens(plan: Plan, console: Console) -> None:
    video, work = plan.visit.video, plan.workload
    frames = f"{plan.recipe.num_frames} frames of {work.source_width}x{work.source_height}"
    grid = f"{video.groups} groups of {video.rows}x{video.columns}"
    console.print(
        f"a clip: {frames} → {grid} = {video.tokens:,} visual tokens (at most {plan.most_visual_tokens:,})\n"
        f"a visit: {plan.visit.tokens:,.0f} tokens with {work.annotations_per_visit:g} annotations of "
        f"{plan.visit.branch_tokens} (assumed); {plan.visits_per_row} of {plan.recipe.batch_size} visits "
        "in a packed row",
        *plan.remarks,
        sep="\n",
        highlight=False,
    )


def _memory(plan: Plan) -> Table:
    devices = plan.devices
    parts = " and ".join([WHAT_IS_HELD[name] for name in SHARED_OUT[devices.strategy]]).replace(" and ", ", ", 1)
    shared = (
        f", one of {devices.number} that share {parts or 'steps'} ({devices.strategy})" if devices.number > 1 else ""
    )
    table = Table(title=f"memory of a device{shared}", title_justify="left", caption_justify="left")
    table.caption = f"activations: {ESTIMATED['activations']}"
    table.add_column("what")
    table.add_column("GiB", justify="right")
    table.add_column("how it is known")
    for name, count in plan.device_bytes.items():
        gib = f"{count / GIB:.1f}" if count > GIB / 10 else f"{count / GIB:.4f}"
        table.add_row(WHAT_IS_HELD[name], gib, HOW_IT_IS_KNOWN.get(name, "exact"))
    verdict = f"fits in {devices.memory_gib:g} GiB" if plan.fits else f"does not fit in {devices.memory_gib:g} GiB"
    table.add_row("all", f"{plan.needed_gib:.1f}", verdict, style="bold" if plan.fits else "bold red")
    return table


def _arithmetic(plan: Plan) -> Table:
    recipe = plan.recipe
    table = Table(title="arithmetic of training", title_justify="left")
    table.add_column("what")
    for column in ("clip trees", "one sequence each", "times"):
        table.add_column(column, justify="right")
    trees, separate = plan.operations.total, plan.operations_without_trees.total
    visits = {
        "a visit": 1,
        f"a step of {recipe.batch_size} visits": recipe.batch_size,
        f"an epoch of {plan.workload.visits_per_epoch:,} visits (assumed)": plan.workload.visits_per_epoch,
        f"the training of {recipe.num_steps:,} steps": recipe.num_steps * recipe.batch_size,
    }
    for what, number in visits.items():
        size, unit = next((pair for pair in UNITS if trees * number >= pair[0]), UNITS[-1])
        cells = (f"{operations * number / size:,.1f} {unit}" for operations in (trees, separate))
        table.add_row(what, *cells, f"{separate / trees:.2f}")
    return table
