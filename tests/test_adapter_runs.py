"""Runs that train an adapter: what they leave behind, and everything that takes it up again."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from peft import LoraConfig, PeftModel, get_peft_model
from running import run, tiny
from safetensors.torch import load_file
from student_samples import make_sample, pack_one, plain_target_logits, write_released
from transformers import Qwen2_5_VLForConditionalGeneration
from video_files import write_video

from autodrive.errors import InputError
from autodrive.runs.folder import RunFiles, run_config
from autodrive.schema import Prediction, read_jsonl
from autodrive.students.qwen_student import QwenStudent
from autodrive.students.student import load_student

GIVEN = "autodrive.students.tuning.GivenAdapter"
NUM_STEPS = 4


def arguments(world_dir: Path, **changes: object) -> list[str]:
    short = {"batch_size": 2, "fps": 2, "evaluation.modes": "[direct]", "trainer.val_check_interval": 2}
    # So low a rate leaves the validation accuracy where it is: the first checkpoint stays the best.
    return tiny(world_dir, **({"num_steps": NUM_STEPS, "lr": 1e-5} | short | changes))


@pytest.fixture(scope="module")
def base(smoke_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained student of this module's own, whose files may be changed for a while."""
    return Path(shutil.copytree(smoke_run, tmp_path_factory.mktemp("base") / "run"))


@pytest.fixture(scope="module")
def adapted(base: Path, world_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything that draws at random, and with states of a byte."""
    folder = tmp_path_factory.mktemp("adapted") / "run"
    how = {"student_from": base, "adapter": "qdora", "rank": 32, "adapter.dropout": 0.1}
    how |= {"optimizer": "adamw_8bit", "method.neftune_alpha": 5, "trainer.precision": "bf16-mixed"}
    assert run("train", *arguments(world_dir, **how), f"hydra.run.dir={folder}") == 0
    return folder


def predictions(folder: Path) -> list[Prediction]:
    return read_jsonl(folder / "predictions.jsonl", Prediction)


def test_checkpoints_hold_the_adapter_and_name_its_base(adapted: Path, base: Path):
    files = RunFiles(adapted)
    for path in (files.best_checkpoint, files.last_checkpoint):
        assert all("lora_" in name for name in torch.load(path, weights_only=True)["state_dict"])
    settings = json.loads(files.student_settings.read_text())
    assert settings["base"]["source"] == str(RunFiles(base).student)
    assert settings["base"]["digest"]
    assert settings["quantised"] == ["language"]
    (weights,) = files.student.rglob("*.safetensors")
    assert weights.parent.name == "adapter"
    assert {tensor.dtype for tensor in load_file(weights).values()} == {torch.float32}
    config = json.loads((weights.parent / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == settings["base"]["source"]
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (32, 64, 0.1)


def test_the_run_says_what_it_trained(adapted: Path):
    facts = json.loads((adapted / "provenance.json").read_text())
    trained = {tower: count["trained"] for tower, count in facts["parameters"].items()}
    assert trained["vision"] == trained["projector"] == 0
    weights = load_file(RunFiles(adapted).student / "adapter" / "adapter_model.safetensors")
    assert trained["language"] == sum(tensor.numel() for tensor in weights.values())
    assert facts["num_parameters"] == sum(sum(count.values()) for count in facts["parameters"].values())
    log = (adapted / "run.log").read_text()
    assert "DoRA adapter of rank 32, alpha 64, dropout 0.1 on 14 linear layers in 4 bits" in log
    assert f"language: {trained['language']:,} parameters are trained at lr=1e-05" in log
    assert "parameters, none is trained" in log


def test_predictions_name_the_adapter_and_its_tensors(adapted: Path, smoke_run: Path):
    (name,) = {prediction.adapter for prediction in predictions(adapted)}
    assert name == load_student(RunFiles(adapted).student).adapter_name()
    assert str(name).startswith("dora_r32@")
    assert {prediction.adapter for prediction in predictions(smoke_run)} == {None}


def test_a_resumed_run_is_the_unbroken_one(adapted: Path, tmp_path: Path):
    """From the first checkpoint on: batches, noise, dropout and the optimiser's states of a byte."""
    stopped, folder = tmp_path / "stopped", tmp_path / "resumed"
    shutil.copytree(adapted / ".hydra", stopped / ".hydra")
    (stopped / "checkpoints").mkdir()
    shutil.copy(adapted / "checkpoints" / "best.ckpt", stopped / "checkpoints" / "best.ckpt")
    done = torch.load(stopped / "checkpoints" / "best.ckpt", weights_only=True)["global_step"]
    assert 0 < done < NUM_STEPS
    assert run("train", f"resume={stopped}", f"hydra.run.dir={folder}") == 0
    losses = []
    for one in (folder, adapted):
        with (one / "metrics.csv").open() as lines:
            rows = [row for row in csv.DictReader(lines) if row["train/loss"]]
        losses.append({int(row["step"]): float(row["train/loss"]) for row in rows if int(row["step"]) >= done})
    assert losses[0] == losses[1]
    assert len(losses[0]) == NUM_STEPS - done
    ours, theirs = (torch.load(one / "checkpoints" / "last.ckpt", weights_only=True) for one in (folder, adapted))
    assert all(torch.equal(ours["state_dict"][name], theirs["state_dict"][name]) for name in theirs["state_dict"])
    of_a_byte = theirs["optimizer_states"][0]["state"][0]["__bnb_optimizer_quant_state__"]["state1"]
    assert of_a_byte.dtype == torch.uint8
    assert (folder / "metrics.json").read_text() == (adapted / "metrics.json").read_text()


def test_it_is_evaluated_as_it_was_and_watches_videos(adapted: Path, tmp_path: Path):
    assert run("eval", f"ckpt={adapted}", "logger=csv", f"hydra.run.dir={tmp_path / 'eval'}") == 0
    ours, theirs = (
        [p.model_copy(update={"latency_s": None}) for p in predictions(f)] for f in (tmp_path / "eval", adapted)
    )
    assert ours == theirs
    video = write_video(tmp_path / "drive.mp4", num_frames=20, fps=10, size=(56, 112))
    assert run("predict", f"video={video}", f"ckpt={adapted}", f"out={tmp_path / 'timeline'}") == 0
    assert (tmp_path / "timeline" / "timeline.json").is_file()


def test_a_new_training_goes_on_with_the_adapter(adapted: Path, base: Path, world_dir: Path, tmp_path: Path):
    changes = {"student_from": adapted, "num_steps": 1, "trainer.val_check_interval": 1, "lr": 1e-3}
    assert run("train", *arguments(world_dir, **changes), f"hydra.run.dir={tmp_path}") == 0
    assert OmegaConf.to_container(run_config(tmp_path).adapter) == {"_target_": GIVEN}
    settings = [json.loads(RunFiles(folder).student_settings.read_text()) for folder in (tmp_path, adapted)]
    assert settings[0]["base"] == settings[1]["base"]
    names = [load_student(RunFiles(folder).student).adapter_name() for folder in (tmp_path, adapted)]
    assert names[0] != names[1]


@pytest.mark.parametrize(
    ("ckpt", "said"), [("run", "adapter: comes with ckpt="), ("null", "ckpt=null evaluates a student")]
)
def test_evaluation_trains_nothing(
    ckpt: str, said: str, adapted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    place = adapted if ckpt == "run" else "null"
    assert run("eval", f"ckpt={place}", "adapter=lora", "rank=2", f"hydra.run.dir={tmp_path}") == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("key", ["rank=8", "adapter=full"])
def test_another_adapter_on_top_is_refused(key: str, adapted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run("train", f"student_from={adapted}", key, f"hydra.run.dir={tmp_path}") == 2
    line = capsys.readouterr().err
    assert f"{key.split('=')[0]}: student_from={adapted} brings an adapter of its own" in line


def test_there_must_be_an_adapter_to_go_on_with(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run("train", "adapter=given", f"hydra.run.dir={tmp_path}") == 2
    assert "adapter=given: needs the folder of an adapter" in capsys.readouterr().err
    assert run("train", "adapter=given", f"student_from={base}", f"hydra.run.dir={tmp_path}") == 2
    assert f"adapter=given: student_from={base} has no adapter" in capsys.readouterr().err


def test_another_base_is_refused_before_its_weights_are_read(
    adapted: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    weights = RunFiles(base).student / "model.safetensors"
    kept = weights.read_bytes()
    try:
        weights.write_bytes(kept[:-4] + bytes(4))  # as another training of the same student would leave it
        assert run("eval", f"ckpt={adapted}", f"hydra.run.dir={tmp_path / 'other'}") == 2
        assert f"the adapter was trained on {RunFiles(base).student} with weights" in capsys.readouterr().err
        weights.unlink()
        assert run("eval", f"ckpt={adapted}", f"hydra.run.dir={tmp_path / 'none'}") == 2
        assert "no *.safetensors there" in capsys.readouterr().err
    finally:
        weights.write_bytes(kept)


@pytest.fixture(scope="module")
def elsewhere(smoke_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A released checkpoint, and an adapter that plain peft made for it."""
    student = load_student(RunFiles(smoke_run).student)
    assert isinstance(student, QwenStudent)
    folder = tmp_path_factory.mktemp("elsewhere")
    released = write_released(student, folder / "released")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(released, dtype=torch.float32)
    config = LoraConfig(r=4, lora_alpha=8, use_dora=True, target_modules=["q_proj", "v_proj"])
    adapter = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in adapter.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    adapter.save_pretrained(str(folder / "adapter"))
    return released, folder / "adapter"


def full_size(released: Path, adapter: Path, manifest: Path) -> list[str]:
    command = ["student=qwen2_5_vl_3b", "scale=paper", f"student.checkpoint={released}", "student.dtype=float32"]
    command += [f"student_from={adapter}", f"clips={manifest}", "fps=2", "resolution=2x1", "questions=rules_one_order"]
    return [*command, "evaluation.modes=[direct]", "logger=csv", "num_workers=0", "trainer.precision=32-true"]


def test_an_adapter_from_elsewhere_is_evaluated_and_watches_videos(
    elsewhere: tuple[Path, Path], manifest: Path, tmp_path: Path
):
    released, adapter = elsewhere
    command = full_size(released, adapter, manifest)
    assert run("eval", "ckpt=null", *command, f"hydra.run.dir={tmp_path / 'eval'}") == 0
    (name,) = {prediction.adapter for prediction in predictions(tmp_path / "eval")}
    assert str(name).startswith("dora_r4@")
    video = write_video(tmp_path / "drive.mp4", num_frames=20, fps=10, size=(56, 112))
    command = [f"video={video}", f"ckpt={tmp_path / 'eval'}", f"out={tmp_path / 'timeline'}", "window_s=2"]
    assert run("predict", *command) == 0
    assert (tmp_path / "timeline" / "timeline.json").is_file()


def test_an_adapter_from_elsewhere_computes_what_peft_computes(elsewhere: tuple[Path, Path], smoke_run: Path):
    released, adapter = elsewhere
    student = load_student(RunFiles(smoke_run).student)
    plain = student.supervised_logits(pack_one(student, make_sample()))
    student.add_adapter(adapter)
    ours = student.supervised_logits(pack_one(student, make_sample()))
    assert not torch.allclose(ours, plain, atol=1e-2)
    own = Qwen2_5_VLForConditionalGeneration.from_pretrained(released, dtype=torch.float32)
    model = PeftModel.from_pretrained(own, adapter)
    tree = student.processor.encode(make_sample())
    theirs = torch.cat([plain_target_logits(model, student, tree, branch) for branch in tree.branches])
    assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("alora_invocation_tokens", [1, 2], "alora_invocation_tokens"),
        ("arrow_config", {}, "arrow_config"),
        ("layer_replication", [[0, 1]], "layer_replication"),
        ("target_modules", "(q", "cannot be read"),
    ],
)
def test_an_adapter_of_another_kind_or_that_cannot_be_read_is_refused(
    key: str, value: object, says: str, elsewhere: tuple[Path, Path], smoke_run: Path, tmp_path: Path
):
    """peft would leave some of them without any effect, and what it raises for others is no line for a user."""
    folder = Path(shutil.copytree(elsewhere[1], tmp_path / "adapter"))
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(InputError, match=says):
        load_student(RunFiles(smoke_run).student).add_adapter(folder)


def test_weights_of_a_released_student_are_saved_as_trained_and_read_in_its_own_type(
    elsewhere: tuple[Path, Path], manifest: Path, tmp_path: Path
):
    released, adapter = elsewhere
    command = [
        part
        for part in full_size(released, adapter, manifest)
        if not part.startswith(("student_from", "student.dtype"))
    ]
    command += [
        "num_steps=2",
        "batch_size=2",
        "annotations=rules_one_order",
        "freeze.vision=true",
        "tower_lr.projector=1e-3",
    ]
    assert run("train", *command, "trainer.precision=bf16-mixed", f"hydra.run.dir={tmp_path / 'run'}") == 0
    saved = load_file(RunFiles(tmp_path / "run").student / "model.safetensors")
    assert {(".visual.blocks." in f".{name}", tensor.dtype) for name, tensor in saved.items()} >= {
        (True, torch.bfloat16),
        (False, torch.float32),
    }
    assert {p.dtype for p in load_student(RunFiles(tmp_path / "run").student).parameters()} == {torch.bfloat16}
    assert run("eval", f"ckpt={tmp_path / 'run'}", "logger=csv", f"hydra.run.dir={tmp_path / 'eval'}") == 0
    ours, theirs = (
        [p.model_copy(update={"latency_s": None}) for p in predictions(tmp_path / name)] for name in ("eval", "run")
    )
    assert ours == theirs


def test_it_is_trained_on(elsewhere: tuple[Path, Path], manifest: Path, tmp_path: Path):
    released, adapter = elsewhere
    command = [*full_size(released, adapter, manifest), "num_steps=1", "batch_size=2", "mixture=uniform"]
    assert run("train", *command, "annotations=rules_one_order", f"hydra.run.dir={tmp_path / 'run'}") == 0
    settings = json.loads(RunFiles(tmp_path / "run").student_settings.read_text())
    assert settings["base"]["source"] == str(released)
    assert load_student(RunFiles(tmp_path / "run").student).adapter_name() is not None


@pytest.mark.parametrize("named", ["other/model", None])
def test_an_adapter_of_another_base_is_refused(
    named: str | None, elsewhere: tuple[Path, Path], manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    released, adapter = elsewhere
    foreign = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    config = json.loads((foreign / "adapter_config.json").read_text())
    (foreign / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": named}))
    command = full_size(released, foreign, manifest)
    assert run("eval", "ckpt=null", *command, f"hydra.run.dir={tmp_path / 'run'}") == 2
    line = capsys.readouterr().err
    assert (
        f"trained on other/model, but student.checkpoint={released}" if named else "no base_model_name_or_path"
    ) in line
