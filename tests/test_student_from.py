"""`student_from=<run>`: a new training that starts from a trained student."""

import json
from pathlib import Path

import pytest
import torch
from running import run, tiny
from safetensors.torch import load_file

from autodrive.runs.folder import run_config
from autodrive.students.student import load_student
from autodrive.training.sft import Steps, SupervisedFineTuning


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / "student" / "model.safetensors")


@pytest.fixture(scope="module")
def continued(smoke_run: Path, world_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps from the smoke run's student at so low a rate that they hardly move it, at another frame rate."""
    folder = tmp_path_factory.mktemp("continued") / "run"
    changes = {"student_from": smoke_run, "student": "tiny_qwen2_5_vl", "fps": 2, "evaluation.modes": "[direct]"}
    arguments = tiny(world_dir, num_steps=2, lr=1e-9, **changes, **{"trainer.val_check_interval": 1})
    assert run("train", *arguments, f"hydra.run.dir={folder}") == 0
    return folder


def test_weights_and_tokenizer_come_with_the_run_and_the_step_begins_anew(smoke_run: Path, continued: Path):
    ours, theirs = weights(continued), weights(smoke_run)
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-7) for name in ours)
    tokenizers = [json.loads((r / "checkpoints/student/tokenizer.json").read_text()) for r in (continued, smoke_run)]
    assert tokenizers[0] == tokenizers[1]
    settings = json.loads((continued / "checkpoints/student/student.json").read_text())
    assert "fps" not in settings["processor"]  # a frame rate belongs to a run: the smoke run's is 5
    assert run_config(continued).fps == 2
    assert settings["family"] == "qwen2_5_vl"
    assert torch.load(continued / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] <= 2
    assert run_config(continued).student_from == str(smoke_run)


def test_such_a_run_can_be_resumed_and_evaluated(continued: Path, tmp_path: Path):
    assert run("train", f"resume={continued}", f"hydra.run.dir={tmp_path / 'resumed'}") == 0
    assert (tmp_path / "resumed" / "metrics.json").read_text() == (continued / "metrics.json").read_text()
    ours, theirs = weights(tmp_path / "resumed"), weights(continued)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["student=qwen2_5_vl_7b"], "student: differs from the student of student_from="),
        (["student.text_layers=3"], "student.text_layers: differs from the student of student_from="),
        (["scale=paper", "student=cosmos_reason1_7b"], "student: differs from the student of student_from="),
    ],
)
def test_another_student_is_refused(changes, said, smoke_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run("train", f"student_from={smoke_run}", *changes, f"hydra.run.dir={tmp_path}") == 2
    assert said in capsys.readouterr().err


def test_a_folder_without_a_student_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run("train", f"student_from={tmp_path}", f"hydra.run.dir={tmp_path / 'run'}") == 2
    assert f"student_from={tmp_path}: no checkpoints/student there" in capsys.readouterr().err


def test_a_loaded_student_is_trained_in_training_mode(smoke_run: Path):
    student = load_student(smoke_run / "checkpoints" / "student")
    assert not student.model.training  # as transformers loads it; nothing would be checkpointed or dropped
    method = SupervisedFineTuning(student, Steps(torch.optim.SGD, lambda step: 1.0), 1.0, gradient_checkpointing=True)
    method.on_fit_start()
    assert all(module.training for module in student.modules())
