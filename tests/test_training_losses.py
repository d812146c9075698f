import math
from functools import partial
from itertools import pairwise
from typing import Any

import lightning as L
import pytest
import torch
from student_samples import make_sample, make_student, pack_one
from torch.nn.functional import log_softmax

from autodrive.ranks.group import Group
from autodrive.training.losses import weighted_cross_entropy
from autodrive.training.schedules import validation_interval, warmup_cosine
from autodrive.training.sft import Steps, SupervisedFineTuning


def test_loss_is_the_weighted_sum_of_token_losses():
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 6, 3, 3, 1])
    weights = torch.tensor([0.5, 0.2, 0.1, 0.1, 0.1])
    by_hand = sum(-float(w) * float(log_softmax(row, 0)[t]) for row, t, w in zip(logits, targets, weights, strict=True))
    assert float(weighted_cross_entropy(logits, targets, weights)) == pytest.approx(by_hand, rel=1e-6)


def test_loss_is_computed_in_float32():
    logits = torch.tensor([[60.0, 0.0]], dtype=torch.bfloat16, requires_grad=True)
    loss = weighted_cross_entropy(logits, torch.tensor([1]), torch.ones(1))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(60.0)


def test_learning_rate_warms_up_and_falls_to_its_final_share():
    factors = [warmup_cosine(step, 100, 0.1, 0.05) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1
    assert all(later <= earlier for earlier, later in pairwise(factors[10:]))
    assert factors[55] == pytest.approx(0.05 + 0.95 / 2)
    assert factors[100] == pytest.approx(0.05)


def test_a_schedule_of_one_step_is_defined():
    assert warmup_cosine(0, 1, 0.0, 0.1) == 1
    assert math.isclose(warmup_cosine(5, 1, 0.0, 0.1), 0.1)


@pytest.mark.parametrize(
    ("num_steps", "longest", "interval"),
    [(300, 50, 50), (120, 50, 40), (8, 50, 8), (1, 50, 1), (101, 50, 33), (7, 4, 3)],
)
def test_validations_are_spread_over_the_training(num_steps: int, longest: int, interval: int):
    assert validation_interval(num_steps, longest) == interval
    count, after = divmod(num_steps, interval)
    assert interval <= longest
    assert count >= 1
    assert after < count or after == 0


def test_a_step_is_no_longer_than_the_clipped_gradient(tmp_path):
    """Plain descent with lr 1 moves the weights by the gradient itself."""
    student = make_student()
    before = [parameter.detach().clone() for parameter in student.parameters()]
    descent = partial(torch.optim.SGD, lr=1.0)
    method = SupervisedFineTuning(student, Steps(descent, lambda step: 1.0), 1e-3, gradient_checkpointing=False)
    row = pack_one(student, make_sample())
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(max_steps=1, accelerator="cpu", default_root_dir=tmp_path, enable_model_summary=False, **quiet)
    trainer.fit(method, torch.utils.data.DataLoader([row], batch_size=None, collate_fn=lambda one: [one]))  # type: ignore[arg-type]
    moved = torch.cat([(new - old).flatten() for new, old in zip(student.parameters(), before, strict=True)])
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-3)


def test_norms_biases_and_embeddings_are_not_decayed():
    """With all gradients 0, only decay moves a weight."""
    student = make_student()
    before = {name: parameter.detach().clone() for name, parameter in student.named_parameters()}
    adamw = partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5)
    method = SupervisedFineTuning(student, Steps(adamw, lambda step: 1.0), 1.0, gradient_checkpointing=False)
    for parameter in student.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = method.configure_optimizers()["optimizer"]
    optimizer.step()
    kept = {name for name, parameter in student.named_parameters() if torch.equal(parameter, before[name])}
    vectors = {name for name, parameter in before.items() if parameter.ndim < 2}
    embeddings = {name for name in before if "embed_tokens" in name}
    assert len(vectors) > 10
    assert len(embeddings) == 1
    assert kept == vectors | embeddings


def test_every_process_and_step_draws_dropout_of_its_own():
    student = make_student()

    def drawn(rank: int, seed: int = 0) -> torch.Tensor:
        steps = Steps(torch.optim.SGD, lambda step: 1.0, seed=seed, group=Group(rank, 2))
        with SupervisedFineTuning(student, steps, 1.0, False)._randomness_of_step():
            return torch.nn.functional.dropout(torch.ones(64), 0.5)

    assert torch.equal(drawn(0), drawn(0)), "a resumed run draws the same"
    assert not torch.equal(drawn(0), drawn(1))
    assert not torch.equal(drawn(0), drawn(0, seed=1))
