"""Linear layers in 4 bits (NF4, QLoRA section 3): a base that is read only, under adapters that are trained."""

from typing import Any, cast

import torch
from torch import nn


def quantise(model: nn.Module, layers: dict[str, nn.Linear]) -> None:
    """Put 4-bit layers of bitsandbytes in the places of linear layers; they compute in the type of the weights before.

    Args:
        model: The model that holds the layers; it is changed in place.
        layers: Its linear layers by path. Layers on `meta` stay: a layer in 4 bits stands for as many parameters.
    """
    # Imported here: they take seconds, and most runs need none of it.
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    for path, layer in layers.items():
        if layer.weight.is_meta or isinstance(layer, Linear4bit):
            continue
        device, dtype, bias = layer.weight.device, layer.weight.dtype, layer.bias
        packed = Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=bias is not None,
            compute_dtype=dtype,
            quant_type="nf4",
            device=torch.device("meta"),
        )
        packed.weight = cast(Any, Params4bit)(layer.weight.data, quant_type="nf4", module=packed)
        if bias is not None:
            packed.bias = nn.Parameter(bias.data, requires_grad=False)
        # On some CPUs it would pack the weights anew in evaluation mode, and DoRA could not read them any more.
        packed.support_avx512bf16_for_cpu = False
        packed.train(layer.training)
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, packed.to(device))  # which packs the weights


def is_quantised(layers: dict[str, nn.Linear]) -> bool:
    """Whether any of these layers is in 4 bits."""
    return any(hasattr(layer.weight, "quant_state") for layer in layers.values())


def dequantised(layer: nn.Linear) -> torch.Tensor:
    """The weight of a linear layer as plain numbers, whether it is in 4 bits or not."""
    state = getattr(layer.weight, "quant_state", None)
    if state is None:
        return layer.weight.data
    from bitsandbytes.functional import dequantize_4bit

    return cast(torch.Tensor, dequantize_4bit(layer.weight.data, state))
