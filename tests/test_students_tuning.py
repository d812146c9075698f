"""What is trained of a student: that it really moves, how much it is, and what is refused."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from bitsandbytes.optim.adamw import AdamW8bit, PagedAdamW8bit
from hydra.utils import instantiate
from running import composed
from student_samples import (
    ADAPTERS,
    FAMILIES,
    low_rank,
    make_sample,
    make_student,
    make_tied_student,
    pack_one,
    write_released,
)

from autodrive.errors import InputError
from autodrive.students.noise import EmbeddingNoise
from autodrive.students.quantisation import dequantised
from autodrive.students.qwen_pretrained import PretrainedQwen2_5_VL
from autodrive.students.qwen_tiny import TinyQwen2_5_VL
from autodrive.students.resolution import Resolution
from autodrive.students.student import Student
from autodrive.students.towers import TOWERS, Tower
from autodrive.students.tuning import FullTuning, Tuning, make_trainable
from autodrive.training.sft import Steps, SupervisedFineTuning

ADAMW = partial(torch.optim.AdamW, weight_decay=0.01)


def constant(step: int) -> float:
    return 1.0


def train(
    student: Student, folder: Path, steps: int, optimizer: Callable[..., Any], seed: int = 0, **settings: Any
) -> L.Trainer:
    """So many steps on one row of two clips, in bfloat16 arithmetic."""
    row = pack_one(student, make_sample(), make_sample(num_frames=4, seed=1))
    made = Steps(optimizer, constant, seed=seed)
    method = SupervisedFineTuning(student, made, 1.0, gradient_checkpointing=False, **settings)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        precision="bf16-mixed",
        default_root_dir=folder,
        enable_model_summary=False,
        **quiet,
    )
    loader = torch.utils.data.DataLoader([row], batch_size=None, collate_fn=lambda one: [one])  # type: ignore[arg-type]
    trainer.fit(method, loader)
    return trainer


def weights_of(student: Student) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in student.model.named_parameters()}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> PretrainedQwen2_5_VL:
    """A twin of a released checkpoint in bfloat16, head and embedding tied as in the 3B one."""
    folder = write_released(make_tied_student(), tmp_path_factory.mktemp("released") / "tied", torch.bfloat16)
    return PretrainedQwen2_5_VL("tied", str(folder))


def test_full_fine_tuning_moves_weights_that_come_in_bfloat16(released: PretrainedQwen2_5_VL, tmp_path: Path):
    student = released.build([], Resolution(16, 1), 0)
    assert {parameter.dtype for parameter in student.parameters()} == {torch.bfloat16}
    before = weights_of(student)
    make_trainable(student.towers, FullTuning(), (), seed=0)
    train(student, tmp_path, steps=20, optimizer=partial(ADAMW, lr=1e-5))
    after = weights_of(student)
    assert {weight.dtype for weight in after.values()} == {torch.float32}
    moved = sum(int((after[name] != before[name].float()).sum()) for name in before)
    assert moved > 0.99 * sum(weight.numel() for weight in before.values())
    assert max(float((after[name] - before[name]).abs().max()) for name in before) < 20 * 1.2e-5
    # In the type of the checkpoint, in which it is evaluated, most of so short a training is rounded away.
    student.as_read()
    assert {parameter.dtype for parameter in student.parameters()} == {torch.bfloat16}


def test_a_frozen_tower_keeps_its_type_and_its_values(released: PretrainedQwen2_5_VL, tmp_path: Path):
    student = released.build([], Resolution(16, 1), 0)
    make_trainable(student.towers, FullTuning(), ("vision", "projector"), seed=0)
    before = weights_of(student)
    train(student, tmp_path, steps=2, optimizer=partial(ADAMW, lr=1e-5))
    for name, weight in weights_of(student).items():
        language = student.towers.of(name) == "language"
        assert weight.dtype == (torch.float32 if language else torch.bfloat16), name
        assert torch.equal(weight, before[name]) != language, name


@pytest.mark.parametrize(
    ("kind", "optimizer"), zip(ADAPTERS, [torch.optim.AdamW, AdamW8bit, torch.optim.AdamW, PagedAdamW8bit], strict=True)
)
def test_an_adapter_moves_and_its_base_does_not(kind, optimizer, released: PretrainedQwen2_5_VL, tmp_path: Path):
    student = released.build([], Resolution(16, 1), 0)
    make_trainable(student.towers, low_rank(kind, rank=32), (), seed=0)
    before, base = weights_of(student), {name: tensor.clone() for name, tensor in student.base_weights().items()}
    trained = {name for name, parameter in student.model.named_parameters() if parameter.requires_grad}
    assert len(trained) == 14 * (3 if kind.endswith("dora") else 2)
    assert all("lora_" in name and ".language_model." in name for name in trained)
    assert all(before[name].dtype == torch.float32 and before[name].isfinite().all() for name in trained)
    trainer = train(student, tmp_path, steps=3, optimizer=partial(optimizer, lr=1e-3))
    after = weights_of(student)
    assert {name for name in after if not torch.equal(after[name], before[name])} == trained
    assert all(torch.equal(tensor, base[name]) for name, tensor in student.base_weights().items())
    states = trainer.optimizers[0].state
    if optimizer is not torch.optim.AdamW:
        dtypes = {p.numel() >= 4096: states[p]["state1"].dtype for p in student.parameters() if p.requires_grad}
        assert dtypes == {True: torch.uint8, False: torch.float32}


def test_the_same_seed_draws_the_same_adapter():
    names = []
    for seed in (0, 0, 1):
        student = make_student()
        make_trainable(student.towers, low_rank("lora"), (), seed)
        names.append(student.adapter_name())
    assert names[0] == names[1] != names[2]


RELEASED = {"3b": "Qwen/Qwen2.5-VL-3B-Instruct", "7b": "Qwen/Qwen2.5-VL-7B-Instruct"}
COUNTS = {
    "3b": {8: 15_998_976, 32: 60_899_328},
    "7b": {8: 21_575_680, 16: 41_760_768, 32: 82_130_944, 64: 162_871_296},
}


@pytest.mark.parametrize(("size", "rank"), [("3b", 8), ("3b", 32), ("7b", 8), ("7b", 64)])
def test_dora_on_the_released_sizes_has_the_known_number_of_parameters(size: str, rank: int):
    towers = PretrainedQwen2_5_VL(size, RELEASED[size]).sketch(Resolution(16, 1)).towers
    base = sum(count.trained for count in towers.counts().values())
    make_trainable(towers, low_rank("dora", rank), (), seed=0)
    counts = towers.counts()
    assert [counts[tower].trained for tower in TOWERS] == [0, 0, COUNTS[size][rank]]
    assert sum(count.frozen for count in counts.values()) == base


LANGUAGE_7B = 7_615_616_512  # with its head
MAGNITUDES_7B = 28 * (3 * 3584 + 2 * 512 + 2 * 18_944)  # rows of all adapted matrices
PRESETS = {
    "autodrive_full": 8_292_166_656,
    "trinci_dora": COUNTS["7b"][32],
    "trinci_dora_r16": COUNTS["7b"][16],
    "sakajo_language": LANGUAGE_7B,
    "ltvad_distillation": COUNTS["7b"][64] - MAGNITUDES_7B,  # LoRA
}


@pytest.mark.parametrize("experiment", PRESETS)
def test_a_preset_trains_the_published_number_of_parameters(experiment: str):
    config = composed("train", [f"experiment={experiment}"])
    towers = instantiate(config.student).sketch(Resolution(16, 1)).towers
    frozen: list[Tower] = [tower for tower in TOWERS if config.freeze[tower]]
    make_trainable(towers, instantiate(config.adapter), frozen, seed=0)
    assert sum(count.trained for count in towers.counts().values()) == PRESETS[experiment]


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_base_in_4_bits_counts_as_before(kind: str):
    student = make_student()
    whole = student.towers.counts()["language"].trained
    make_trainable(student.towers, low_rank(kind), (), seed=0)
    assert student.towers.counts()["language"].frozen == whole


def test_4_bits_lie_where_weights_do():
    """NF4 spends its 16 values on a normal distribution: 9 % off, where 4-bit floats are 12 % off."""
    student = make_student()
    before = student.base_weights()["model.language_model.layers.0.mlp.up_proj.weight"].clone()
    make_trainable(student.towers, low_rank("qlora"), (), seed=0)
    layer = student.model.get_submodule("model.language_model.layers.0.mlp.up_proj.base_layer")
    assert isinstance(layer, torch.nn.Linear)
    assert 0.05 < float((dequantised(layer) - before).norm() / before.norm()) < 0.105


def test_targets_of_every_tower_are_found_by_name():
    student = make_student()
    targets: dict[Tower, Any] = {"vision": ["qkv"], "projector": "all", "language": ["q_proj", "v_proj"]}
    layers = low_rank("lora", targets=targets).layers(student.towers)
    assert len(layers) == 2 + 2 + 4
    make_trainable(student.towers, low_rank("lora", targets=targets), (), seed=0)
    adapted = {name.partition(".lora_A")[0] for name, _ in student.model.named_parameters() if ".lora_A" in name}
    assert adapted == set(layers)
    (line,) = student.adapter_lines()
    assert "8 linear layers" in line
    assert "2 q_proj, 2 qkv, 2 v_proj" in line
    assert all(count.trained for count in student.towers.counts().values())


def test_the_head_is_not_adapted():
    tied = make_tied_student()
    make_trainable(tied.towers, low_rank("lora"), (), seed=0)
    assert isinstance(tied.head, torch.nn.Linear)
    assert tied.head.weight is tied.text_model.get_input_embeddings().weight


@pytest.mark.parametrize(
    ("tuning", "frozen", "said"),
    [
        (low_rank("lora", None), (), "rank: adapter=lora needs one"),
        (
            low_rank("lora", 65),
            (),
            "rank=65: more than model.language_model.layers.0.self_attn.k_proj has (64x128); give",
        ),
        (low_rank("lora", targets={"language": ["q_prj"]}), (), "adapter.targets.language: no linear layer there is"),
        (low_rank("lora", targets={"language": []}), (), "adapter.targets: adapter=lora would be put on nothing"),
    ],
)
def test_what_matches_nothing_is_refused(tuning: Tuning, frozen: Sequence[Tower], said: str):
    for towers in (make_student().towers, TinyQwen2_5_VL("tiny", vocab_size=400).sketch(Resolution(16, 1)).towers):
        with pytest.raises(InputError, match=re.escape(said)):
            make_trainable(towers, tuning, frozen, seed=0)


def test_a_tower_that_is_not_there_cannot_be_frozen_or_adapted():
    cases: list[tuple[Tuning, tuple[Tower, ...], str]] = [
        (FullTuning(), ("vision",), "freeze.vision=true: this student has no such tower"),
        (low_rank("lora", targets={"vision": "all"}), (), "adapter.targets.vision: this student has no linear layers"),
    ]
    for tuning, frozen, said in cases:
        with pytest.raises(InputError, match=re.escape(said)):
            make_trainable(FAMILIES["patches"]().towers, tuning, frozen, seed=0)


def test_a_row_of_zeros_has_no_magnitude():
    student = make_student()
    student.model.get_parameter("model.language_model.layers.1.mlp.up_proj.weight").data[3] = 0
    make_trainable(make_student().towers, low_rank("dora"), (), seed=0)
    with pytest.raises(InputError, match=r"layers\.1\.mlp\.up_proj has a row of zeros"):
        make_trainable(student.towers, low_rank("dora"), (), seed=0)


def test_every_tower_has_its_learning_rate():
    student = make_student()
    rates: dict[Tower, float] = {"projector": 1e-4, "vision": 1e-5}
    method = SupervisedFineTuning(student, Steps(partial(ADAMW, lr=1e-3), constant, rates), 1.0, False)
    groups = method.configure_optimizers()["optimizer"].param_groups
    found: dict[float, int] = {}
    for group in groups:
        found[group["lr"]] = found.get(group["lr"], 0) + sum(parameter.numel() for parameter in group["params"])
    counts = student.towers.counts()
    assert found == {
        1e-3: counts["language"].trained,
        1e-4: counts["projector"].trained,
        1e-5: counts["vision"].trained,
    }
    assert {(group["lr"], group["weight_decay"]) for group in groups} == {(r, d) for r in found for d in (0, 0.01)}


def test_noise_is_scaled_by_the_length_of_each_tree():
    """NEFTune, algorithm 1: alpha / sqrt(L d) times U(-1, 1); L is a tree's own length, whatever it is packed with."""
    student = make_student()
    row = pack_one(student, make_sample(num_frames=20), make_sample(num_frames=2, seed=1))
    embeddings = student.embed(row).tokens_NC.detach()
    noise = EmbeddingNoise(5.0, seed=0, step=0).added_to(embeddings, row.trees) - embeddings
    for tree in row.trees:
        length, bound = tree.end - tree.start, 5.0 / ((tree.end - tree.start) * embeddings.shape[1]) ** 0.5
        part = noise[tree.start : tree.end]
        assert 0.98 * bound < float(part.abs().max()) <= bound * (1 + 1e-4)
        assert float(part.square().mean()) == pytest.approx(bound**2 / 3, rel=0.1)
        assert (part.square().sum(1) > 0).all(), length


def test_noise_follows_from_seed_and_step_and_is_in_training_alone(tmp_path: Path):
    def trained(steps: int, **settings: Any) -> dict[str, torch.Tensor]:
        student = make_student()
        train(student, tmp_path, steps, partial(ADAMW, lr=1e-4), **settings)
        row = pack_one(student, make_sample())
        student.eval()
        assert torch.equal(student.supervised_logits(row), student.supervised_logits(row))
        return weights_of(student)

    def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(one[name], other[name]) for name in one)

    noisy = trained(2, neftune_alpha=5.0, seed=3)
    assert equal(noisy, trained(2, neftune_alpha=5.0, seed=3))
    assert not equal(noisy, trained(2, neftune_alpha=5.0, seed=4))
    assert not equal(noisy, trained(2, seed=3))
