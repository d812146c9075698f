"""Reading checkpoints in Hugging Face layout, from a folder or the hub, with errors users can act on."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from autodrive.errors import InputError


def read_config(checkpoint: str, model_class: type[PreTrainedModel]) -> PreTrainedConfig:
    """Read the configuration of a checkpoint.

    Args:
        checkpoint: Folder, or repository on the Hugging Face hub.
        model_class: Class of the model that it must be.

    Raises:
        InputError: It cannot be reached, is not of that class, or is quantised.
    """
    wanted: Any = model_class.config_class
    try:
        config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise unreadable(checkpoint, error) from error
    if not isinstance(config, wanted):
        raise InputError(
            f"student.checkpoint={checkpoint}: a {config.model_type}, not a {wanted.model_type}; "
            "choose the student that matches the checkpoint"
        )
    if quantisation := getattr(config, "quantization_config", None):
        method = dict(quantisation).get("quant_method", "unknown")
        message = (
            f"student.checkpoint={checkpoint}: its weights are quantised ({method}), so adapter=full cannot train them"
        )
        raise InputError(f"{message}; give the checkpoint it was made from, adapter=qlora quantises that")
    return config


def read_checkpoint(
    checkpoint: str, model_class: type[PreTrainedModel], dtype: torch.dtype
) -> tuple[Any, PreTrainedTokenizerBase]:
    """Read weights (safetensors only, no remote code) and tokenizer.

    Args:
        checkpoint: Folder, or repository on the Hugging Face hub.
        model_class: Class of the model.
        dtype: Type of the weights in memory.

    Returns:
        The model on the CPU in evaluation mode, and its tokenizer. Within `torch.device("meta")` no weight is read.

    Raises:
        InputError: As `read_config`, or it lacks weights.
    """
    config = read_config(checkpoint, model_class)
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        if torch.get_default_device().type == "meta":
            model: Any = model_class(config)
            model.tie_weights()
            return model.to(dtype).eval(), tokenizer
        loaded: Any = model_class.from_pretrained(
            checkpoint,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise unreadable(checkpoint, error) from error
    model, report = loaded  # output_loading_info turns the result into a pair
    absent = sorted(report["missing_keys"])
    if absent:  # transformers would go on with random weights and a warning
        raise InputError(
            f"student.checkpoint={checkpoint}: {len(absent)} weights are missing, the first is {absent[0]}; "
            "download the checkpoint again"
        )
    return model, tokenizer


def unreadable(checkpoint: str, error: Exception) -> InputError:
    """The one-line error for a checkpoint that could not be read."""
    reason = " ".join(str(error).split())[:200]
    if Path(checkpoint).exists():
        fix = "give a folder with config.json, the tokenizer and *.safetensors"
    else:
        fix = "connect to the hub once to download it, or set student.checkpoint to a local folder"
    return InputError(f"student.checkpoint={checkpoint}: cannot be read ({reason}); {fix}")
