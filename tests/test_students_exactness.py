"""A clip tree computes what separate sequences through transformers' own model compute, gradients included."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from student_samples import BRANCHES, make_sample, make_student, plain_target_logits, stock_model

from autodrive.students.collation import collate_trees

CASES = {
    "space dominates": {"num_frames": 4, "height": 84, "width": 112, "fps": 2.0},
    "time dominates": {"num_frames": 30, "height": 28, "width": 28, "fps": 2.0},
    "odd frame count": {"num_frames": 7, "height": 56, "width": 56, "fps": 4.0},
}


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def worst_difference(ours, theirs) -> float:
    """Largest per-tensor gradient difference, relative to the tensor's norm."""
    assert ours.keys() == theirs.keys()
    return max(((ours[name] - theirs[name]).norm() / theirs[name].norm()).item() for name in ours)


def separate_run(student, trees):
    """Logits and gradients of every branch alone: mean over annotations of the mean over target tokens."""
    model = stock_model(student)
    branches = [(tree, branch) for tree in trees for branch in tree.branches]
    logits, losses = [], []
    for tree, branch in branches:
        logits.append(plain_target_logits(model, student, tree, branch))
        losses.append(F.cross_entropy(logits[-1], torch.tensor(branch.target_ids)))
    loss = torch.stack(losses).mean()
    loss.backward()
    return torch.cat(logits).detach(), loss.item(), gradients(model)


def tree_run(student, batch):
    student.zero_grad()
    logits = student.supervised_logits(batch)
    loss = (F.cross_entropy(logits, batch.target_ids, reduction="none") * batch.target_weights).sum()
    loss.backward()
    return logits.detach(), loss.item(), gradients(student.model)


def make_trees(student, case):
    """Two clips with another number of branches, so that rows are padded."""
    two = make_sample(**CASES[case], branches=BRANCHES[1:], seed=1)
    return [student.processor.encode(sample) for sample in (make_sample(**CASES[case]), two)]


@pytest.mark.parametrize("mode", ["reference", "real_time"])
@pytest.mark.parametrize("case", CASES)
def test_a_tree_equals_separate_sequences(case, mode):
    student = make_student(fps=CASES[case]["fps"], position_mode=mode)
    trees = make_trees(student, case)
    logits, loss, grads = tree_run(student, student.processor.collate(trees))
    expected_logits, expected_loss, expected_grads = separate_run(student, trees)
    assert logits.shape == expected_logits.shape
    assert torch.allclose(logits, expected_logits, atol=1e-4)
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    assert worst_difference(grads, expected_grads) < 1e-4


def branches_see_each_other(batch):
    length = batch.input_ids.shape[1]
    return replace(
        batch, attention_mask=torch.ones(length, length, dtype=torch.bool).tril().expand_as(batch.attention_mask)
    )


def positions_run_on(batch):
    """Every branch continues where the one before it ended."""
    positions = batch.position_ids.clone()
    for row, prefix in enumerate(batch.prefix_lengths):
        start = positions[0, row, prefix]
        positions[:, row, prefix:] = start + torch.arange(positions.shape[2] - prefix)
    return replace(batch, position_ids=positions)


@pytest.mark.parametrize("mistake", [branches_see_each_other, positions_run_on])
def test_the_comparison_notices_a_wrong_tree(mistake):
    student = make_student()
    trees = make_trees(student, "space dominates")
    logits, _, grads = tree_run(student, mistake(student.processor.collate(trees)))
    expected_logits, _, expected_grads = separate_run(student, trees)
    assert (logits - expected_logits).abs().max() > 1e-2
    assert worst_difference(grads, expected_grads) > 1e-2


def test_the_comparison_notices_text_that_starts_inside_the_videos_time():
    """transformers 5.23 advances by the image axes alone; it shows only where time is the longer axis."""
    student = make_student(fps=2.0)
    trees = make_trees(student, "time dominates")
    early = [replace(tree, branch_start=tree.branch_start - 29) for tree in trees]
    logits, _, grads = tree_run(student, student.processor.collate(early))
    expected_logits, _, expected_grads = separate_run(student, trees)
    assert (logits - expected_logits).abs().max() > 1e-2
    assert worst_difference(grads, expected_grads) > 1e-2


def test_loss_weights_are_a_mean_over_annotations_of_means_over_tokens():
    student = make_student()
    batch = student.processor.collate([student.processor.encode(make_sample())])
    assert batch.target_weights.sum().item() == pytest.approx(1)
    start = 0
    for span in batch.spans:
        count = span.end - span.target_start
        assert batch.target_weights[start : start + count].sum().item() == pytest.approx(1 / 3)
        start += count


def test_branches_without_a_target_are_not_supervised():
    student = make_student()
    unanswered = tuple(replace(branch, target=None) for branch in BRANCHES)
    batch = student.processor.collate([student.processor.encode(make_sample(branches=unanswered))])
    assert batch.source_positions.shape == (0, 2)
    assert batch.target_weights.numel() == 0
    assert len(batch.spans) == 3


def test_every_source_position_is_followed_by_its_target():
    student = make_student()
    batch = student.processor.collate(make_trees(student, "space dominates"))
    rows, columns = batch.source_positions.T
    assert torch.equal(batch.input_ids[rows, columns + 1], batch.target_ids)


def test_padding_changes_nothing():
    student = make_student()
    long, short = make_trees(student, "space dominates")
    alone = student.supervised_logits(student.processor.collate([short]))
    together = student.supervised_logits(student.processor.collate([long, short]))[-len(alone) :]
    assert torch.allclose(alone, together, atol=1e-4)
    batch = student.processor.collate([long, short])
    assert batch.attention_mask.any(-1).all()  # an empty row of the softmax is NaN in some attention kernels
    assert torch.isfinite(student.hidden_states(batch)).all()


def test_num_tokens_counts_no_padding():
    student = make_student()
    trees = make_trees(student, "space dominates")
    batch = collate_trees(trees, pad_id=0)
    lengths = [len(t.prefix_ids) + sum(len(b.prompt_ids) + len(b.target_ids) for b in t.branches) for t in trees]
    assert batch.num_tokens == sum(lengths)
    assert batch.input_ids.shape[1] == max(lengths)
