"""The conformance suite of adapters: every kind, on every family, and on a student whose head is its embedding."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from student_samples import (
    ADAPTERS,
    BRANCHES,
    FAMILIES,
    MCQ,
    encoded,
    make_sample,
    make_tied_student,
    make_trees,
    one_turn,
    pack_one,
    plain_logits,
    plain_target_logits,
    put_adapter,
    stock_towers,
)
from test_students_exactness import CASES, ONE_ROW, gradients, in_order, packed_run, worst_difference

from autodrive.students import student as students
from autodrive.students.student import Student, load_student
from autodrive.students.tuning import GivenAdapter, make_trainable
from autodrive.trees.packing import pack_trees

VARIANTS: Mapping[str, Callable[[], Student]] = FAMILIES | {"qwen2_5_vl tied": make_tied_student}


CASES_OF_ALL = [*((family, kind) for family in FAMILIES for kind in ADAPTERS), ("qwen2_5_vl tied", "qdora")]


@pytest.fixture(scope="module", params=CASES_OF_ALL, ids=" ".join)
def adapted(request: pytest.FixtureRequest):
    """A student with an adapter whose activations are computed twice, and the stock model with the same adapter."""
    variant, kind = request.param
    student = VARIANTS[variant]()
    stock = student.stock_model()
    put_adapter(stock_towers(student, stock), kind)
    put_adapter(student.towers, kind)
    student.checkpoint_activations()
    return student, stock


def test_trees_are_read_as_separate_sequences(adapted):
    student, stock = adapted
    trees = make_trees(student, CASES["time dominates"])
    student.train()
    logits, _, ours = packed_run(student, pack_trees(trees, ONE_ROW))
    expected, losses = [], []
    for tree in trees:
        for branch in tree.branches:
            expected.append(plain_target_logits(stock, student, tree, branch))
            losses.append(F.cross_entropy(expected[-1], torch.tensor(branch.target_ids)))
    torch.stack(losses).mean().backward()
    assert torch.allclose(in_order(logits, trees), torch.cat(expected), atol=1e-4)
    theirs = gradients(stock)
    assert all("lora_" in name for name in theirs)
    assert worst_difference(ours, theirs) < 1e-4


def test_a_branch_does_not_notice_the_others(adapted):
    """Another text of equal length beside it leaves every logit of a branch as it was, bit for bit."""
    student, _ = adapted
    found = []
    for other in ("B", "C"):
        branches = (BRANCHES[1], one_turn("two", MCQ, other))
        trees = [encoded(student, make_sample(branches=branches))]
        found.append(packed_run(student, pack_trees(trees, ONE_ROW))[0])
    (key,) = [key for key in found[0] if key[1] == "weather"]
    assert torch.equal(found[0][key], found[1][key])


def test_options_and_replies_are_those_of_plain_loops(adapted):
    student, stock = adapted
    sample = make_sample(branches=BRANCHES[:2])
    tree = encoded(student, sample)
    student.eval()
    stock.eval()
    prefilled = student.prefill(pack_one(student, sample))
    with torch.no_grad():
        for branch, scores in zip(tree.branches, prefilled.score_options(), strict=True):
            prompt = branch.asked().ids
            for option, score in zip(branch.option_ids, scores, strict=True):
                logits = plain_logits(stock, student, tree, prompt + list(option))[len(prompt) - 1 : -1]
                expected = logits.log_softmax(-1).gather(1, torch.tensor(option)[:, None]).sum().item()
                assert score == pytest.approx(expected, abs=1e-3)
        replies = prefilled.generate([4, 4])
        for branch, reply in zip(tree.branches, replies, strict=True):
            ids = branch.asked().ids
            for token in reply.ids:
                assert plain_logits(stock, student, tree, ids)[-1].argmax().item() == token
                ids = [*ids, token]


def test_merged_weights_compute_the_same_without_an_adapter(adapted):
    student = copy.deepcopy(adapted[0]).eval()
    row = pack_one(student, make_sample())
    with torch.no_grad():
        expected = student.supervised_logits(row)
        student.merge()
        assert (student.supervised_logits(row) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert not student.has_adapter
    assert student.base is None
    assert not [name for name in student.model.state_dict() if "lora" in name or "base_layer" in name]
    assert {parameter.dtype for parameter in student.model.parameters()} == {torch.float32}


@pytest.mark.parametrize(("variant", "kind"), CASES_OF_ALL)
def test_what_is_saved_is_the_adapter_and_it_comes_back(variant, kind, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(students.FAMILIES, "patches", "patch_student.PatchStudent")
    VARIANTS[variant]().save(tmp_path / "base")
    student = load_student(tmp_path / "base")
    put_adapter(student.towers, kind)
    student.save(tmp_path / "student")
    assert not list((tmp_path / "student").glob("*.safetensors"))
    loaded = load_student(tmp_path / "student")
    row = pack_one(student, make_sample())
    student.eval()
    loaded.eval()
    assert torch.equal(loaded.supervised_logits(row), student.supervised_logits(row))
    assert loaded.prefill(row).generate([4] * 3) == student.prefill(row).generate([4] * 3)
    assert loaded.adapter_name() == student.adapter_name()
    make_trainable(loaded.towers, GivenAdapter(), (), seed=1)  # trained on, it is the same again
    assert torch.equal(loaded.supervised_logits(row), student.supervised_logits(row))
    ours, theirs = (dict(one.named_parameters()) for one in (loaded, student))
    assert {name: p.requires_grad for name, p in ours.items()} == {name: p.requires_grad for name, p in theirs.items()}
