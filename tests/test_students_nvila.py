"""What is NVILA's own: tokens of a frame, the projector's order, published layouts and what is wrong with a file."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nvila_layout import NEWER, OLDER, published_tensors
from running import run
from safetensors.torch import save_file
from student_samples import FAMILIES, encoded, make_sample, pack_one

from autodrive.errors import InputError
from autodrive.released.configurations import released_configurations
from autodrive.students.nvila_model import Downsample, tokens_of_side
from autodrive.students.nvila_recipes import PretrainedNvila, nvila_tokenizer
from autodrive.students.qwen_tokenizer import START_OF_TURN
from autodrive.students.resolution import FIXED

SIZES = {"V": 24, "M": 40, "P": 16, "K": 14, "D": 32, "Q": 32, "G": 16, "I": 48, "W": 300}
LAYERS = (3, 2)
RELEASED = {
    "nvila_8b": "Efficient-Large-Model/NVILA-8B-hf",
    "nvila_15b": "Efficient-Large-Model/NVILA-15B-hf",
    "nvila_lite_2b": "nvidia/NVILA-Lite-2B-hf",
    "nvila_33b": "turing-motors/Heron-NVILA-Lite-33B-hf",
}


def published(folder: Path, model_type: str = "nvila", tower_prefix: str = OLDER, **changes: Any) -> Path:
    """A folder as it is published, with random weights, made from the list of names and shapes."""
    generator = torch.Generator().manual_seed(0)
    shapes = published_tensors(model_type, SIZES, LAYERS, tower_prefix) | changes
    tensors = {n: torch.randn(s, generator=generator) * 0.1 for n, s in shapes.items() if s is not None}
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    nvila_tokenizer((), SIZES["W"]).save_pretrained(folder)
    vision = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 2}
    text = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = {
        "model_type": model_type,
        "video_token_id": 7,
        "vision_config": vision | {"image_size": 56, "patch_size": 14},
        "text_config": text | {"num_attention_heads": 4, "num_key_value_heads": 2},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def read(folder: Path):
    return PretrainedNvila("published", str(folder), "float32").build((), FIXED, 0)


@pytest.mark.parametrize("model_type", ["nvila", "nvila_lite"])
def test_published_files_are_read_in_both_spellings_and_compute_as_stock_parts(model_type: str, tmp_path: Path):
    older, newer = (read(published(tmp_path / str(n), model_type, p)) for n, p in enumerate((OLDER, NEWER)))
    row = pack_one(older, make_sample())
    logits = older.supervised_logits(row)
    assert torch.equal(newer.supervised_logits(row), logits)
    assert torch.isfinite(logits).all()
    assert older.processor.special_tokens[0] == START_OF_TURN


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("mm_projector.layers.2.weight", None, "1 weights are missing, the first is mm_projector.layers.2.weight"),
        (f"{OLDER}post_layernorm.bias", None, "the first is vision_tower.post_layernorm.bias"),
        ("mm_projector.layers.9.weight", (3,), "1 weights are not known here, the first is mm_projector.layers.9"),
        ("llm.model.norm.weight", (31,), r"llm.model.norm.weight is \(31,\) where config.json asks for \(32,\)"),
    ],
)
def test_a_tensor_that_is_not_as_listed_is_named(name: str, shape: Any, said: str, tmp_path: Path):
    folder = published(tmp_path / "broken", **{name: shape})
    with pytest.raises(InputError, match=said) as caught:
        read(folder)
    assert f"student.checkpoint={folder}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_other_projector_is_another_model(tmp_path: Path):
    folder = published(tmp_path / "other", "nvila_lite")
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "nvila"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="mm_projector"):
        read(folder)


@pytest.mark.parametrize(("student", "tokens"), [*zip(RELEASED, (257, 257, 122, 122), strict=True)])
def test_a_released_one_takes_so_many_tokens_a_frame(student: str, tokens: int):
    sketch = PretrainedNvila(student, RELEASED[student]).sketch(FIXED)
    assert sketch.processor.frame_size(1280, 720) == (448, 448)
    processor = sketch.processor
    assert processor.visual_tokens(8, 1280, 720) + processor.tokens_between(8) == 8 * tokens
    assert tokens_of_side(32, processor.projector) + 1 == tokens


@pytest.mark.parametrize("student", RELEASED)
def test_a_sketch_has_the_listed_tensors(student: str):
    config: Any = released_configurations()[RELEASED[student]].config
    text, vision = config["text_config"], config["vision_config"]
    head = text["hidden_size"] // text["num_attention_heads"]
    sizes = {"V": vision["hidden_size"], "M": vision["intermediate_size"], "P": 1024, "K": vision["patch_size"]}
    sizes |= {"D": text["hidden_size"], "Q": text["num_attention_heads"] * head, "W": text["vocab_size"]}
    sizes |= {"G": text["num_key_value_heads"] * head, "I": text["intermediate_size"]}
    layers = vision["num_hidden_layers"], text["num_hidden_layers"]
    listed = published_tensors(config["model_type"], sizes, layers, NEWER, head=False)
    sketch = PretrainedNvila(student, RELEASED[student]).sketch(FIXED)
    assert {name: tuple(tensor.shape) for name, tensor in sketch.model.state_dict().items()} == listed


def test_squares_are_read_row_by_row_and_padded_behind():
    grid = torch.arange(16.0).reshape(1, 16, 1)
    assert Downsample(2)(grid)[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert Downsample(3)(grid)[0, 1].tolist() == [3, 0, 0, 7, 0, 0, 11, 0, 0]


def test_what_lies_behind_the_features_is_not_trained_and_is_saved(tmp_path: Path):
    student = FAMILIES["nvila"]()
    trained = {name for name, _ in student.model.named_parameters()}
    behind = {n for n in student.model.state_dict() if ("layers.2." in n and "vision" in n) or "post_layernorm" in n}
    assert len(behind) == 18
    assert not behind & trained
    row = pack_one(student, make_sample())
    student.supervised_logits(row).sum().backward()
    assert all(p.grad is not None for p in student.model.parameters())


def test_every_frame_is_a_block_that_ends_in_a_newline():
    student = FAMILIES["nvila_lite"]()
    tree = encoded(student, make_sample(num_frames=3))
    text = str(student.processor.tokenizer.decode(tree.prefix_ids))
    assert text.endswith(("<vila/video>" * 4 + "\n") * 3)
    assert tree.prefix_positions.tolist() == [list(range(len(tree.prefix_ids)))]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["student=tiny_nvila"], "resolution=2x1: frames of student=tiny_nvila have one size; give resolution=fixed"),
        (["student=nvila_8b", "scale=paper"], "resolution=128x32: frames of student=nvila_8b have one size"),
        (["resolution=fixed"], "resolution=fixed: frames of student=tiny_qwen2_5_vl have none; give resolution=AxB"),
    ],
)
def test_a_resolution_is_for_students_that_have_one(overrides: list[str], said: str, capsys, tmp_path: Path):
    assert run("train", *overrides, f"hydra.run.dir={tmp_path}") == 2
    assert said in capsys.readouterr().err
