"""The first run on a machine sees for itself that clip trees are exact there, once."""

import json
from pathlib import Path

import pytest
import torch
from running import run, tiny
from student_samples import FAMILIES, make_student, make_trees

import autodrive.students.tree_attention as tree_attention
import autodrive.trees.layout as tree_layout
from autodrive.errors import InputError
from autodrive.students.self_check import ROUNDING, check_once, largest_difference
from autodrive.students.tree_attention import check_tree_attention

CASE = {"num_frames": 6, "height": 56, "width": 84, "fps": 2.0}


def causal(trees, places_TQ, begins, length):
    """Branches see those before them."""
    keys = torch.tensor([tree.start for tree in trees])[:, None, None] + torch.arange(length)
    return keys <= places_TQ[:, :, None]


def blind(trees, places_TQ, begins, length):
    """Branches see themselves alone."""
    keys = torch.tensor([tree.start for tree in trees])[:, None, None] + torch.arange(length)
    return (keys <= places_TQ[:, :, None]) & (keys >= begins[places_TQ[:, :, None]])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_agrees_and_stays_as_it_was(family: str):
    student = FAMILIES[family]().train()
    tree, _ = make_trees(student, CASE)
    assert largest_difference(student, tree, autocast=False) < ROUNDING[torch.float32] / 100
    assert largest_difference(student, tree, autocast=True) < ROUNDING[torch.bfloat16]
    assert student.training
    check_tree_attention(student.text_model)


def test_what_was_seen_once_is_not_computed_again(tmp_path: Path):
    student = make_student()
    asked: list[int] = []

    def clip():
        asked.append(1)
        return make_trees(student, CASE)[0]

    for _ in range(2):
        check_once(student, clip, autocast=False, data_dir=tmp_path)
    assert len(asked) == 1
    check_once(student, clip, autocast=True, data_dir=tmp_path)  # another type
    student.name = "another"
    check_once(student, clip, autocast=True, data_dir=tmp_path)
    assert len(asked) == 3
    found = [json.loads(path.read_text()) for path in (tmp_path / "self_checks").iterdir()]
    assert sorted(one["dtype"] for one in found) == ["bfloat16", "bfloat16", "float32"]
    assert all(one["versions"]["torch"] == torch.__version__ for one in found)
    assert all(one["largest_difference"] <= one["allowed"] for one in found)


def test_without_options_nothing_is_compared_and_nothing_remembered(tmp_path: Path):
    check_once(make_student(), lambda: None, autocast=False, data_dir=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mistake", [causal, blind])
def test_a_wrong_mask_is_noticed_and_asked_again(mistake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    student = make_student()
    monkeypatch.setattr(tree_layout, "_visible", mistake)
    for _ in range(2):
        with pytest.raises(
            InputError, match=r"self-check: .* float32 explains 0\.001, with torch \d.*, transformers \d"
        ):
            check_once(student, lambda: make_trees(student, CASE)[0], autocast=False, data_dir=tmp_path)
    check_tree_attention(student.text_model)


def test_scores_that_are_no_numbers_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    student = make_student()
    real = tree_attention.asked_attention
    monkeypatch.setattr("autodrive.students.qwen_last_layer.asked_attention", lambda *a, **k: real(*a, **k) * torch.nan)
    with pytest.raises(InputError, match="differ by nan"):
        check_once(student, lambda: make_trees(student, CASE)[0], autocast=False, data_dir=tmp_path)


def test_a_run_looks_before_it_trains(
    smoke_run: Path,
    world_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    remembered = list((world_dir / "self_checks").iterdir())
    assert remembered  # of the run that was finished before
    monkeypatch.setattr(tree_layout, "_visible", causal)
    monkeypatch.setattr("autodrive.students.self_check.FOLDER", str(tmp_path / "elsewhere"))
    for verb, arguments in (("train", tiny(world_dir)), ("eval", [f"ckpt={smoke_run}"])):
        assert run(verb, *arguments, f"hydra.run.dir={tmp_path / verb}") == 2
        *_, said = capsys.readouterr().err.splitlines()
        assert said.startswith("error: self-check: option scores of clip trees differ")
        assert not (tmp_path / verb / "metrics.json").exists()
    assert list((world_dir / "self_checks").iterdir()) == remembered
