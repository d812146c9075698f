"""A student whose weights are cut up among processes (torch's FSDP2), of which the first one alone has read them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from transformers.modeling_layers import GradientCheckpointingLayer

from autodrive.errors import InputError
from autodrive.students.quantisation import is_quantised
from autodrive.students.student import Student
from autodrive.students.towers import TOWERS


@contextmanager
def weights_from_the_first(*, here: bool) -> Iterator[None]:
    """A student that is read from files meanwhile has shapes and no values (it is on torch's meta device), if `here`.

    `shard` gives it what the first process has read. Otherwise eight processes would hold eight copies in a machine's
    memory before each keeps an eighth.
    """
    if not here:
        yield
        return
    with torch.device("meta"):
        yield


def shard(student: Student, mesh: DeviceMesh) -> None:
    """Cut up the weights of a student: each layer by itself, and the rest together.

    All values are those of the first process, one tensor after the other; whatever the others hold is overwritten.
    Embedding and head stay together, since they may be one weight. Afterwards weights are there during the student's
    forward pass only, which is the one way to use it.

    Args:
        student: The student, changed in place; in all but the first process it may be on `meta`.
        mesh: The processes, in one dimension, and their kind of device.

    Raises:
        InputError: As `check_divisible` does.
    """
    check_divisible(student)
    first = mesh.get_rank() == 0
    values = {name: tensor.detach() for name, tensor in student.state_dict().items()} if first else {}
    for layer in [module for module in student.modules() if isinstance(module, GradientCheckpointingLayer)]:
        fully_shard(layer, mesh=mesh)
    # By default the root would keep its weights gathered, and what goes around its forward pass would work after one.
    fully_shard(student, mesh=mesh, reshard_after_forward=True)
    if mesh.size() > 1:
        _make_room(student, mesh.device_type)
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_model_state_dict(student, values, options=options)
        for buffer in student.buffers():  # also those that are in no file, such as frequencies
            dist.broadcast(buffer, 0)


def _make_room(student: Student, device: str) -> None:
    """Give what is on `meta` memory for this process's part, on a device; torch's `to_empty` would untie what is tied.

    FSDP2 looks for the new parameters when values are loaded into them.
    """
    made: dict[int, nn.Parameter] = {}
    for module in student.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if parameter.is_meta:
                if id(parameter) not in made:
                    room = torch.empty_like(parameter.detach(), device=device)
                    made[id(parameter)] = nn.Parameter(room, requires_grad=parameter.requires_grad)
                setattr(module, name, made[id(parameter)])
        for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
            if buffer.is_meta:
                setattr(module, name, torch.empty_like(buffer, device=device))


def check_divisible(student: Student) -> None:
    """Refuse a student with weights in 4 bits: cut up, they would lose the scales that belong to them.

    Raises:
        InputError: It has some.
    """
    if any(is_quantised(student.towers.linear_layers(tower)) for tower in TOWERS):
        raise InputError("strategy: this student has weights in 4 bits, which are not cut up; give strategy=ddp")
