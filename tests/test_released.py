"""Published configurations as data, and students without weights that are built from them."""

import dataclasses
from pathlib import Path

import pytest
from hydra.utils import instantiate
from running import composed
from student_samples import TEXTS, make_student

from autodrive.entry_point import CONFIG_FOLDER
from autodrive.errors import InputError
from autodrive.released.configurations import released_configurations
from autodrive.students.nvila_recipes import PretrainedNvila
from autodrive.students.qwen_pretrained import PretrainedQwen2_5_VL, PretrainedQwen3VL
from autodrive.students.qwen_tiny import TinyQwen2_5_VL
from autodrive.students.resolution import FIXED, Resolution

RESOLUTION = Resolution(128, 32)
PARAMETERS = {
    "Qwen/Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "Qwen/Qwen2.5-VL-7B-Instruct": 8_292_166_656,
    "Qwen/Qwen2.5-VL-72B-Instruct": 73_410_777_344,
    "nvidia/Cosmos-Reason1-7B": 8_292_166_656,
    "Qwen/Qwen3-VL-2B-Instruct": 2_127_532_032,
    "Qwen/Qwen3-VL-4B-Instruct": 4_437_815_808,
    "Qwen/Qwen3-VL-8B-Instruct": 8_767_123_696,
    "Qwen/Qwen3-VL-32B-Instruct": 33_357_390_064,
    "nvidia/Cosmos-Reason2-2B": 2_127_532_032,
    "nvidia/Cosmos-Reason2-8B": 8_767_123_696,
}
RECIPES = {
    "qwen2_5_vl": PretrainedQwen2_5_VL,
    "qwen3_vl": PretrainedQwen3VL,
    "nvila": PretrainedNvila,
    "nvila_lite": PretrainedNvila,
}


# Counts that the makers of an NVILA's parts publish: SigLIP so400m at 384 pixels with its head, Qwen2.5 of 1.5B to 32B.
SIGLIP = 428_225_600
PARTS = {
    "nvidia/NVILA-Lite-2B-hf": (1_543_714_304, 151_936, 1),
    "Efficient-Large-Model/NVILA-8B-hf": (7_615_616_512, 152_064, 2),
    "Efficient-Large-Model/NVILA-15B-hf": (14_770_033_664, 152_064, 2),
    "turing-motors/Heron-NVILA-Lite-33B-hf": (32_763_876_352, 152_064, 2),
}


@pytest.mark.parametrize("checkpoint", PARTS)
def test_the_parts_of_a_reconstructed_one_have_published_counts(checkpoint: str):
    """A table of the vocabulary more or less, positions of other frames, and the head that is not there apart."""
    sketch = PretrainedNvila("parts", checkpoint).sketch(FIXED)
    counts = {tower: sum(count) for tower, count in sketch.towers.counts().items()}
    count, vocab_size, tables = PARTS[checkpoint]
    text, width = sketch.model.sizes.text, 1152
    assert counts["language"] + (vocab_size - text.vocab_size) * text.hidden_size * tables == count
    head = (1 + 4 * width + 4 + 2 + 2 * 4304 + 1) * width + 4304  # probe, attention, norm, MLP
    assert counts["vision"] + (27**2 - 32**2) * width + head == SIGLIP
    assert sum(counts.values()) == sum(tensor.numel() for tensor in sketch.model.state_dict().values()) - (
        0 if tables == 2 else text.vocab_size * text.hidden_size
    )


@pytest.mark.parametrize("checkpoint", PARAMETERS)
def test_a_sketch_has_as_many_parameters_as_the_checkpoint(checkpoint: str):
    recipe = RECIPES[released_configurations()[checkpoint].config["model_type"]]
    student = recipe("released", checkpoint).sketch(RESOLUTION)
    assert sum(parameter.numel() for parameter in student.parameters()) == PARAMETERS[checkpoint]
    assert all(parameter.is_meta for parameter in student.parameters())


def test_every_configuration_says_where_it_comes_from():
    known = {name for name, one in released_configurations().items() if "nvila" not in one.config["model_type"]}
    assert known == set(PARAMETERS)
    reconstructed = {n for n, one in released_configurations().items() if one.source.startswith("reconstructed: ")}
    copied = {"Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen3-VL-4B-Instruct"}
    assert reconstructed == set(released_configurations()) - copied
    assert all(
        "config.json of" in one.source for name, one in released_configurations().items() if name not in reconstructed
    )


def test_every_released_student_of_conf_is_known():
    students = [path for path in (CONFIG_FOLDER / "student").glob("*.yaml") if path.stem != "endpoint"]
    for path in students:  # who is served is nobody's recipe
        spec = instantiate(composed("train", [f"student={path.stem}"]).student)
        if spec.full_size:
            assert type(spec) is RECIPES[released_configurations()[spec.checkpoint].config["model_type"]]


def test_a_sketch_of_a_folder_has_the_shapes_and_types_of_its_weights(tmp_path: Path):
    student = make_student()
    student.model.save_pretrained(tmp_path)
    sketch = PretrainedQwen2_5_VL("folder", str(tmp_path), dtype="float32").sketch(RESOLUTION)
    shapes = [{name: (p.shape, p.dtype) for name, p in one.model.named_parameters()} for one in (student, sketch)]
    assert shapes[0] == shapes[1]


def test_a_sketch_of_a_student_from_scratch_has_room_for_the_largest_vocabulary():
    spec = TinyQwen2_5_VL("tiny", vocab_size=2000)
    built = spec.build(TEXTS * 3, RESOLUTION, 0)
    size = len(built.processor.tokenizer)
    assert size < 2000
    as_built, largest = (dataclasses.replace(spec, vocab_size=n).sketch(RESOLUTION) for n in (size, 2000))
    count = {
        name: sum(p.numel() for p in one.parameters())
        for name, one in (("built", built), ("as built", as_built), ("largest", largest))
    }
    assert count["as built"] == count["built"] == count["largest"] - 2 * spec.text_width * (2000 - size)


@pytest.mark.parametrize(
    ("name", "written", "said"),
    [
        ("nobody/nothing", None, "cannot be read .* or set student.checkpoint to a local folder"),
        ("folder", "{", "cannot be read"),
        ("folder", '{"model_type": "qwen2"}', "a qwen2, not a qwen2_5_vl"),
    ],
)
def test_a_checkpoint_without_known_sizes_is_named(name: str, written: str | None, said: str, tmp_path: Path):
    checkpoint = name
    if written is not None:
        (tmp_path / "config.json").write_text(written)
        checkpoint = str(tmp_path)
    with pytest.raises(InputError, match=said) as caught:
        PretrainedQwen2_5_VL("x", checkpoint).sketch(RESOLUTION)
    assert checkpoint in str(caught.value)
