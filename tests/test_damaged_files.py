"""Every file of a run folder and every manifest, damaged in every way: read as it is, or refused in one line."""

import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from autodrive.config import TrainConfig
from autodrive.datasets.manifest import load_clips
from autodrive.errors import InputError
from autodrive.reporting.run_page import loss_curves
from autodrive.runs.folder import RunFiles, read_run, run_config
from autodrive.students.student import load_student


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def replaced_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello\n"),
    "list": lambda path: path.write_text("[1, 2, 3]\n"),
    "keys": lambda path: path.write_text('{"a": 1}\n'),
    "null": lambda path: path.write_text("null\n"),
    "bytes": lambda path: path.write_bytes(bytes(range(256)) * 8),
    "utf16": lambda path: path.write_text("a: 1\n", encoding="utf-16"),
    "folder": replaced_by_folder,
    "gone": lambda path: path.unlink(),
}


def read_everything(run_dir: Path) -> None:
    """What evaluation, prediction, resuming and reports read of a run folder."""
    run_config(run_dir)
    run = read_run(run_dir)
    for reader in (run.labels, run.headline_task, run.predictions, run.dropped, run.provenance):
        reader()
    loss_curves(run.files.losses)


READERS: dict[str, Callable[[Path], object]] = {
    ".hydra/config.yaml": read_everything,
    ".hydra/overrides.yaml": read_everything,
    ".hydra/hydra.yaml": read_everything,
    "metrics.json": read_everything,
    "metrics.csv": read_everything,
    "predictions.jsonl": read_everything,
    "dropped.jsonl": read_everything,
    "provenance.json": read_everything,
    **{
        f"checkpoints/student/{name}": lambda run_dir: load_student(RunFiles(run_dir).student)
        for name in ("student.json", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json")
    },
    "checkpoints/student/tokenizer_config.json": lambda run_dir: load_student(RunFiles(run_dir).student),
    "clips.jsonl": lambda run_dir: load_clips(run_dir / "clips.jsonl"),
}


@pytest.fixture(scope="module")
def whole_run(smoke_run: Path, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(smoke_run, folder)
    shutil.copyfile(manifest, folder / "clips.jsonl")
    return folder


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_refused_in_one_line(name: str, whole_run: Path, tmp_path: Path):
    original = (whole_run / name).read_bytes()
    lines = {}
    for kind, damage in DAMAGES.items():
        path = whole_run / name
        damage(path)
        try:
            READERS[name](whole_run)
        except InputError as error:
            lines[kind] = str(error)
        finally:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            path.write_bytes(original)
    assert all("\n" not in line for line in lines.values()), lines


def test_damaged_values_of_a_run_s_configuration_are_refused_by_file_and_key(whole_run: Path, tmp_path: Path):
    file = RunFiles(tmp_path).config
    file.parent.mkdir()
    for key in (field.name for field in fields(TrainConfig) if field.name != "logger"):  # which may be anything
        for value in (-1, [1]):
            config = OmegaConf.load(RunFiles(whole_run).config)
            OmegaConf.update(config, key, value, merge=False)
            OmegaConf.save(config, file)
            with pytest.raises(InputError, match=rf"config\.yaml: .*{key}"):
                run_config(tmp_path)
