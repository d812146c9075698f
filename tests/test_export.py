"""Exported students: plain libraries read them and answer as the student does, or nothing is left behind."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from running import run, tiny
from safetensors.torch import load_file, save_file
from student_samples import make_nvila_student, make_sample, pack_one
from transformers import AutoModelForImageTextToText

from autodrive.errors import InputError
from autodrive.exporting.checkpoint import ExportFormat
from autodrive.exporting.verifying import MOST_DIFFERENCE, answers_of, compare_with_stock, plain_sequences
from autodrive.runs.folder import RunFiles
from autodrive.schema import Mode
from autodrive.students.qwen_pretrained import PretrainedQwen2_5_VL
from autodrive.students.resolution import Resolution
from autodrive.students.student import load_student
from autodrive.trees.clip_tree import ClipTree

CLIPS = ("num_clips=2",)


@pytest.fixture(scope="module")
def adapted(smoke_run: Path, world_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapted") / "run"
    how = {"student_from": smoke_run, "adapter": "dora", "rank": 4, "num_steps": 3, "lr": 1e-2}
    assert run("train", *tiny(world_dir, **how), f"hydra.run.dir={folder}") == 0
    return folder


def export(world_dir: Path, ckpt: Path, out: Path, *arguments: str) -> int:
    return run("export", f"ckpt={ckpt}", f"out={out}", f"paths.data_dir={world_dir}", *CLIPS, *arguments)


def card_of(out: Path) -> str:
    return (out / "README.md").read_text()


def trees_of(folder: Path) -> list[ClipTree]:
    processor = load_student(folder).processor
    return [processor.encode(make_sample(seed=seed)) for seed in (1, 2)]


def test_a_merged_student_is_a_checkpoint_that_anybody_reads(adapted: Path, world_dir: Path, tmp_path: Path):
    out = tmp_path / "merged"
    assert export(world_dir, adapted, out, "dtype=bfloat16") == 0
    weights = load_file(out / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert not [name for name in weights if "lora" in name or "base_layer" in name]
    # As a released checkpoint it is a student again, with the scores of the one it was made from but for the rounding.
    ours = load_student(RunFiles(adapted).student).merge()
    theirs = PretrainedQwen2_5_VL("exported", str(out), "bfloat16").build([], Resolution(16, 1), seed=0)
    row = pack_one(ours, make_sample())
    scores = [
        torch.tensor([score for scores in student.prefill(row).score_options() for score in scores])
        for student in (ours, theirs)
    ]
    assert 0 < (scores[0] - scores[1]).abs().max() < 0.3
    manifest, card = json.loads((out / "export.json").read_text()), card_of(out)
    verified = manifest["verified"]
    assert 0 < verified["largest_difference"] < 1e-4 < verified["rounding"] < 0.3
    assert len(verified["clip_ids"]) == 2
    accuracy = json.loads((adapted / "metrics.json").read_text())["test/accuracy"]
    assert f"| test/accuracy | {accuracy:.3f} |" in card
    fingerprint = json.loads((adapted / "provenance.json").read_text())["data_fingerprint"]
    assert fingerprint in card
    assert manifest["adapter"] in card
    for text in (card, json.dumps(manifest)):
        assert str(tmp_path.parent) not in text


def test_an_adapter_goes_alone_to_those_who_have_its_base(adapted: Path, world_dir: Path, tmp_path: Path):
    out = tmp_path / "adapter"
    assert export(world_dir, adapted, out, "form=adapter") == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "export.json",
    ]
    manifest = json.loads((out / "export.json").read_text())
    assert manifest["verified"]["largest_difference"] < 1e-4
    # Its base is the other run's student, not what that was made from; of the machine's folders nothing is said.
    settings = json.loads((RunFiles(adapted).student / "student.json").read_text())
    assert f"- Base: a checkpoint in a folder student, weights {settings['base']['digest']}" in card_of(out)
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == "student"


def test_the_verification_notices_one_weight_that_is_off_and_another_reply(smoke_run: Path):
    folder = RunFiles(smoke_run).student
    student, trees = load_student(folder), trees_of(folder)
    limits: dict[str, Mapping[Mode, int]] = {b.annotation_id: {b.mode: 3} for tree in trees for b in tree.branches}
    asked = [ClipTree(**{**vars(tree), "branches": tuple(b.asked() for b in tree.branches)}) for tree in trees]
    answers = answers_of(student, asked, limits)
    sequences = plain_sequences(student, answers)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    assert compare_with_stock(model, sequences, answers).largest < 1e-4
    other = [type(a)(a.tree, a.branch, a.scores, (*a.reply_ids[:-1], a.reply_ids[-1] - 1)) for a in answers]
    assert compare_with_stock(model, plain_sequences(student, other), other).other_replies == len(answers)
    with torch.no_grad():
        model.model.language_model.layers[0].self_attn.v_proj.weight[0, 0] += 1.0
    found = compare_with_stock(model, sequences, answers)
    assert found.largest > MOST_DIFFERENCE


def test_what_cannot_be_verified_is_not_left_behind(smoke_run: Path, world_dir: Path, tmp_path: Path, capsys):
    broken, out = Path(shutil.copytree(smoke_run, tmp_path / "broken")), tmp_path / "out"
    path = RunFiles(broken).student / "model.safetensors"
    weights = load_file(path)
    next(tensor for name, tensor in weights.items() if name.endswith("q_proj.weight"))[0] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})
    assert export(world_dir, broken, out) == 1
    assert "not exported: read by plain libraries" in capsys.readouterr().err
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["form=adapter"], "form=adapter: the student has no adapter"),
        (["dtype=float16"], "dtype=float16: choose one of float32, bfloat16"),
    ],
)
def test_wrong_wishes_end_in_one_line(smoke_run: Path, world_dir: Path, tmp_path: Path, arguments, says, capsys):
    assert export(world_dir, smoke_run, tmp_path / "out", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert says in line
    assert not (tmp_path / "out").exists()


def test_a_student_that_plain_libraries_cannot_read_is_refused_before_it_is_asked():
    with pytest.raises(InputError, match="transformers has no class for nvila students"):
        ExportFormat("merged", None).check(make_nvila_student())


def test_a_folder_with_files_in_it_is_left_alone(smoke_run: Path, world_dir: Path, capsys):
    assert export(world_dir, smoke_run, smoke_run) == 2
    assert "holds something already" in capsys.readouterr().err
