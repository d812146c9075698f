"""What is NVILA's own: tokens of a frame, the projector's order, published layouts and what is wrong with a file."""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from huggingface_hub import constants
from nvila_layout import NEWER, OLDER, published_tensors
from running import run
from safetensors.torch import load_file, save_file
from student_samples import FAMILIES, encoded, make_sample, pack_one
from torch import Tensor

from autodrive.errors import InputError
from autodrive.released.configurations import released_configurations
from autodrive.students.bases import Base
from autodrive.students.nvila_checkpoint import by_our_names, our_name
from autodrive.students.nvila_model import Downsample, averaged, tokens_of_side
from autodrive.students.nvila_processor import NvilaVisual
from autodrive.students.nvila_recipes import PretrainedNvila, nvila_tokenizer
from autodrive.students.nvila_student import NvilaStudent
from autodrive.students.qwen_tokenizer import START_OF_TURN
from autodrive.students.resolution import FIXED
from autodrive.trees.packing import pack_trees
from autodrive.trees.sample import Video

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
        "auto_map": {
            "AutoConfig": "configuration.Elsewhere",
            "AutoModel": "modeling.Elsewhere",
        },  # it asks for its code
        "image_token_id": 8,
        "video_token_id": 7,
        "vision_config": vision | {"image_size": 56, "patch_size": 14},
        "text_config": text | {"num_attention_heads": 4, "num_key_value_heads": 2},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def projected(student: NvilaStudent, tensors: Mapping[str, Tensor], frames_TCHW: Tensor) -> Tensor:
    """Visual tokens (all frames', D) by hand, from published tensors: the projector square by square, behind SigLIP."""
    tower = student.stock_model().vision_tower
    seen_TPC = tower(frames_TCHW / 127.5 - 1, output_hidden_states=True).hidden_states[-2]
    layers = {name.removeprefix("mm_projector.layers."): tensor for name, tensor in tensors.items()}
    side, scales = (2, 3) if student.processor.projector == "space_to_depth" else (3, 1)
    squares = []
    for frame_PC in seen_TPC:
        grid = F.pad(frame_PC.reshape(4, 4, -1), (0, 0, 0, -4 % side, 0, -4 % side))
        for row in range(0, 4, side):
            for column in range(0, 4, side):
                patches = [grid[row + i, column + j] for i in range(side) for j in range(side)]
                squares.append(torch.cat([torch.cat([patch] * scales) for patch in patches]))

    def layer(number: int, states: Tensor) -> Tensor:
        weight, bias = layers[f"{number}.weight"], layers[f"{number}.bias"]
        return F.linear(states, weight, bias) if weight.ndim == 2 else F.layer_norm(states, bias.shape, weight, bias)

    states = layer(2, layer(1, torch.stack(squares)))
    if scales == 1:
        states = layer(5, layer(4, F.gelu(states)))
    return layer(7 if scales == 1 else 4, F.gelu(states))


def read(folder: Path):
    return PretrainedNvila("published", str(folder), "float32").build((), FIXED, 0)


@pytest.mark.parametrize("model_type", ["nvila", "nvila_lite"])
@torch.no_grad()
def test_published_files_are_read_in_both_spellings_and_compute_as_published(model_type: str, tmp_path: Path, caplog):
    older, newer = (read(published(tmp_path / str(n), model_type, p)) for n, p in enumerate((OLDER, NEWER)))
    sample = make_sample(num_frames=2, height=56, width=56)
    (row,) = pack_trees([older.processor.encode(sample)], 10**6)
    (video,) = sample.prefix
    assert isinstance(video, Video)
    features = projected(older, load_file(tmp_path / "0" / "model.safetensors"), video.frames.frames_TCHW)
    assert torch.allclose(older.embed(row).tokens_NC[row.input_ids == 7], features, atol=1e-5)
    logits = older.supervised_logits(row)
    assert torch.equal(newer.supervised_logits(row), logits)
    assert torch.isfinite(logits).all()
    assert older.processor.special_tokens[0] == START_OF_TURN
    assert not caplog.records  # transformers has nothing to say of a folder that asks for its own code


def test_a_copy_from_the_hub_is_a_base_of_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An adapter on it names that commit, so that it still fits when its makers publish another one."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    commit, kept = "5e0d" * 10, tmp_path / "models--makers--nvila"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text(commit)
    (kept / "snapshots").mkdir()
    folder = published(kept / "snapshots" / commit)
    student = PretrainedNvila("published", "makers/nvila", "float32").build((), FIXED, 0)
    assert student.base == Base("makers/nvila", commit)
    assert read(folder).base == Base(str(folder))


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


@pytest.mark.parametrize("prefix", [OLDER, NEWER])
@pytest.mark.parametrize("model_type", ["nvila", "nvila_lite"])
def test_every_listed_name_is_asked_for_in_its_spelling(model_type: str, prefix: str):
    """Each of them missing, of another shape, and there a second time, in both spellings of the tower's names."""
    with torch.device("meta"):
        listed = {
            name: torch.empty(shape)
            for name, shape in published_tensors(model_type, SIZES, LAYERS, prefix, head=False).items()
        }
    expected = by_our_names(listed.items(), {our_name(name): tensor for name, tensor in listed.items()}, "x")
    assert len(expected) == len(listed) == {"nvila": 86, "nvila_lite": 90}[model_type]
    for name, tensor in listed.items():
        wrong = {
            f"1 weights are missing, the first is {our_name(name)};": {n: t for n, t in listed.items() if n != name},
            f"x: {name} is {(*tensor.shape, 1)} where": listed | {name: tensor[..., None]},
            f"1 weights are not known here, the first is {name}.more;": listed | {f"{name}.more": tensor},
        }
        if name.startswith(prefix) and "vision" in name:
            other = {OLDER: NEWER, NEWER: OLDER}[prefix] + name.removeprefix(prefix)
            wrong[f"x: {other} is there twice, also as {name};"] = listed | {other: tensor}
        for said, found in wrong.items():
            with pytest.raises(InputError, match=re.escape(said)):
                by_our_names(found.items(), expected, "x")


def test_the_other_projector_is_another_model(tmp_path: Path):
    folder = published(tmp_path / "other", "nvila_lite")
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "nvila"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="mm_projector"):
        read(folder)


@cache
def sketch(student: str) -> NvilaStudent:
    """A released one without weights, made once."""
    return PretrainedNvila(student, RELEASED[student]).sketch(FIXED)


@pytest.mark.parametrize(("student", "tokens"), [*zip(RELEASED, (257, 257, 122, 122), strict=True)])
def test_a_released_one_takes_so_many_tokens_a_frame(student: str, tokens: int):
    processor = sketch(student).processor
    assert processor.frame_size(1280, 720) == (448, 448)
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
    assert {name: tuple(tensor.shape) for name, tensor in sketch(student).model.state_dict().items()} == listed


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
    student = FAMILIES["nvila"]()
    tree = encoded(student, make_sample(num_frames=3))
    text = str(student.processor.tokenizer.decode(tree.prefix_ids))
    assert text.endswith(("<vila/video>" * 4 + "\n") * 3)
    assert tree.prefix_positions.tolist() == [list(range(len(tree.prefix_ids)))]


def test_frames_that_are_pooled_share_a_block_which_is_their_mean():
    pooled = FAMILIES["nvila_lite"]()
    tree = encoded(pooled, make_sample(num_frames=6))
    visual = cast(NvilaVisual, tree.visual)
    assert visual.frames_B.tolist() == [4, 2]
    assert tree.prefix_ids.count(pooled.model.sizes.media_id) == 2 * 4 == pooled.processor.visual_tokens(6, 1, 1)
    each = pooled.model.mm_projector(pooled.model.vision_tower(visual.patches_PD))
    means = averaged(each, visual.frames_B)
    assert torch.allclose(means, torch.stack([each[:4].mean(0), each[4:].mean(0)]), atol=1e-6)
    assert pooled.processor.remarks(6, 1.5)[0].startswith(
        "6 frames in 2 blocks, the mean of 4 each, of 5 tokens each, 10"
    )


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["student=tiny_nvila", "resolution=2x1"], "resolution=2x1: frames of student=tiny_nvila have one size; give"),
        (["student=nvila_8b", "scale=paper", "fps=2"], "fps=2: num_frames=8 frames are seen of every clip"),
        (["fps=null"], "fps=null: give fps, or num_frames"),
        (["resolution=fixed"], "resolution=fixed: frames of student=tiny_qwen2_5_vl have none; give resolution=AxB"),
    ],
)
def test_a_resolution_is_for_students_that_have_one(overrides: list[str], said: str, capsys, tmp_path: Path):
    assert run("train", *overrides, f"hydra.run.dir={tmp_path}") == 2
    assert said in capsys.readouterr().err
