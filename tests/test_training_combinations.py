"""Settings that contradict each other are refused in one line that names both, before data or weights are touched."""

import json
from pathlib import Path

import pytest
from running import composed, run
from student_samples import make_student, write_released

from autodrive.assembly import check_training
from autodrive.config import TrainConfig, check_config
from autodrive.errors import InputError

SCRATCH = "tiny_qwen2_5_vl"
CASES = {
    "rank=8": ("rank=8", "adapter=full"),
    "adapter=lora": ("rank", "adapter=lora"),
    "adapter=dora rank=65": ("rank=65", "adapter.targets.language"),
    "adapter=lora rank=2 adapter.targets.language=[q_prj]": ("adapter.targets.language", "q_prj"),
    "adapter=lora rank=2 adapter.targets.language=[]": ("adapter.targets", "adapter=lora"),
    "adapter=qlora rank=2": ("adapter=qlora", f"student={SCRATCH}"),
    "adapter=lora rank=2 freeze.language=true": ("freeze.language", "adapter.targets.language"),
    "freeze.vision=true freeze.projector=true freeze.language=true": ("freeze.vision", "adapter=full"),
    "freeze.vision=true tower_lr.vision=1e-4": ("tower_lr.vision=0.0001", "freeze.vision"),
    "adapter=lora rank=2 tower_lr.vision=1e-4": ("tower_lr.vision=0.0001", "adapter.targets.vision"),
    "trainer.precision=bf16-true": ("trainer.precision=bf16-true", "lr"),
    "adapter=lora rank=2 trainer.precision=16-true": ("trainer.precision=16-true", "lr"),
    "trainer.precision=16-mixed": ("trainer.precision=16-mixed", "method.max_grad_norm"),
    "optimizer=adamw_8bit strategy=fsdp": ("optimizer=AdamW8bit", "strategy=fsdp"),
    "optimizer=paged_adamw_8bit strategy=deepspeed_zero3": ("optimizer=PagedAdamW8bit", "strategy=deepspeed_zero3"),
    "trainer.precision=64-true strategy=fsdp": ("trainer.precision=64-true", "strategy=fsdp"),
}
PRESETS = ("autodrive_full", "trinci_dora", "trinci_dora_r16", "sakajo_language", "ltvad_distillation")
GOOD = (
    "adapter=dora rank=8 freeze.vision=true freeze.projector=true",
    "adapter=lora rank=8 adapter.alpha=16 adapter.dropout=0.1 adapter.targets.vision=[qkv] tower_lr.vision=1e-4",
    "freeze.vision=true freeze.projector=true tower_lr.language=1e-4 optimizer=adamw_8bit",
    "trainer.precision=bf16-mixed optimizer=paged_adamw_8bit method.neftune_alpha=5",
    "optimizer=adamw_8bit strategy=ddp",
    "adapter=dora rank=8 trainer.precision=bf16-mixed strategy=fsdp",
)


def checked(arguments: list[str]) -> None:
    config = composed("train", arguments)
    check_config(config, TrainConfig)
    check_training(config)


@pytest.mark.parametrize("command", CASES)
def test_a_contradiction_names_both_sides(command: str):
    with pytest.raises(InputError) as caught:
        checked(command.split())
    line = str(caught.value)
    assert "\n" not in line
    assert all(key in line for key in CASES[command]), line


@pytest.mark.parametrize("command", GOOD)
def test_what_goes_together_passes(command: str):
    checked(command.split())


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_released(make_student(), tmp_path_factory.mktemp("released") / "twin")


def full_size(folder: Path, *arguments: str) -> list[str]:
    return ["student=qwen2_5_vl_3b", "scale=paper", f"student.checkpoint={folder}", "source=x", *arguments]


@pytest.mark.parametrize("experiment", PRESETS)
def test_a_preset_goes_together(experiment: str, released: Path):
    checked([f"experiment={experiment}", f"student.checkpoint={released}", "source=x"])


def test_targets_of_a_checkpoint_are_checked_without_its_weights(released: Path):
    checked(full_size(released, "adapter=qdora", "rank=8"))
    weights = released / "model.safetensors"
    for strategy in ("fsdp", "deepspeed_zero2", "deepspeed_zero3"):
        with pytest.raises(InputError, match=f"adapter=qdora: strategy={strategy} would cut up 4-bit weights"):
            checked(full_size(released, "adapter=qdora", "rank=8", f"strategy={strategy}"))
    hidden = weights.rename(weights.with_suffix(".hidden"))
    try:
        with pytest.raises(InputError, match="rank=500: more than"):
            checked(full_size(released, "adapter=qdora", "rank=500"))
    finally:
        hidden.rename(weights)


def test_a_quantised_checkpoint_is_refused_before_its_weights_are_read(
    released: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = json.loads((released / "config.json").read_text())
    quantised = {"quantization_config": {"quant_method": "awq", "bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(config | quantised))
    command = [*full_size(tmp_path, "fps=5", "batch_size=2"), f"clips={manifest}", "source=null", "mixture=uniform"]
    assert run("train", *command, f"hydra.run.dir={tmp_path / 'run'}") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert f"student.checkpoint={tmp_path}" in line
    assert "adapter=full" in line
