"""Bytes that a training needs whatever it reads: weights, gradients and what the optimiser remembers of them.

No formula stands here that could be wrong: types and numbers are those of the student as it would be trained, and what
an optimiser or a 4-bit layer takes for a value is measured on a small one.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers.modeling_layers import GradientCheckpointingLayer

from autodrive.students.anatomy import MATRIX_PRODUCTS
from autodrive.students.towers import unread_weights

LARGEST_MEASURED = 2**16  # values of a parameter; what more of them take is in proportion
AUTOCAST_BYTES = 2  # of a value in the type that autocast computes in


@dataclass(frozen=True)
class FixedBytes:
    """What is there at every step.

    Attributes:
        weights: All parameters, in the types they are held in; those that no pass reads, too.
        gradients: Those of the trained parameters.
        optimizer: What the optimiser remembers of them.
        copies: Copies of float32 weights that autocast computes with, kept from the forward to the backward pass.
        gathered: Weights that a device of several, which share them, holds whole at a time: those of its largest layer,
            and those outside of layers.
    """

    weights: int
    gradients: int
    optimizer: int
    copies: int
    gathered: int

    @property
    def settled(self) -> int:
        """All that does not depend on what is computed: without copies."""
        return self.weights + self.gradients + self.optimizer


def fixed_bytes(
    model: nn.Module,
    optimizer: Callable[[list[nn.Parameter]], Optimizer],
    autocast: bool,
    in_4_bits: Collection[Tensor] = (),
) -> FixedBytes:
    """What a model that is ready to be trained takes.

    Args:
        model: The model; its weights may be on `meta`. Parameters that require gradients are trained.
        optimizer: Makes the optimiser of some parameters.
        autocast: Whether products are computed in bfloat16 whatever the type of the weights.
        in_4_bits: Weights that stand for packed ones.
    """
    packed = {id(parameter) for parameter in in_4_bits}
    remembered_of = cache(lambda size: _remembered(optimizer, size))
    weights = float(sum(weight.nbytes for weight in unread_weights(model).values()))
    gradients = remembered = 0.0
    for parameter in model.parameters():
        size = parameter.numel()
        weights += size * (four_bit_bytes() if id(parameter) in packed else parameter.itemsize)
        if parameter.requires_grad:
            gradients += size * parameter.itemsize
            remembered += _in_proportion(size, remembered_of)
    copies = sum(
        module.weight.numel() * AUTOCAST_BYTES
        for module in model.modules()
        if autocast and isinstance(module, MATRIX_PRODUCTS) and module.weight.dtype == torch.float32
    )
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    sizes = [sum(parameter.nbytes for parameter in layer.parameters()) for layer in layers]
    outside = sum(parameter.nbytes for parameter in model.parameters()) - sum(sizes)
    gathered = outside + max(sizes, default=0)
    return FixedBytes(round(weights), round(gradients), round(remembered), copies, gathered)


@cache
def four_bit_bytes() -> float:
    """Bytes of a value in a 4-bit layer, the scales of its blocks included."""
    from autodrive.students.quantisation import quantise  # imported here: bitsandbytes takes seconds

    side = 512
    layer = nn.Linear(side, side, bias=False, dtype=torch.bfloat16)
    model = nn.Sequential(layer)
    quantise(model, {"0": layer})
    weight = cast(Any, model[0]).weight
    scales, scales_of_scales = weight.quant_state, weight.quant_state.state2
    tensors = [weight.data, scales.absmax, *([] if scales_of_scales is None else [scales_of_scales.absmax])]
    return sum(tensor.nbytes for tensor in tensors) / side**2


def _remembered(optimizer: Callable[[list[nn.Parameter]], Optimizer], size: int) -> float:
    """Bytes that an optimiser remembers of one parameter with so many values after a step."""
    parameter = nn.Parameter(torch.zeros(size))
    parameter.grad = torch.zeros(size)
    made = optimizer([parameter])
    made.step()
    return float(sum(tensor.nbytes for tensor in _tensors(made.state[parameter].values()) if tensor.numel() > 1))


def _tensors(values: Iterable[object]) -> Iterable[Tensor]:
    return (value for value in values if isinstance(value, Tensor))


def _in_proportion(size: int, measure: Callable[[int], float]) -> float:
    """What a parameter takes, small ones as measured: some optimisers keep tables beside, or small states whole."""
    if size <= LARGEST_MEASURED:
        return measure(size)
    most, half = measure(LARGEST_MEASURED), measure(LARGEST_MEASURED // 2)
    return most + (size - LARGEST_MEASURED) * (most - half) / (LARGEST_MEASURED // 2)
