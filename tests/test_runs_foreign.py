"""A run folder is data: a configuration in it that names code, or asks for the environment, is not followed."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from run_samples import prompts_config, reader, write_run
from running import composed, run

from autodrive.ablation.answers import RunAnswers
from autodrive.errors import InputError
from autodrive.runs.folder import find_runs, read_run, run_config
from autodrive.runs.foreign import TRAINING_ONLY, check_foreign, known_targets

HOSTILE = {"_target_": "os.mkdir", "path": "ran"}
GROUPS = [key for key, node in composed("train").items() if OmegaConf.is_dict(node)]


def checked(node: Any, **how: Any) -> None:
    config = OmegaConf.create(node)
    assert isinstance(config, DictConfig)
    check_foreign(config, Path("config.yaml"), **how)


def test_every_configuration_of_the_project_is_accepted():
    for overrides in ([], ["scale=paper"], ["frame_cache=jpeg", "annotations=[rules,file]", "decoder=torchcodec"]):
        checked(composed("train", overrides))
    assert {"lightning.pytorch.loggers.CSVLogger", "autodrive.labels.LabelSet", "torch.optim.AdamW"} <= known_targets()
    checked({"optimizer": {"_target_": "torch.optim.SGD", "lr": "${lr}"}})


@pytest.mark.parametrize(
    "node",
    [
        HOSTILE,
        {"a": [{"b": HOSTILE}]},
        {"_target_": "autodrive.labels.LabelSet", "classes": HOSTILE},
        {"_target_": "autodrive.labels.LabelSet", "_args_": ["x", HOSTILE], "_partial_": True, "_recursive_": False},
        {"_target_": "${name}"},
        {"_target_": ["os.mkdir"]},
        {"_target_": "autodrive.runs.provenance.git_commit"},  # ours, but no configuration names it
        {"_target_": "autodrive.journal.os.system"},
        {"_target_": "torch.optim.lr_scheduler.torch.load"},
        {"_target_": "torch.optim.Adam.__init__"},
        "${oc.env:HOME}",
        "a ${name} and ${oc.env:HOME}",
        "${${name}:HOME}",
        "${a.${oc.env:HOME}}",
        "${ oc.env : HOME }",
        "${oc.decode:x}",
        ["${now:%Y}"],
    ],
)
def test_code_and_resolvers_are_refused_wherever_they_are(node: Any):
    with pytest.raises(InputError, match=r"config\.yaml: labels"):
        checked({"labels": node, "name": "os.mkdir"})
    checked({"labels": node}, typed=["labels"])  # the user's own


def test_only_the_typed_key_is_the_user_s_own():
    node = {"optimizer": {"_target_": "mine.Optimizer"}, "optimizers": HOSTILE}
    with pytest.raises(InputError, match=r"optimizers\._target_: os\.mkdir .*give optimizers\._target_=<value>"):
        checked(node, typed=["optimizer"])


@pytest.fixture
def hostile(smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a copy of the smoke run in which a group names code."""
    monkeypatch.chdir(tmp_path)

    def made(*groups: str) -> Path:
        folder = tmp_path / "run"
        shutil.copytree(smoke_run, folder, ignore=shutil.ignore_patterns("student"))
        (folder / "checkpoints" / "student").symlink_to(smoke_run / "checkpoints" / "student")
        config = OmegaConf.load(folder / ".hydra" / "config.yaml")
        for group in groups:
            OmegaConf.update(config, group, HOSTILE, merge=False)
        OmegaConf.save(config, folder / ".hydra" / "config.yaml")
        return folder

    return made


@pytest.mark.parametrize("group", GROUPS)
def test_no_group_of_a_run_folder_can_name_code(group: str, hostile: Any, tmp_path: Path):
    folder = hostile(group)
    with pytest.raises(InputError, match=f"{group}._target_: os.mkdir is not named"):
        run_config(folder)


@pytest.mark.parametrize(
    ("verb", "argument"),
    [("eval", "ckpt=run"), ("predict", "ckpt=run"), ("train", "resume=run"), ("train", "student_from=run")],
)
def test_no_verb_follows_what_a_run_folder_names(
    verb: str, argument: str, hostile: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    hostile("student" if "student_from" in argument else "labels")
    arguments = ["video=a.mp4"] if verb == "predict" else [f"hydra.run.dir={tmp_path / 'out'}"]
    assert run(verb, argument, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "config.yaml" in line
    assert "os.mkdir is not named by any file below conf/" in line
    assert not (tmp_path / "ran").exists()


def test_an_evaluation_builds_nothing_that_only_training_uses(hostile: Any, tmp_path: Path):
    folder = hostile(*(group for group in TRAINING_ONLY if group != "trainer"))
    assert run("eval", f"ckpt={folder}", "fps=2", "evaluation.modes=[direct]", f"hydra.run.dir={tmp_path / 'out'}") == 0
    assert not (tmp_path / "ran").exists()


def test_a_reference_to_what_is_not_built_names_no_code(hostile: Any):
    folder = hostile("trainer.more", "student")
    for group, reference in (("labels", "${student}"), ("dataset", "${trainer.more}"), ("decoder", "${.student}")):
        config = OmegaConf.load(folder / ".hydra" / "config.yaml")
        OmegaConf.update(config, group, reference, merge=False)
        OmegaConf.save(config, folder / ".hydra" / "config.yaml")
    config = run_config(folder, unbuilt=TRAINING_ONLY)
    assert OmegaConf.to_container(config.decoder, resolve=True) == {"path": "ran"}
    for group in ("labels", "dataset", "decoder", "student"):
        instantiate(config[group])
    assert config.trainer._target_ == "autodrive.training.fitting.make_trainer"
    assert not Path("ran").exists()


def test_a_report_builds_no_tasks_that_name_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    prompts = OmegaConf.to_container(prompts_config())
    config = {"prompts": {**prompts, "tasks": {"mcq": "${lr}"}}, "lr": HOSTILE}  # type: ignore[dict-item]
    folder = write_run(tmp_path / "0", [], reader(0.5, 0), config=config)
    with pytest.raises(InputError, match="prompts"):
        RunAnswers.read(read_run(folder))
    assert not Path("ran").exists()


def test_a_report_shows_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET", "hunter2")
    folder = write_run(tmp_path / "0", ["fps=${oc.env:SECRET}"], reader(0.5, 0), config={"lr": "${oc.env:SECRET}"})
    hydra = folder / ".hydra" / "hydra.yaml"
    hydra.write_text(hydra.read_text().replace("tiny_qwen2_5_vl", "${oc.env:SECRET}"))
    (found,) = find_runs([tmp_path])
    shown = [found.value(key) for key in ("fps", "lr", "student", "seed")]
    assert "hunter2" not in str(shown)
    assert shown[-1] == 0
    assert read_run(folder).labels().names == ("normal", "near_collision", "collision")
