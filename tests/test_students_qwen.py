"""The student around transformers' model: vision parts, weights, saving and loading."""

import json
import shutil
from typing import cast

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from student_samples import TEXTS, make_sample, make_student, pack_one, plain_target_logits, write_released
from transformers import Qwen2_5_VLForConditionalGeneration

from autodrive.errors import InputError
from autodrive.students.nvila_recipes import TinyNvila
from autodrive.students.pixel_embedding import CHUNK_PATCHES
from autodrive.students.preprocessing import normalise
from autodrive.students.qwen_initialisation import motion_filters
from autodrive.students.qwen_pretrained import PretrainedQwen2_5_VL
from autodrive.students.qwen_processor import QwenProcessor
from autodrive.students.qwen_tiny import TinyQwen2_5_VL, TinyQwen3VL
from autodrive.students.resolution import Resolution
from autodrive.students.student import Student

RESOLUTION = Resolution(16, 1)


def tower_outputs(visual, pixels, grid):
    output = visual(pixels, grid_thw=grid).pooler_output
    visual.zero_grad()
    output.square().sum().backward()
    return output.detach(), {name: parameter.grad.clone() for name, parameter in visual.named_parameters()}


@pytest.mark.parametrize(
    "grid",
    [
        [[3, 4, 6], [2, 4, 6]],  # equal frames: one call for all
        [[3, 4, 6], [2, 2, 4]],  # two sizes
        [[1, 12, 10], [2, 4, 4]],  # larger than a window: windows of several sizes
    ],
)
def test_the_fast_vision_tower_equals_the_stock_one(grid, monkeypatch):
    student = make_student()
    visual, stock = student.model.model.visual, student.stock_model().model.visual
    visual.fullatt_block_indexes = stock.fullatt_block_indexes = [1]  # block 0 attends in windows
    grid = torch.tensor(grid)
    monkeypatch.setitem(CHUNK_PATCHES, "cpu", 20)  # the last chunk is a short one
    pixels = torch.randint(0, 256, (int(grid.prod(1).sum()), 1176), generator=torch.Generator().manual_seed(0)).byte()
    vision = student.processor.vision
    floats = normalise(pixels, torch.tensor(vision.image_mean), torch.tensor(vision.image_std))
    ours, our_grads = tower_outputs(visual, pixels, grid)
    theirs, their_grads = tower_outputs(stock, floats, grid)
    assert torch.allclose(ours, theirs, atol=1e-4, rtol=1e-4)
    for name, gradient in their_grads.items():
        assert torch.allclose(our_grads[name], gradient, atol=1e-4 * gradient.norm().item()), name


def test_pixel_statistics_are_not_rounded_with_the_weights():
    embed = make_student().model.model.visual.patch_embed
    pixels = torch.randint(0, 256, (8, 1176), generator=torch.Generator().manual_seed(0)).byte()
    weight = embed.proj.weight.detach().clone()
    exact = embed(pixels)
    embed.bfloat16().float()
    embed.proj.weight.data = weight
    assert torch.equal(embed(pixels), exact)


def test_the_fast_vision_tower_makes_one_attention_call_for_equal_frames(monkeypatch):
    student = make_student()
    calls = []
    real = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: (calls.append(1), real(*a, **k))[1]
    )
    student.model.model.visual(torch.zeros(5 * 24, 1176, dtype=torch.uint8), grid_thw=torch.tensor([[5, 4, 6]]))
    assert len(calls) == 2  # one a block


def test_the_state_dict_has_the_stock_layout():
    student = make_student()
    stock = Qwen2_5_VLForConditionalGeneration(student.model.config)
    expected = {name: tensor.shape for name, tensor in stock.state_dict().items()}
    assert {name: tensor.shape for name, tensor in student.model.state_dict().items()} == expected
    assert len(expected["model.visual.patch_embed.proj.weight"]) == 5


def test_the_tiny_student_is_the_real_class_with_less_than_a_million_parameters(repository):
    config = OmegaConf.load(repository / "conf/student/tiny_qwen2_5_vl.yaml")
    syllables = ("ka", "lo", "mi", "ru", "te", "so", "ni", "pa", "du", "fe")
    words = [a + b + c for a in syllables for b in syllables for c in syllables]
    student = instantiate(config).build(TEXTS + words * 3, RESOLUTION, 0)
    assert type(student.model) is Qwen2_5_VLForConditionalGeneration
    assert len(student.processor.tokenizer) == config.vocab_size
    assert sum(parameter.numel() for parameter in student.parameters()) < 1_000_000
    assert isinstance(student, Student)


@pytest.mark.parametrize("name", ["qwen2_5_vl_3b", "qwen2_5_vl_7b", "cosmos_reason1_7b"])
def test_released_students_are_yaml_only(repository, name):
    spec = instantiate(OmegaConf.load(repository / f"conf/student/{name}.yaml"))
    assert isinstance(spec, PretrainedQwen2_5_VL)
    assert spec.name == name
    assert spec.full_size


def test_weights_follow_the_seed_and_no_global_generator():
    torch.manual_seed(0)
    first = make_student(seed=5).model.state_dict()
    torch.manual_seed(1)
    second = make_student(seed=5).model.state_dict()
    other = make_student(seed=6).model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_half_of_the_patch_filters_answer_to_motion_alone():
    filters = motion_filters((8, 3, 2, 14, 14), torch.Generator().manual_seed(0))
    still = torch.rand(3, 1, 14, 14).expand(-1, 2, -1, -1)
    moving = torch.rand(3, 2, 14, 14)
    answers = torch.einsum("fcthw,cthw->f", filters, still), torch.einsum("fcthw,cthw->f", filters, moving)
    assert answers[0][:4].abs().max() < 1e-4
    assert answers[0][4:].abs().min() > 1e-4
    assert answers[1][:4].abs().min() > 1e-3
    norms = filters[:, :, 0].flatten(1).norm(dim=1)
    assert norms.tolist() == pytest.approx([1] * 4 + [0.15] * 4, abs=1e-5)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    return write_released(make_student(tokens_per_second=2), tmp_path_factory.mktemp("checkpoints") / "released")


def test_a_released_layout_loads_and_gives_transformers_own_logits(released):
    student = PretrainedQwen2_5_VL("released", str(released), dtype="float32").build([], RESOLUTION, 0)
    assert cast(QwenProcessor, student.processor).vision.tokens_per_second == 2
    assert student.processor.vision.image_mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    tree = student.processor.encode(make_sample())
    logits = student.supervised_logits(pack_one(student, make_sample()))
    own = Qwen2_5_VLForConditionalGeneration.from_pretrained(released, dtype=torch.float32)
    expected = torch.cat([plain_target_logits(own, student, tree, branch) for branch in tree.branches])
    assert torch.allclose(logits, expected, atol=1e-4)


def test_a_released_layout_loads_in_bfloat16(released):
    student = PretrainedQwen2_5_VL("released", str(released)).build([], RESOLUTION, 0)
    assert {parameter.dtype for parameter in student.parameters()} == {torch.bfloat16}
    row = pack_one(student, make_sample())
    assert torch.isfinite(student.supervised_logits(row)).all()


def broken(released, tmp_path, what: str):
    folder = tmp_path / "broken"
    shutil.copytree(released, folder)
    weights = folder / "model.safetensors"
    if what == "no weights":
        weights.unlink()
    elif what == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif what == "a tensor is missing":
        tensors = load_file(weights)
        del tensors["lm_head.weight"]
        save_file(tensors, weights, metadata={"format": "pt"})
    elif what == "another model":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "qwen2"}))
    elif what == "no preprocessor":
        (folder / "preprocessor_config.json").unlink()
    return folder


@pytest.mark.parametrize(
    "what", ["no weights", "truncated weights", "a tensor is missing", "another model", "no preprocessor"]
)
def test_a_broken_checkpoint_is_one_line_that_names_it(released, tmp_path, what):
    folder = broken(released, tmp_path, what)
    with pytest.raises(InputError) as caught:
        PretrainedQwen2_5_VL("broken", str(folder)).build([], RESOLUTION, 0)
    assert f"student.checkpoint={folder}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_is_nowhere_is_one_line(tmp_path):
    with pytest.raises(InputError, match="local folder") as caught:
        PretrainedQwen2_5_VL("nowhere", str(tmp_path / "nowhere")).build([], RESOLUTION, 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "sizes", "said"),
    [
        (TinyQwen2_5_VL, {"text_heads": 16}, "student.text_heads=16: student.text_width=128 must be a multiple of 256"),
        (
            TinyQwen2_5_VL,
            {"vision_heads": 5},
            "student.vision_heads=5: .*width=96 must be a multiple of 20",
        ),
        (TinyQwen3VL, {"text_kv_heads": 3}, "student.text_kv_heads=3: must divide student.text_heads=4"),
        (TinyNvila, {"vision_heads": 5}, "student.vision_heads=5: student.vision_width=96 must be a multiple of 5"),
        (TinyNvila, {"text_heads": 128}, "student.text_heads=128: student.text_width=128 must be a multiple of 256"),
        (TinyNvila, {"frame_side": 57}, "student.frame_side=57: must be a multiple of student.patch_size=14"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(recipe, sizes: dict[str, int], said: str):
    with pytest.raises(InputError, match=said):
        recipe("tiny", **sizes)
