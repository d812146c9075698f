"""Adapters that were injected into a student's model in place: how they are saved beside it and come back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import get_peft_config, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import SAFETENSORS_WEIGHTS_NAME, ModulesToSaveWrapper
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from autodrive.errors import InputError

ADAPTER_FOLDER = "adapter"  # not the student's own: transformers would take the two for one checkpoint
PEFT_PREFIX = "base_model.model."  # of every name in peft's files


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


def write_adapter(model: nn.Module, folder: Path) -> dict[str, Any] | None:
    """Write the adapter of a student's model below its folder in peft's layout, which peft reads too.

    Returns:
        Its settings as JSON values, for `student.json`; None if there is no adapter.

    Raises:
        ValueError: The model has several adapters.
    """
    configs: Mapping[str, Any] = getattr(model, "peft_config", {})
    if not configs:
        return None
    if len(configs) > 1:
        raise ValueError(f"a student is saved with one adapter; this one has {', '.join(configs)}")
    ((name, config),) = configs.items()
    tensors = get_peft_model_state_dict(model, adapter_name=name)
    named = {PEFT_PREFIX + key: tensor.detach().contiguous() for key, tensor in tensors.items()}
    (folder / ADAPTER_FOLDER).mkdir(exist_ok=True)
    config.save_pretrained(folder / ADAPTER_FOLDER)
    save_file(named, folder / ADAPTER_FOLDER / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
    return {key: _as_json(value) for key, value in config.to_dict().items()}


def kind(model: nn.Module) -> str | None:
    """What adapter is in place, such as `dora_r16` or `lora_r8`; None if there is none."""
    configs: Mapping[str, Any] = getattr(model, "peft_config", {})
    named = [f"{'dora' if getattr(c, 'use_dora', False) else c.peft_type.lower()}_r{c.r}" for c in configs.values()]
    return "+".join(named) or None


def _as_json(value: Any) -> Any:
    return sorted(value) if isinstance(value, (set, frozenset)) else value


def read_adapter(model: nn.Module, folder: Path, settings: dict[str, Any]) -> None:
    """Inject the adapter that `write_adapter` wrote into a model.

    Raises:
        InputError: Its weights are not there, or not those of its settings.
    """
    path = folder / ADAPTER_FOLDER / SAFETENSORS_WEIGHTS_NAME
    try:
        tensors = {key.removeprefix(PEFT_PREFIX): tensor for key, tensor in load_file(path).items()}
        inject_adapter_in_model(get_peft_config(dict(settings)), model)
        # The adapter's own type: it may be finer than that of the weights it was injected into.
        dtype = next(iter(tensors.values())).dtype
        for module in model.modules():
            if isinstance(module, BaseTunerLayer):
                for part in module.adapter_layer_names:
                    getattr(module, part).to(dtype)
        report = set_peft_model_state_dict(model, tensors)
        expected = set(get_peft_model_state_dict(model))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InputError(
            f"{path}: cannot be read ({' '.join(str(error).split())[:200]}); train the student again"
        ) from None
    if report.unexpected_keys or expected != set(tensors):
        wrong = sorted({*report.unexpected_keys, *(expected ^ set(tensors))})
        raise InputError(f"{path}: {wrong[0]} does not fit the adapter of student.json; train the student again")
