"""Adapters in a student's model: put in place, saved and read in peft's layout, and merged into its weights.

Imported where there is an adapter: peft takes more than a second and imports bitsandbytes.
"""

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from peft import (
    LoraConfig,
    PeftConfig,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import SAFETENSORS_WEIGHTS_NAME, ModulesToSaveWrapper
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from autodrive.counted import counted
from autodrive.errors import InputError
from autodrive.students.bases import ADAPTER_CONFIG, Base
from autodrive.students.digests import tensors_digest
from autodrive.students.quantisation import dequantised

PEFT_PREFIX = "base_model.model."  # of every name in peft's files
TRAIN_MORE = ("modules_to_save", "trainable_token_indices", "target_parameters", "lora_bias")
# Kinds of LoRA that compute something else than `merge` does; with the first, nothing at all without further arguments.
OTHER_KINDS = (
    "alora_invocation_tokens",
    "arrow_config",
    "corda_config",
    "eva_config",
    "kasa_config",
    "layer_replication",
    "loftq_config",
    "lora_ga_config",
    "monteclora_config",
    "use_bdlora",
    "use_qalora",
    "velora_config",
)


def inject(model: nn.Module, settings: Mapping[str, Any]) -> None:
    """Put a LoRA or DoRA adapter on a model in place, in the type of its weights.

    Args:
        model: The model. On `meta` only shapes are made.
        settings: Arguments of peft's `LoraConfig`.

    Raises:
        InputError: DoRA cannot scale a row of a weight matrix that is zero.
    """
    device = next(model.parameters()).device
    with torch.device(device):
        inject_adapter_in_model(LoraConfig(**settings), model)
    for path, module in _layers(model):
        for magnitude in getattr(module, "lora_magnitude_vector", {}).values():
            weight = magnitude.weight
            if not weight.is_meta and not bool((weight.isfinite() & (weight > 0)).all()):
                raise InputError(f"use_dora: {path} has a row of zeros, which has no magnitude; choose adapter=lora")


def adapter_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """Every parameter of the adapters in a model, magnitudes included."""
    for _, module in _layers(model):
        for name in module.adapter_layer_names:
            yield from getattr(module, name).parameters()


def base_weights(model: nn.Module) -> dict[str, Tensor]:
    """A model's weights by the names they have without adapters, and without the adapters' own."""
    weights = dict(model.state_dict())
    for path, module in model.named_modules():
        if not isinstance(module, (BaseTunerLayer, ModulesToSaveWrapper)):
            continue
        inner = "base_layer." if isinstance(module, BaseTunerLayer) else "original_module."
        prefix = f"{path}."
        for name in [name for name in weights if name.startswith(prefix)]:
            tensor = weights.pop(name)
            if name.startswith(prefix + inner):
                weights[prefix + name.removeprefix(prefix + inner)] = tensor
    return weights


def write_adapter(model: nn.Module, folder: Path, base: Base | None) -> None:
    """Write a model's adapter in peft's layout, which peft reads too.

    Args:
        model: The model with the adapter in place.
        folder: Takes `adapter_config.json` and `adapter_model.safetensors`.
        base: Where the weights lie that the adapter belongs to; None: in the folder above.
    """
    config = copy.copy(_config(model))
    config.base_model_name_or_path = None if base is None else base.source
    config.revision, config.inference_mode = None if base is None else base.revision, True
    folder.mkdir(exist_ok=True)
    config.save_pretrained(str(folder))
    named = {PEFT_PREFIX + name: tensor.detach().contiguous() for name, tensor in _tensors(model).items()}
    save_file(named, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})


def read_adapter(model: nn.Module, folder: Path) -> None:
    """Put an adapter in peft's layout, ours or one that was trained elsewhere, on a model in place.

    Args:
        model: The model that it was trained on.
        folder: Holds `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        InputError: As `read_settings`, or its weights are not there, or not those of its settings and this model.
    """
    settings, path = read_settings(folder), folder / SAFETENSORS_WEIGHTS_NAME
    fix = "restore it, or train the adapter again"
    try:
        tensors = {key.removeprefix(PEFT_PREFIX): tensor for key, tensor in load_file(path).items()}
        settings.inference_mode = False  # peft would freeze what is to be trained on
        inject_adapter_in_model(settings, model)
        for _, module in _layers(model):
            _in_float32(module)
        report = set_peft_model_state_dict(model, tensors)
        expected = set(_tensors(model))
    except Exception as error:  # whatever a file from elsewhere makes peft raise
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]}); {fix}") from None
    if report.unexpected_keys or expected != set(tensors):
        wrong = sorted({*report.unexpected_keys, *(expected ^ set(tensors))})
        raise InputError(f"{path}: {wrong[0]} does not fit adapter_config.json and the base; {fix}")
    broken = sorted(name for name, tensor in tensors.items() if not bool(tensor.isfinite().all()))
    if broken:
        raise InputError(f"{path}: {broken[0]} is not finite; {fix}")


def description(model: nn.Module) -> str:
    """The adapter in place and the layers that it is on, in words."""
    config = _config(model)
    names = Counter(path.rpartition(".")[2] for path, _ in _layers(model))
    layers = ", ".join(f"{number} {name}" for name, number in sorted(names.items()))
    scale = f"rank {config.r}, alpha {config.lora_alpha:g}, dropout {config.lora_dropout:g}"
    packed = any(hasattr(module.get_base_layer().weight, "quant_state") for _, module in _layers(model))
    where = f"{counted(sum(names.values()), 'linear layer')}{' in 4 bits' if packed else ''}"
    return f"{_kind(config)} adapter of {scale} on {where}: {layers}"


def adapter_name(model: nn.Module) -> str:
    """What adapter is in place and which: kind, rank and the digest of its tensors."""
    config = _config(model)
    return f"{_kind(config).lower()}_r{config.r}@{tensors_digest(_tensors(model))}"


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Turn every adapted layer of a model into a plain float32 linear layer that computes the same.

    LoRA: W0 + s B A. DoRA (equation 5 of its paper): each row of that, scaled to its magnitude. A base in 4 bits comes
    back as plain numbers. The model is changed in place; its other layers stay as they are.

    Raises:
        ValueError: An adapter is of another kind, or has biases of its own.
    """
    for path, layer in list(_layers(model)):
        name = layer.active_adapters[0]
        if not isinstance(layer, LoraLayer) or not isinstance(layer.get_base_layer(), nn.Linear):
            raise ValueError(f"{path}: only LoRA and DoRA on linear layers can be merged")
        if layer.lora_bias[name]:
            raise ValueError(f"{path}: an adapter with biases cannot be merged")
        base = cast(nn.Linear, layer.get_base_layer())
        left, right = (cast(Tensor, part[name].weight).float() for part in (layer.lora_B, layer.lora_A))
        weight = dequantised(base).float() + layer.scaling[name] * (left @ right)
        if name in layer.lora_magnitude_vector:
            magnitude = cast(Tensor, layer.lora_magnitude_vector[name].weight).float()
            weight = weight * (magnitude / weight.norm(dim=1))[:, None]
        merged = nn.Linear(base.in_features, base.out_features, base.bias is not None, device=torch.device("meta"))
        merged.weight = nn.Parameter(weight)
        if base.bias is not None:
            merged.bias = nn.Parameter(base.bias.float())
        parent, _, attribute = path.rpartition(".")
        setattr(model.get_submodule(parent), attribute, merged.train(base.training))
    del model.peft_config


def read_settings(folder: Path) -> LoraConfig:
    """The settings of an adapter in peft's layout.

    Raises:
        InputError: They are not there, or not those of a LoRA or DoRA adapter.
    """
    path = folder / ADAPTER_CONFIG
    try:
        if not path.is_file():
            raise FileNotFoundError("no such file")
        settings = PeftConfig.from_pretrained(str(folder))
    except Exception as error:  # whatever a file from elsewhere makes peft raise
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot be read ({reason}); give a folder in peft's layout") from None
    if not isinstance(settings, LoraConfig):
        raise InputError(f"{path}: peft_type is {settings.peft_type}; only LORA, with or without use_dora, is known")
    for key in TRAIN_MORE:
        if getattr(settings, key, None):
            raise InputError(f"{path}: {key} trains more than low-rank matrices, which is not known here; leave it out")
    for key in OTHER_KINDS:
        if getattr(settings, key, None):
            raise InputError(f"{path}: {key} makes it another kind of adapter, which is not known here; leave it out")
    if settings.init_lora_weights not in (True, False, "gaussian"):
        message = f"{path}: init_lora_weights={settings.init_lora_weights} changes the base as well"
        raise InputError(f"{message}; convert it to a plain LoRA, as peft's documentation says")
    return settings


def _config(model: nn.Module) -> LoraConfig:
    configs: Mapping[str, LoraConfig] = getattr(model, "peft_config", {})
    if len(configs) != 1:
        raise ValueError(f"a student has one adapter; this one has {', '.join(configs) or 'none'}")
    return next(iter(configs.values()))


def _kind(config: LoraConfig) -> str:
    return "DoRA" if config.use_dora else "LoRA"


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    # To find out whether embeddings were enlarged, peft would look for the base by its name, on the network too.
    return dict(get_peft_model_state_dict(model, save_embedding_layers=False))


def _layers(model: nn.Module) -> Iterator[tuple[str, BaseTunerLayer]]:
    return ((path, module) for path, module in model.named_modules() if isinstance(module, BaseTunerLayer))


def _in_float32(layer: BaseTunerLayer) -> None:
    for name in layer.adapter_layer_names:
        getattr(layer, name).float()
