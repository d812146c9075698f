"""Option scoring and generation against plain loops over transformers' own model."""

import copy
import warnings
from dataclasses import replace

import pytest
import torch
from student_samples import (
    AFTER,
    BEFORE,
    BRANCHES,
    CONVERSATION,
    FAMILIES,
    encoded,
    make_sample,
    one_turn,
    plain_logits,
)

from autodrive.trees.packing import pack_trees

NESTED = one_turn("nested", "Near?", None, ("near", "near collision"))


@pytest.fixture(scope="module", params=FAMILIES)
def student(request):
    return FAMILIES[request.param]()


@pytest.fixture(scope="module")
def trees(student):
    talk = make_sample(num_frames=4, branches=(CONVERSATION,), seed=1)
    samples = [make_sample(branches=(*BRANCHES, NESTED)), replace(talk, prefix=(BEFORE, *talk.prefix, AFTER))]
    return [encoded(student, sample) for sample in samples]


@pytest.fixture(scope="module")
def row(trees):
    return pack_trees(trees, 10**6)[0]


def plain_scores(student, tree, branch) -> list[float]:
    """One forward pass per option over the whole sequence."""
    model = student.stock_model()
    scores = []
    for option in branch.option_ids:
        prompt = branch.asked().ids
        logits = plain_logits(model, student, tree, prompt + list(option))[len(prompt) - 1 : -1]
        scores.append(logits.log_softmax(-1).gather(1, torch.tensor(option)[:, None]).sum().item())
    return scores


def test_option_scores_equal_one_forward_per_option(student, trees, row):
    scores = student.prefill(row).score_options()
    branches = [(tree, branch) for tree in trees for branch in tree.branches]
    assert [len(score) for score in scores] == [3, 3, 0, 2, 3]
    for ours, (tree, branch) in zip(scores, branches, strict=True):
        assert list(ours) == pytest.approx(plain_scores(student, tree, branch), abs=1e-3)


def test_users_see_no_warning_of_transformers_own_changes(student, row):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        prefilled = student.prefill(row)
        prefilled.score_options()
        prefilled.generate([3] * len(row.spans))
        trained = copy.deepcopy(student)
        trained.checkpoint_activations()
        trained.supervised_logits(row).sum().backward()


def test_several_tokens_are_really_scored(trees):
    assert max(len(option) for option in trees[0].branches[1].option_ids) > 1


def test_everything_comes_from_one_pass_over_the_clip(student, row):
    """One vision pass, one pass over the row, one for the options' further tokens, one for each generated token."""
    passes, visual = [], []
    handles = [
        student.text_model.register_forward_hook(lambda *_: passes.append(1)),
        student.vision.register_forward_hook(lambda *_: visual.append(1)),
    ]
    prefilled = student.prefill(row)
    assert (len(passes), len(visual)) == (1, 1)
    prefilled.score_options()
    assert len(passes) == 2
    prefilled.generate([4] * len(row.spans))
    assert len(passes) <= 2 + 3
    assert len(visual) == 1
    for handle in handles:
        handle.remove()


def test_scoring_and_generating_do_not_disturb_each_other(student, row):
    prefilled, other = student.prefill(row), student.prefill(row)
    limits = [6] * len(row.spans)
    first = (prefilled.score_options(), prefilled.generate(limits), prefilled.score_options())
    second = (other.generate(limits), other.score_options(), other.generate(limits))
    assert first[0] == first[2] == second[1]
    assert first[1] == second[0] == second[2]


def test_every_answer_has_its_own_limit(student, row):
    longest = student.prefill(row).generate([6] * 5)
    assert max(len(answer.ids) for answer in longest) > 2
    limited = student.prefill(row).generate([6, 2, 0, 1, 6])
    limits = [6, 2, 0, 1, 6]
    assert [a.ids for a in limited] == [a.ids[:limit] for a, limit in zip(longest, limits, strict=True)]
    assert [a.finished for a in limited] == [
        a.finished and len(a.ids) < limit for a, limit in zip(longest, limits, strict=True)
    ]


def test_an_option_that_begins_another_is_scored_with_its_end(student, trees):
    end = student.processor.end_id
    assert [option[-1] for option in trees[0].branches[3].option_ids] == [end, end]
    assert all(end not in option for option in trees[0].branches[0].option_ids)


def test_scores_do_not_depend_on_the_answer_in_the_batch(student, trees):
    unanswered = [replace(tree, branches=tuple(branch.asked() for branch in tree.branches)) for tree in trees]
    with_answers = student.prefill(pack_trees(trees, 10**6)[0]).score_options()
    without = student.prefill(pack_trees(unanswered, 10**6)[0]).score_options()
    for one, other in zip(with_answers, without, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_first_token_log_probs_agree_with_single_token_options(student, row):
    prefilled = student.prefill(row)
    assert prefilled.log_probs.shape[0] == len(row.spans)
    letters = [option[0] for option in row.spans[0].option_ids]
    assert prefilled.log_probs[0, letters].tolist() == pytest.approx(prefilled.score_options()[0], abs=1e-4)


def plain_generation(student, tree, branch, max_new_tokens) -> list[int]:
    """Greedy, recomputing the whole sequence for every token."""
    model = student.stock_model()
    ids = branch.asked().ids
    for _ in range(max_new_tokens):
        token = int(plain_logits(model, student, tree, ids)[-1].argmax())
        if token == student.processor.end_id:
            break
        ids.append(token)
    return ids[len(branch.asked().ids) :]


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "changes"),
    [*((family, {}) for family in FAMILIES), ("qwen2_5_vl", {"position_mode": "real_time"})],
    ids=[*FAMILIES, "qwen2_5_vl real time"],
)
def test_every_branch_generates_what_it_would_alone(family, changes):
    student = FAMILIES[family](seed=3, **changes)
    talk = make_sample(num_frames=6, branches=(BRANCHES[0], CONVERSATION), seed=1)
    samples = [
        make_sample(num_frames=20, height=28, width=28),
        replace(talk, prefix=(BEFORE, *talk.prefix, AFTER)),
        make_sample(num_frames=5, branches=BRANCHES[1:], seed=2),
    ]
    trees = [encoded(student, sample) for sample in samples]
    (row,) = pack_trees(trees, 10**6)
    answers = student.prefill(row).generate([8] * len(row.spans))
    branches = [(tree, branch) for tree in trees for branch in tree.branches]
    assert [answer.ids for answer in answers] == [
        plain_generation(student, tree, branch, 8) for tree, branch in branches
    ]
    assert all(answer.finished == (len(answer.ids) < 8) for answer in answers)
    assert len({tuple(answer.ids) for answer in answers}) > 1


@torch.no_grad()
def test_generation_stops_at_the_end_of_the_turn(student, row):
    """A head that prefers the end token by far ends every answer at once."""
    ending = copy.deepcopy(student)
    ending.head.register_forward_hook(
        lambda _module, _inputs, logits: logits.index_add(
            -1, torch.tensor([ending.processor.end_id]), torch.full((*logits.shape[:-1], 1), 1e4)
        )
    )
    calls = []
    ending.text_model.register_forward_hook(lambda *_: calls.append(1))
    assert ending.prefill(row).generate([50] * 5) == [([], True)] * 5
    assert len(calls) == 1


def test_the_first_generated_token_is_the_most_probable_one(student, row):
    prefilled = student.prefill(row)
    first = prefilled.log_probs.argmax(-1).tolist()
    end = student.processor.end_id
    assert prefilled.generate([1] * 5) == [([], True) if token == end else ([token], False) for token in first]
