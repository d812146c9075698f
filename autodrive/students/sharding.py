"""A student whose weights are cut up among processes (torch's FSDP2)."""

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from transformers.modeling_layers import GradientCheckpointingLayer

from autodrive.errors import InputError
from autodrive.students.quantisation import is_quantised
from autodrive.students.student import Student
from autodrive.students.towers import TOWERS


def shard(student: Student, mesh: DeviceMesh) -> None:
    """Cut up the weights of a student: each layer by itself, and the rest together.

    Embedding and head stay together, since they may be one weight. Afterwards weights are there during the student's
    forward pass only, which is the one way to use it.

    Args:
        student: The student, changed in place.
        mesh: The processes, in one dimension.

    Raises:
        InputError: As `check_divisible` does.
    """
    check_divisible(student)
    for layer in [module for module in student.modules() if isinstance(module, GradientCheckpointingLayer)]:
        fully_shard(layer, mesh=mesh)
    # By default the root would keep its weights gathered, and what goes around its forward pass would work after one.
    fully_shard(student, mesh=mesh, reshard_after_forward=True)


def check_divisible(student: Student) -> None:
    """Refuse a student with weights in 4 bits: cut up, they would lose the scales that belong to them.

    Raises:
        InputError: It has some.
    """
    if any(is_quantised(student.towers.linear_layers(tower)) for tower in TOWERS):
        raise InputError("strategy: this student has weights in 4 bits, which are not cut up; give strategy=ddp")
