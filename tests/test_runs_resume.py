"""A run that was killed goes on in a new folder as if nothing had happened."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from running import run, tiny
from safetensors.torch import load_file
from wandb_files import read_offline

from autodrive.config_identity import MACHINE_KEYS, config_hash
from autodrive.ranks.group import Group
from autodrive.runs.checkpoints import DICTIONARIES, LISTS, read_checkpoint
from autodrive.runs.folder import RunFiles, run_config
from autodrive.students.student import load_student
from autodrive.tracking.record import Identity
from autodrive.training.callbacks import Checkpoints

NUM_STEPS = 15
VALIDATE_EVERY = 3


@pytest.fixture(scope="module")
def arguments(world_dir: Path) -> list[str]:
    changes = {"trainer.val_check_interval": VALIDATE_EVERY, "batch_size": 2, "fps": 2, "evaluation.modes": "[direct]"}
    # So low a rate leaves the validation accuracy where it is: the first checkpoint stays the best, the last moves on.
    return tiny(world_dir, num_steps=NUM_STEPS, lr=1e-5, logger="csv_wandb", **changes)


@pytest.fixture(scope="module")
def unbroken(arguments: list[str], smoke_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    assert run("train", *arguments, f"hydra.run.dir={folder}") == 0
    return folder


@pytest.fixture(scope="module")
def killed(arguments: list[str], smoke_run: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a process that got signal 9 after its first checkpoint."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    command = [sys.executable, str(repository / "train.py"), *arguments, f"hydra.run.dir={folder}"]
    # Not WANDB_SERVICE: a process of W&B's own writes the run, and that of these tests would outlive the killed one.
    offline = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    offline |= {"WANDB_MODE": "offline"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=offline) as process:
        while not (folder / "checkpoints" / "last.ckpt").is_file():
            assert process.poll() is None, "training ended before it could be killed"
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "metrics.json").exists()
    return folder


@pytest.fixture(scope="module")
def resumed(killed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Continued after its folder was moved: nothing may look for it at the old place."""
    folder = tmp_path_factory.mktemp("resumed") / "run"
    moved = killed.rename(killed.parent / "moved")
    try:
        assert run("train", f"resume={moved}", f"hydra.run.dir={folder}", wandb="offline") == 0
    finally:
        moved.rename(killed)
    return folder


def logged(folder: Path, column: str) -> dict[int, float]:
    with (folder / "metrics.csv").open() as lines:
        return {int(row["step"]): float(row[column]) for row in csv.DictReader(lines) if row.get(column)}


def test_losses_of_a_resumed_run_equal_those_of_the_unbroken_one(killed: Path, unbroken: Path, resumed: Path):
    """The loss of a step depends on its clips, their frame phases, its questions and all earlier steps."""
    stopped_after = torch.load(killed / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert 0 < stopped_after < NUM_STEPS
    expected = {step: loss for step, loss in logged(unbroken, "train/loss").items() if step >= stopped_after}
    assert logged(resumed, "train/loss") == expected
    assert len(expected) == NUM_STEPS - stopped_after
    assert len(set(expected.values())) > 0.9 * len(expected)


def test_a_resumed_run_goes_on_as_the_same_run_in_wandb(killed: Path, unbroken: Path, resumed: Path):
    """W&B lays the two files over each other when they are synced, in the order in which they were begun."""
    before, after = Identity.of(killed), read_offline(resumed)
    assert before is not None
    assert (before.id, before.name) == (after.run.run_id, after.run.display_name)
    assert (after.run.resume, after.exit_code) == (True, 0)
    assert Identity.of(resumed) == before
    stopped_after = torch.load(killed / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    losses = logged(unbroken, "train/loss")
    assert after.curve("train/loss") == {step: loss for step, loss in losses.items() if step >= stopped_after}


def test_results_of_a_resumed_run_equal_those_of_the_unbroken_one(unbroken: Path, resumed: Path):
    ours, theirs = (load_file(run / "checkpoints" / "student" / "model.safetensors") for run in (resumed, unbroken))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (resumed / "metrics.json").read_text() == (unbroken / "metrics.json").read_text()


def test_the_saved_student_is_the_one_of_the_best_validation(unbroken: Path):
    best = torch.load(unbroken / "checkpoints" / "best.ckpt", weights_only=True)
    accuracies = logged(unbroken, "val/accuracy")
    best_step = max(accuracies, key=lambda step: (accuracies[step], -step))  # the first of equals
    assert best["global_step"] == best_step + 1 < NUM_STEPS
    last = torch.load(unbroken / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == NUM_STEPS, "it moves on whether or not the best does"
    saved = load_student(unbroken / "checkpoints" / "student").state_dict()
    assert {f"student.{name}" for name in saved} == set(best["state_dict"])
    for name, weights in saved.items():
        assert torch.equal(weights, best["state_dict"][f"student.{name}"]), name


def test_a_resumed_run_keeps_the_configuration(unbroken: Path, resumed: Path, killed: Path):
    config = run_config(resumed)
    assert config.resume == str(killed.parent / "moved")
    assert config_hash(config) == config_hash(run_config(unbroken))


def test_the_killed_run_s_folder_is_left_as_it_was(killed: Path, resumed: Path):
    names = sorted(path.name for path in (killed / "checkpoints").iterdir())
    assert names == ["best.ckpt", "last.ckpt"]
    assert not (killed / "metrics.json").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["lr=0.5"], "lr differs"),
        (["mixture=unbalanced"], "mixture differs"),
        (["experiment=autodrive/table3_fps"], "experiment differs"),
        (["scale=paper"], "scale differs"),
        (["optimizer.weight_decay=0.5"], "optimizer.weight_decay differs"),
    ],
)
def test_other_keys_are_refused(
    changes: Sequence[str], said: str, killed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run("train", f"resume={killed}", *changes, f"hydra.run.dir={tmp_path}") == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"error: resume={killed}: {said} from that run's")
    assert "\n" not in error


def test_keys_of_the_machine_may_differ(killed: Path):
    config = run_config(killed)
    for key in MACHINE_KEYS - {"resume"}:
        changed = OmegaConf.merge(config, {key: {"x": 1} if key != "num_workers" else 7})
        assert config_hash(changed) == config_hash(config), key  # type: ignore[arg-type]
    moved = OmegaConf.merge(config, {"paths": {"data_dir": "/elsewhere"}})
    assert moved.dataset.root == "/elsewhere"
    assert config_hash(moved) == config_hash(config)  # type: ignore[arg-type]
    elsewhere = OmegaConf.merge(config, {"clips": "/elsewhere/clips.jsonl", "source": "/elsewhere"})
    assert config_hash(elsewhere) == config_hash(config)  # type: ignore[arg-type]  # the data fingerprint knows them
    shared = OmegaConf.merge(config, {"trainer": {"devices": 8, "num_nodes": 4}})
    assert config_hash(shared) == config_hash(config)  # type: ignore[arg-type]  # the steps are those of one process
    for change in (
        {"lr": 0.5},
        {"trainer": {"precision": "bf16-mixed"}},
        {"seed": 1},
        {"labels": {"name": "x"}},
        {"dataset": {"root": "/elsewhere"}},
    ):
        assert config_hash(OmegaConf.merge(config, change)) != config_hash(config)  # type: ignore[arg-type]


def test_changed_clips_are_refused(killed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The same configuration, but another world behind it."""
    elsewhere = tmp_path / "copy"
    (elsewhere / ".hydra").mkdir(parents=True)
    (elsewhere / "checkpoints").mkdir()
    for name in ("config.yaml", "hydra.yaml", "overrides.yaml"):
        (elsewhere / ".hydra" / name).write_bytes((killed / ".hydra" / name).read_bytes())
    for name in ("best.ckpt", "last.ckpt"):
        (elsewhere / "checkpoints" / name).write_bytes((killed / "checkpoints" / name).read_bytes())
    config = run_config(elsewhere)
    config.dataset.num_train_scenes = 3
    OmegaConf.save(config, elsewhere / ".hydra" / "config.yaml")
    assert run("train", f"resume={elsewhere}", f"hydra.run.dir={tmp_path / 'out'}") == 2
    assert "the clips, labels or splits have changed since" in capsys.readouterr().err


def test_a_run_without_checkpoint_cannot_be_resumed(killed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "early" / ".hydra").mkdir(parents=True)
    (tmp_path / "early" / ".hydra" / "config.yaml").write_bytes((killed / ".hydra" / "config.yaml").read_bytes())
    assert run("train", f"resume={tmp_path / 'early'}", f"hydra.run.dir={tmp_path / 'out'}") == 2
    assert "no checkpoints/last.ckpt there" in capsys.readouterr().err


def test_the_best_checkpoint_of_the_first_part_is_not_forgotten(tmp_path: Path):
    first, second = RunFiles(tmp_path / "first"), RunFiles(tmp_path / "second")
    first.checkpoints.mkdir(parents=True)
    whole = {key: {} for key in DICTIONARIES} | {key: [] for key in LISTS} | {"global_step": 50}
    torch.save(whole, first.best_checkpoint)
    state = Checkpoints(first, choosing=True, group=Group()).state_dict()
    state |= {"best_model_path": str(first.best_checkpoint), "best_model_score": torch.tensor(0.9)}
    state |= {"best_k_models": {str(first.best_checkpoint): torch.tensor(0.9)}, "kth_value": torch.tensor(0.9)}
    moved = RunFiles(first.folder.rename(tmp_path / "moved"))
    later = Checkpoints(second, choosing=True, group=Group(), earlier=moved)
    later.load_state_dict(state)
    assert read_checkpoint(second.best_checkpoint)["global_step"] == 50
    assert later.best_model_path == str(second.best_checkpoint)
    assert later.best_model_score == torch.tensor(0.9)
    assert later.best_k_models == {str(second.best_checkpoint): torch.tensor(0.9)}
