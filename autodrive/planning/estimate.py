"""A plan: parameters, tokens, memory and arithmetic of a training, and whether it fits on its devices."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from autodrive.planning.activations import activation_bytes, kept_by, twin_of
from autodrive.planning.memory import FixedBytes, fixed_bytes
from autodrive.planning.operations import Operations, visit_operations, without_trees
from autodrive.planning.workload import FrameGroups, Visit, Workload
from autodrive.students.student import Student
from autodrive.students.towers import Tower, TowerCount
from autodrive.training.strategies import StrategyKind
from autodrive.video.frame_grid import FrameChoice

GIB = 2**30
CONTEXT_BYTES = GIB  # of the driver's context and the workspaces of its libraries: a usual figure, not measured here
WHOLE, STATES = (), ("gradients", "optimizer")
SHARED_OUT: Mapping[StrategyKind, tuple[str, ...]] = {
    "single": WHOLE,
    "ddp": WHOLE,
    "fsdp": ("weights", *STATES),
    "deepspeed_zero2": STATES,
    "deepspeed_zero3": ("weights", *STATES),
}
ESTIMATED = {
    "activations": "tokens x layers x bytes of a layer and token + patches x blocks x bytes of a block and patch + the "
    "rest (the form: Korthikanti et al. 2022); the bytes are what autograd keeps of a small twin, scaled up",
    "context": "a usual figure",
}


@dataclass(frozen=True)
class Recipe:
    """What a plan takes from the configuration of a training.

    Attributes:
        frames: Which frames of a clip the student sees.
        duration_s: Length of a clip in seconds.
        max_tokens_per_group: Most visual tokens of a group of frames at the resolution; None: as many as they are.
        batch_size: Visits of an optimiser step, on all devices together.
        tokens_per_row: Most tokens of a packed row.
        num_steps: Optimiser steps of the training.
        recompute: Whether activations are recomputed.
        autocast: Whether the forward pass computes in bfloat16 whatever the type of the weights.
        optimizer: Makes the optimiser of some parameters.
    """

    frames: FrameChoice
    duration_s: float
    max_tokens_per_group: int | None
    batch_size: int
    tokens_per_row: int
    num_steps: int
    recompute: bool
    autocast: bool
    optimizer: Callable[[list[nn.Parameter]], Optimizer]

    @property
    def num_frames(self) -> int:
        """Frames of a clip."""
        return self.frames.num_frames(self.duration_s)


@dataclass(frozen=True)
class Devices:
    """Where a training is to run.

    Attributes:
        number: Devices.
        memory_gib: Memory of one of them.
        strategy: How they take steps together, which says what is shared out among them, a part for each.
    """

    number: int
    memory_gib: float
    strategy: StrategyKind = "single"

    @property
    def share_weights(self) -> bool:
        """Whether none of them holds all weights."""
        return "weights" in SHARED_OUT[self.strategy]


@dataclass(frozen=True)
class Plan:
    """What a training takes.

    Attributes:
        parameters: How many parameters of each tower are trained, and how many are not; exact.
        visit: The clip tree of a visit, in tokens.
        most_visual_tokens: Visual tokens that a clip can take at this resolution, whatever its shape.
        visits_per_row: Visits in a packed row.
        remarks: What is peculiar to how the student's family reads such a clip.
        fixed: Bytes that are there at every step, on all devices together; exact.
        activation_bytes: Bytes of a row on its device, an estimate.
        operations: Floating-point operations of a visit, as a tree.
        operations_without_trees: The same where every annotation is a sequence of its own.
        recipe: What was planned.
        workload: What was assumed of the data.
        devices: Where it is to run.
    """

    parameters: Mapping[Tower, TowerCount]
    visit: Visit
    most_visual_tokens: int
    visits_per_row: int
    remarks: tuple[str, ...]
    fixed: FixedBytes
    activation_bytes: float
    operations: Operations
    operations_without_trees: Operations
    recipe: Recipe
    workload: Workload
    devices: Devices

    @property
    def device_bytes(self) -> dict[str, float]:
        """Bytes on one device by what they hold; those of `ESTIMATED` are estimates."""
        fixed, devices = self.fixed, self.devices
        held = {"weights": fixed.weights, "gradients": fixed.gradients, "optimizer": fixed.optimizer}
        if devices.strategy.startswith("deepspeed"):
            held["optimizer"] += fixed.gradients  # it moves a float32 copy of what is trained
        held = {
            name: count / (devices.number if name in SHARED_OUT[devices.strategy] else 1)
            for name, count in held.items()
        }
        # Autograd keeps the copies of gathered weights, so they are not shared out with them.
        held["copies"] = fixed.copies
        if devices.share_weights:
            held["gathered"] = fixed.gathered
        return {**held, "activations": self.activation_bytes, "context": float(CONTEXT_BYTES)}

    @property
    def settled_bytes(self) -> float:
        """Bytes on one device that do not depend on what is computed."""
        return sum(self.device_bytes[name] for name in ("weights", *STATES))

    @property
    def needed_gib(self) -> float:
        """Memory needed on one device, in GiB."""
        return sum(self.device_bytes.values()) / GIB

    @property
    def fits(self) -> bool:
        """Whether it fits in the memory of a device."""
        return self.needed_gib <= self.devices.memory_gib

    def record(self) -> dict[str, Any]:
        """The plan as JSON values."""
        step, epoch = self.recipe.batch_size, self.workload.visits_per_epoch
        trees, separate = self.operations.total, self.operations_without_trees.total
        visits = {"visit": 1, "step": step, "epoch": epoch, "training": step * self.recipe.num_steps}
        return {
            "parameters": {tower: count._asdict() for tower, count in self.parameters.items()},
            "trained_parameters": sum(count.trained for count in self.parameters.values()),
            "all_parameters": sum(map(sum, self.parameters.values())),
            "tokens": {
                "visual_per_clip": self.visit.video.tokens,
                "most_visual_per_clip": self.most_visual_tokens,
                "per_visit": self.visit.tokens,
                "visits_per_row": self.visits_per_row,
            },
            "remarks": list(self.remarks),
            "settled_gib": self.fixed.settled / GIB,
            "device_gib": {name: count / GIB for name, count in self.device_bytes.items()},
            "estimated": ESTIMATED,
            "needed_gib": self.needed_gib,
            "devices": asdict(self.devices),
            "fits": self.fits,
            "operations": {name: {"trees": trees * n, "without_trees": separate * n} for name, n in visits.items()},
            "recomputed_share": self.operations.recomputed / trees,
            "workload": asdict(self.workload),
        }


def make_plan(
    sketch: Student,
    prepare: Callable[[Student, float], None],
    recipe: Recipe,
    workload: Workload,
    devices: Devices,
    in_4_bits: Collection[Tensor] = (),
) -> Plan:
    """Plan the training of a student.

    Args:
        sketch: The student without weights, before it is made ready for training; that is done here.
        prepare: Makes a student ready; gets its width as a share of the sketch's, since ranks of adapters go with it.
        recipe: What the configuration says of the training.
        workload: What is assumed of the data, annotations of a visit included.
        devices: Where it is to run.
        in_4_bits: Weights of the sketch that will be packed.
    """
    assert workload.annotations_per_visit is not None
    width, height = workload.source_width, workload.source_height
    visit = Visit(
        FrameGroups.of(sketch.processor, recipe.num_frames, width, height),
        workload.text_tokens + sketch.processor.tokens_between(recipe.num_frames),
        workload.annotations_per_visit,
        workload.prompt_tokens,
        workload.target_tokens,
    )
    twin = twin_of(sketch)
    prepare(twin.student, twin.text_scale)
    kept = kept_by(twin, recipe.autocast)
    prepare(sketch, 1.0)
    remarks = sketch.processor.remarks(recipe.num_frames, recipe.frames.rate(recipe.duration_s))
    visits = -(-recipe.batch_size // devices.number)
    visits_per_row = max(1, min(visits, int(recipe.tokens_per_row // visit.tokens)))
    return Plan(
        parameters=sketch.towers.counts(),
        visit=visit,
        most_visual_tokens=visit.video.groups * (recipe.max_tokens_per_group or visit.video.of_a_group),
        visits_per_row=visits_per_row,
        remarks=(*recipe.frames.lines(), *remarks),
        fixed=fixed_bytes(sketch.model, recipe.optimizer, recipe.autocast, in_4_bits),
        activation_bytes=activation_bytes(sketch, kept, visit, visits_per_row, recipe.recompute),
        operations=visit_operations(sketch, visit, recipe.recompute),
        operations_without_trees=without_trees(sketch, visit, recipe.recompute),
        recipe=recipe,
        workload=workload,
        devices=devices,
    )
