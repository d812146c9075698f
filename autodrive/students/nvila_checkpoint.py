"""Reading and writing NVILA checkpoints in the layout of its `-hf` releases: one folder, no remote code."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2Config, SiglipVisionConfig

from autodrive.errors import InputError
from autodrive.students.nvila_model import NvilaModel, NvilaSizes, ProjectorKind

MODEL_TYPES: dict[str, ProjectorKind] = {"nvila": "space_to_depth", "nvila_lite": "lite"}
OLDER_TOWER, TOWER = "vision_tower.vision_model.", "vision_tower."
# What files may have and models here have not.
NOT_READ = {
    "vision_tower.head.": "the tower's pooling head; features are taken before it",
    "vision_tower.embeddings.position_ids": "numbers that count patches",
    "llm.model.rotary_emb.inv_freq": "follows from the configuration",
}
EMBEDDING, TIED_HEAD = (
    "llm.model.embed_tokens.weight",
    "llm.lm_head.weight",
)  # which may be absent where the first is the second


def our_name(name: str) -> str:
    """The name here of a published tensor; transformers called the tower's parts otherwise when files were written."""
    return TOWER + name.removeprefix(OLDER_TOWER) if name.startswith(OLDER_TOWER) else name


def sizes_of(config: Mapping[str, Any], where: str) -> NvilaSizes:
    """What a published `config.json` says.

    Raises:
        InputError: It is that of another family, or lacks a part.
    """
    kind = MODEL_TYPES.get(str(config.get("model_type")))
    if kind is None:
        known = " or ".join(MODEL_TYPES)
        raise InputError(f"{where}: a {config.get('model_type')}, not {known}; choose the student that matches it")
    try:
        vision = SiglipVisionConfig(**{**config["vision_config"], "vision_use_head": False})
        return NvilaSizes(vision, Qwen2Config(**config["text_config"]), kind, config["video_token_id"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}: config.json cannot be read ({error}); download the checkpoint again") from None


def config_of(sizes: NvilaSizes) -> dict[str, Any]:
    """The `config.json` of a model."""
    model_type = next(name for name, kind in MODEL_TYPES.items() if kind == sizes.projector)
    parts = {"vision_config": sizes.vision.to_dict(), "text_config": sizes.text.to_dict()}
    return {"model_type": model_type, "video_token_id": sizes.media_id, **parts}


def read_nvila(folder: Path, dtype: torch.dtype, where: str) -> tuple[NvilaModel, PreTrainedTokenizerBase]:
    """Read weights and tokenizer.

    Args:
        folder: Holds config.json, the tokenizer and *.safetensors.
        dtype: Type of the weights in memory.
        where: How errors name it.

    Returns:
        The model on the CPU in evaluation mode, and its tokenizer. Within `torch.device("meta")` no weight is read.

    Raises:
        InputError: Something is not there, or a tensor is missing, there twice, of another shape, or not known.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        sizes = sizes_of(config, where)
        # With the language model's configuration: transformers knows no model of the folder's own.
        tokenizer = AutoTokenizer.from_pretrained(folder, config=sizes.text, trust_remote_code=False)
        model = NvilaModel(sizes)
        if torch.get_default_device().type == "meta":
            model.llm.tie_weights()
            return model.to(dtype).eval(), tokenizer
        found = list(_tensors(folder))
    except (OSError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        fix = "give a folder with config.json, the tokenizer and *.safetensors"
        raise InputError(f"{where}: cannot be read ({reason}); {fix}") from error
    if sizes.text.tie_word_embeddings and TIED_HEAD not in {name for name, _ in found}:
        found += [(TIED_HEAD, tensor) for name, tensor in found if name == EMBEDDING]
    model.load_state_dict(by_our_names(found, model.state_dict(), where))
    return model.to(dtype).eval(), tokenizer


def by_our_names(found: Iterable[tuple[str, Tensor]], expected: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The weights of a checkpoint by the names that they have here.

    Args:
        found: Names as they stand in its files, and tensors, of which only the shapes are looked at.
        expected: What the model is made of, by our names.
        where: How errors name the checkpoint.

    Raises:
        InputError: A tensor is missing, there twice, of another shape, or not known; it is named as in the files.
    """
    fix = "download the checkpoint again, or choose the student that matches it"
    weights: dict[str, Tensor] = {}
    spelled: dict[str, str] = {}
    for name, tensor in found:
        ours = our_name(name)
        if ours in weights:
            raise InputError(f"{where}: {name} is there twice, also as {spelled[ours]}; {fix}")
        weights[ours], spelled[ours] = tensor, name
    if missing := sorted(expected.keys() - weights.keys()):
        raise InputError(f"{where}: {len(missing)} weights are missing, the first is {missing[0]}; {fix}")
    if extra := sorted(spelled[name] for name in weights.keys() - expected.keys()):
        raise InputError(f"{where}: {len(extra)} weights are not known here, the first is {extra[0]}; {fix}")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)} where config.json asks for {tuple(expected[name].shape)}"
            raise InputError(f"{where}: {spelled[name]} is {shapes}; {fix}")
    return weights


def write_nvila(folder: Path, sizes: NvilaSizes, weights: Mapping[str, Tensor]) -> None:
    """Write what `read_nvila` reads, but for the tokenizer."""
    kept = {name: tensor.detach().contiguous() for name, tensor in weights.items()}
    if sizes.text.tie_word_embeddings:
        kept.pop(TIED_HEAD, None)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config_of(sizes), indent=2, default=str) + "\n", encoding="utf-8")


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError("no *.safetensors there")
    for path in files:
        with safe_open(path, framework="pt") as content:
            for name in content.keys():  # noqa: SIM118  (it is no mapping)
                if not our_name(name).startswith(tuple(NOT_READ)):
                    yield name, content.get_tensor(name)
