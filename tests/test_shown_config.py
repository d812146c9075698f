"""`--cfg job` prints the configuration that would run, with what comes from an earlier run, and runs nothing."""

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from running import composed, run

from autodrive.runs.folder import save_config


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The folder of a killed run that had a frame rate and a learning rate of its own."""
    folder = tmp_path / "earlier"
    save_config(composed("train", ["fps=7", "lr=0.5"]), folder)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").touch()
    return folder


def shown(capsys: pytest.CaptureFixture[str], verb: str, *arguments: str) -> dict:
    assert run(verb, *arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return yaml.safe_load(captured.out)


@pytest.mark.parametrize(("verb", "key"), [("eval", "ckpt"), ("train", "resume")])
@pytest.mark.parametrize("flags", [("--cfg", "job"), ("-c", "job"), ("--cfg=job", "--resolve")])
def test_values_of_the_earlier_run_are_shown(
    verb: str, key: str, flags: tuple[str, ...], earlier: Path, capsys: pytest.CaptureFixture[str]
):
    config = shown(capsys, verb, f"{key}={earlier}", *flags)
    assert (config["fps"], config["lr"], config[key]) == (7, 0.5, str(earlier))
    assert config["optimizer"]["lr"] == (0.5 if "--resolve" in flags else "${lr}")
    assert "hydra" not in config


def test_the_command_line_has_the_last_word(earlier: Path, capsys: pytest.CaptureFixture[str]):
    # Overrides before and behind the flag, as one types them.
    config = shown(capsys, "eval", f"ckpt={earlier}", "--cfg", "job", "fps=3", "split=val")
    assert (config["fps"], config["lr"], config["split"]) == (3, 0.5, "val")


def test_a_prediction_shows_what_it_takes_from_the_run(earlier: Path, capsys: pytest.CaptureFixture[str]):
    config = shown(capsys, "predict", f"ckpt={earlier}", "video=drive.mp4", "--cfg", "job")
    assert (config["fps"], config["window_s"]) == (7, 4)


def test_a_part_is_shown_under_its_name(earlier: Path, capsys: pytest.CaptureFixture[str]):
    assert run("eval", f"ckpt={earlier}", "--cfg", "job", "--package", "optimizer") == 0
    out = capsys.readouterr().out
    assert out.startswith("# @package optimizer\n")
    assert yaml.safe_load(out)["weight_decay"] == 0.01
    assert run("eval", f"ckpt={earlier}", "--cfg", "job", "-p", "fps") == 0
    assert capsys.readouterr().out == "# @package fps\n7.0\n"


@pytest.mark.parametrize("verb", ["train", "eval", "export", "plan", "predict", "prepare", "report", "bench"])
def test_every_verb_shows_its_keys(verb: str, capsys: pytest.CaptureFixture[str]):
    assert shown(capsys, verb, "--cfg", "job") == yaml.safe_load(OmegaConf.to_yaml(composed(verb)))


@pytest.mark.parametrize(
    ("verb", "arguments", "said"),
    [
        ("eval", ["ckpt=nowhere"], "nowhere: not a run folder"),
        ("eval", ["ckpt={earlier}", "student=qwen2_5_vl_7b"], "student: comes with ckpt="),
        ("train", ["resume={earlier}", "lr=0.1"], "lr differs from that run's"),
        ("train", ["resume=nowhere"], "nowhere: not a run folder"),
        ("predict", ["ckpt=nowhere"], "nowhere: not a run folder"),
        ("eval", ["ckpt={earlier}", "--package", "nope"], "--package nope: there is no such key"),
    ],
)
def test_what_would_be_refused_is_refused(
    verb: str, arguments: list[str], said: str, earlier: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(verb, *(argument.format(earlier=earlier) for argument in arguments), "--cfg", "job") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert said in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("verb", "command"),
    [("eval", "python eval.py"), ("predict", "python -m autodrive.predict"), ("bench", "python -m autodrive.bench")],
)
def test_a_misspelt_key_names_the_verb_that_knows_them(verb: str, command: str, capsys: pytest.CaptureFixture[str]):
    assert run(verb, "fsp=15") == 2
    assert f"({command} --cfg job prints every key)" in capsys.readouterr().err


def test_a_sweep_is_not_one_configuration(capsys: pytest.CaptureFixture[str]):
    assert run("train", "-m", "fps=1,15", "--cfg", "job") == 2
    assert "--cfg job shows one job" in capsys.readouterr().err
