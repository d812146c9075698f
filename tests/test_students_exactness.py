"""A packed row of clip trees computes what separate sequences through transformers' own model compute, gradients too.

The conformance suite of every student family: one enters by its name in `student_samples.FAMILIES`.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from student_samples import (
    AFTER,
    BEFORE,
    BRANCHES,
    CONVERSATION,
    FAMILIES,
    MCQ,
    THINK,
    WEATHER,
    encoded,
    make_frames,
    make_sample,
    make_student,
    make_trees,
    one_turn,
    plain_target_logits,
)
from transformers import PreTrainedModel

import autodrive.students.tree_attention as tree_attention
import autodrive.trees.layout as tree_layout
from autodrive.trees.clip_tree import TreeRow
from autodrive.trees.layout import TreeLayout, tree_mask
from autodrive.trees.packing import pack_trees
from autodrive.trees.sample import Video

CASES = {
    "space dominates": {"num_frames": 4, "height": 84, "width": 112, "fps": 2.0},
    "time dominates": {"num_frames": 30, "height": 28, "width": 28, "fps": 2.0},
    "odd frame count": {"num_frames": 7, "height": 56, "width": 56, "fps": 4.0},
}
ONE_ROW = 10**6


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}


def worst_difference(ours, theirs) -> float:
    """Largest per-tensor gradient difference, relative to the tensor's norm."""
    assert ours.keys() == theirs.keys()
    # A softmax does not notice a bias of all keys where no rotation follows: such a gradient is rounding and no more.
    largest = max(gradient.norm() for gradient in theirs.values())
    nothing = {n for n, gradient in theirs.items() if n.endswith("k_proj.bias") and gradient.norm() < 1e-6 * largest}
    assert all(ours[name].norm() < 1e-6 * largest for name in nothing)
    return max(
        ((ours[name] - theirs[name]).norm() / theirs[name].norm().clamp_min(1e-12)).item()
        for name in ours.keys() - nothing
    )


def separate_run(student, trees, loss_mean="annotations", prepare=lambda model: None):
    """Logits and gradients of every branch alone."""
    model = student.stock_model()
    prepare(model)
    branches = [(tree, branch) for tree in trees for branch in tree.branches]
    logits, losses = [], []
    for tree, branch in branches:
        logits.append(plain_target_logits(model, student, tree, branch))
        losses.append(F.cross_entropy(logits[-1], torch.tensor(branch.target_ids), reduction="none"))
    loss = torch.cat(losses).mean() if loss_mean == "tokens" else torch.stack([x.mean() for x in losses]).mean()
    loss.backward()
    return torch.cat(logits).detach(), loss.item(), gradients(model)


def packed_run(student, rows: tuple[TreeRow, ...]):
    """Logits, loss and gradients of rows, in the order in which their branches were given."""
    student.zero_grad()
    logits, total = {}, 0.0
    for row in rows:
        found = student.supervised_logits(row)
        loss = (F.cross_entropy(found, row.target_ids, reduction="none") * row.target_weights).sum()
        loss.backward()
        total += loss.item()
        start = 0
        for span in row.spans:
            count = sum(end - begin for begin, end in span.targets)
            logits[row.trees[span.tree].clip_id, span.annotation_id] = found[start : start + count].detach()
            start += count
    return logits, total, gradients(student.model)


def in_order(logits, trees) -> torch.Tensor:
    return torch.cat([logits[tree.clip_id, branch.annotation_id] for tree in trees for branch in tree.branches])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("family", "changes"),
    [*((family, {}) for family in FAMILIES), ("qwen2_5_vl", {"position_mode": "real_time"})],
    ids=[*FAMILIES, "qwen2_5_vl real time"],
)
def test_a_packed_row_equals_separate_sequences(family, changes, case):
    student = FAMILIES[family](**changes)
    trees = make_trees(student, CASES[case])
    logits, loss, grads = packed_run(student, pack_trees(trees, ONE_ROW))
    expected_logits, expected_loss, expected_grads = separate_run(student, trees)
    assert torch.allclose(in_order(logits, trees), expected_logits, atol=1e-4)
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    assert worst_difference(grads, expected_grads) < 1e-4


@pytest.mark.parametrize("loss_mean", ["annotations", "tokens"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_rows_of_a_step_add_up_to_the_same_step(family, loss_mean):
    """One row, a row a tree, and rows so short that a tree is split over two."""
    student = FAMILIES[family]()
    trees = make_trees(student, CASES["space dominates"])
    lengths = [row.num_tokens for tree in trees for row in pack_trees([tree], ONE_ROW)]
    split = lengths[0] - 1
    assert [len(pack_trees(trees, budget)) for budget in (sum(lengths), max(lengths), split)] == [1, 2, 3]
    _, expected_loss, expected_grads = separate_run(student, trees, loss_mean)
    for budget in (sum(lengths), max(lengths), split):
        _, loss, grads = packed_run(student, pack_trees(trees, budget, loss_mean))
        assert loss == pytest.approx(expected_loss, abs=1e-5)
        assert worst_difference(grads, expected_grads) < 1e-4


def several_parts_and_turns(student) -> list:
    """Text around a video, two videos with text between them, text alone; conversations beside single questions."""
    one, two = (Video(make_frames(num_frames, 56, 56, 2.0, seed=num_frames), 2.0) for num_frames in (4, 7))
    samples = [
        replace(make_sample(seed=0, branches=(*BRANCHES, CONVERSATION)), prefix=(BEFORE, one, AFTER, BEFORE)),
        replace(make_sample(seed=1, branches=(CONVERSATION, BRANCHES[2])), prefix=(one, AFTER, two)),
        replace(make_sample(seed=2, branches=(BRANCHES[1], CONVERSATION)), prefix=(BEFORE, AFTER)),
    ]
    return [encoded(student, sample) for sample in samples]


@pytest.mark.parametrize("family", FAMILIES)
def test_prefixes_of_several_parts_and_branches_of_several_turns(family):
    student = FAMILIES[family]()
    trees = several_parts_and_turns(student)
    expected_logits, expected_loss, expected_grads = separate_run(student, trees)
    for budget in (ONE_ROW, max(row.num_tokens for tree in trees for row in pack_trees([tree], ONE_ROW)) - 1):
        logits, loss, grads = packed_run(student, pack_trees(trees, budget))
        assert torch.allclose(in_order(logits, trees), expected_logits, atol=1e-4)
        assert loss == pytest.approx(expected_loss, abs=1e-5)
        assert worst_difference(grads, expected_grads) < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_branch_does_not_notice_the_others(family):
    """Another text beside it, before it or behind it leaves every logit of a branch as it was, bit for bit."""
    student = FAMILIES[family]()
    found = []
    for other in ("B", "C"):
        branches = (one_turn("one", MCQ, other), BRANCHES[1], one_turn("three", MCQ, other))
        trees = [encoded(student, make_sample(branches=branches))]
        found.append(packed_run(student, pack_trees(trees, ONE_ROW))[0])
    (key,) = [key for key in found[0] if key[1] == "weather"]
    assert torch.equal(found[0][key], found[1][key])


@pytest.mark.parametrize("family", FAMILIES)
def test_signed_weights_are_divided_by_the_normaliser_that_is_given(family):
    """Two replies of which one was better: (+1 x its loss - 1 x the other's) / 4, and the gradient of that."""
    student = FAMILIES[family]()
    branches = (one_turn("good", MCQ, "B", weight=1.0), one_turn("bad", WEATHER, "heavy rain", weight=-1.0))
    trees = [encoded(student, make_sample(branches=branches))]
    model = student.stock_model()
    losses = [
        F.cross_entropy(plain_target_logits(model, student, trees[0], one), torch.tensor(one.target_ids))
        for one in trees[0].branches
    ]
    expected = (losses[0] - losses[1]) / 4
    expected.backward()
    _, loss, grads = packed_run(student, pack_trees(trees, ONE_ROW, normaliser=4.0))
    assert loss == pytest.approx(expected.item(), abs=1e-6)
    assert worst_difference(grads, gradients(model)) < 1e-4


def freeze_vision(model) -> None:
    for name, parameter in model.named_parameters():
        if "visual" in name or "projector" in name:
            parameter.requires_grad_(False)


def checkpoint_activations(model) -> None:
    model.train()
    for part in model.modules():
        if isinstance(part, PreTrainedModel):
            part.activation_checkpointing_enable()


@pytest.mark.parametrize("prepare", [freeze_vision, checkpoint_activations])
@pytest.mark.parametrize("family", FAMILIES)
def test_exact_with(family, prepare: Callable):
    student = FAMILIES[family]()
    trees = make_trees(student, CASES["time dominates"])
    expected_logits, _, expected_grads = separate_run(student, trees, prepare=prepare)
    prepare(student.model)
    logits, _, grads = packed_run(student, pack_trees(trees, ONE_ROW))
    assert torch.allclose(in_order(logits, trees), expected_logits, atol=1e-4)
    assert worst_difference(grads, expected_grads) < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_differs_by_rounding_alone(family):
    """Both sides in bfloat16: as far from float32 as each other, within 2 % of every logit's spread."""
    student = FAMILIES[family]()
    trees = make_trees(student, CASES["space dominates"])
    exact, _, _ = separate_run(student, trees)
    rows = pack_trees(trees, ONE_ROW)
    with torch.autocast("cpu", torch.bfloat16):
        logits, _, _ = packed_run(student, rows)
        theirs, _, _ = separate_run(student, trees)
    ours = in_order(logits, trees).float()
    rounding = (theirs.float() - exact).abs().max().item()
    assert 0 < (ours - exact).abs().max().item() < 2 * rounding
    assert (ours - exact).abs().mean() < 0.02 * exact.std()


def branches_see_each_other(row, monkeypatch):
    def causal(trees, places_TQ, begins, length):
        keys = torch.tensor([tree.start for tree in trees])[:, None, None] + torch.arange(length)
        return keys <= places_TQ[:, :, None]

    monkeypatch.setattr(tree_layout, "_visible", causal)
    return row


def positions_run_on(row, monkeypatch):
    """Every branch continues where the one before it ended."""
    positions = row.position_ids.clone()
    for tree in row.trees:
        start = positions[0, tree.prefix_end].clone()
        positions[:, tree.prefix_end : tree.end] = start + torch.arange(tree.end - tree.prefix_end)
    return replace(row, position_ids=positions)


@pytest.mark.parametrize("mistake", [branches_see_each_other, positions_run_on])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_comparison_notices_a_wrong_row(family, mistake, monkeypatch):
    student = FAMILIES[family]()
    trees = make_trees(student, CASES["space dominates"])
    (row,) = pack_trees(trees, ONE_ROW)
    assert_noticed(student, trees, (mistake(row, monkeypatch),))


# transformers 5.23 advances by the image axes alone, which shows only where time is the longer axis
@pytest.mark.parametrize("shift", [-29, 1], ids=["inside the video's time", "one late"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_comparison_notices_a_wrong_branch_start(family, shift):
    student = FAMILIES[family]()
    trees = make_trees(student, CASES["time dominates"])
    shifted = [replace(tree, branch_start=tree.branch_start + shift) for tree in trees]
    assert_noticed(student, trees, pack_trees(shifted, ONE_ROW))


def assert_noticed(student, trees, rows):
    logits, _, grads = packed_run(student, rows)
    expected_logits, _, expected_grads = separate_run(student, trees)
    assert (in_order(logits, trees) - expected_logits).abs().max() > 3e-3
    assert worst_difference(grads, expected_grads) > 3e-3


@pytest.mark.parametrize("heads", [(4, 4), (4, 2)], ids=["multi-head", "grouped"])
def test_tree_attention_is_attention_under_the_tree_mask(heads):
    student = make_student()
    (row,) = pack_trees(make_trees(student, CASES["odd frame count"]), ONE_ROW)
    layout = TreeLayout.of(row)
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, count, row.num_tokens, 16, generator=generator, dtype=torch.float64)
        for count in (heads[0], heads[1], heads[1])
    )
    ours, _ = tree_attention.clip_tree_attention(student, query, key, value, None, scaling=0.3, tree_layout=layout)
    dense = F.scaled_dot_product_attention(query, key, value, tree_mask(layout), scale=0.3, enable_gqa=True)
    assert torch.allclose(ours, dense.transpose(1, 2), atol=1e-12)


def test_a_token_sees_its_prefix_and_its_own_branch_alone():
    student = make_student()
    (row,) = pack_trees(make_trees(student, CASES["space dominates"]), ONE_ROW)
    mask = tree_mask(TreeLayout.of(row))
    tree_of = [number for number, tree in enumerate(row.trees) for _ in range(tree.end - tree.start)]
    branch_of = [-1] * row.num_tokens  # -1 in a prefix
    for number, span in enumerate(row.spans):
        branch_of[span.start : span.end] = [number] * (span.end - span.start)
    for query in range(0, row.num_tokens, 3):
        for key in range(row.num_tokens):
            same_tree = tree_of[query] == tree_of[key]
            expected = key <= query and same_tree and branch_of[key] in (-1, branch_of[query])
            assert mask[query, key] == expected, (query, key)


def test_think_traces_live_in_branches():
    """A long answer with its reasoning is supervised like any other and leaves the other branches alone."""
    student = make_student()
    with_trace = encoded(student, make_sample(branches=(*BRANCHES, THINK)))
    without = encoded(student, make_sample())
    logits, _, _ = packed_run(student, pack_trees([with_trace], ONE_ROW))
    expected, _, _ = packed_run(student, pack_trees([without], ONE_ROW))
    assert all(torch.allclose(logits[key], expected[key], atol=1e-5) for key in expected)
    assert len(logits[with_trace.clip_id, "think"]) > 20
