"""A student that torch shards (FSDP2) reads, scores and replies as it did whole."""

from collections.abc import Callable, Iterator, Mapping

import pytest
import torch
import torch.distributed as dist
from student_samples import CONVERSATION, FAMILIES, make_sample, make_tied_student, pack_one
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from autodrive.students.sharding import shard
from autodrive.students.student import Student
from autodrive.training.losses import weighted_cross_entropy

VARIANTS: Mapping[str, Callable[[], Student]] = FAMILIES | {"qwen2_5_vl tied": make_tied_student}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceMesh]:
    """A process group of this process alone."""
    rendezvous = tmp_path_factory.mktemp("group") / "rendezvous"
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def sharded(variant: str, mesh: DeviceMesh) -> Student:
    student = VARIANTS[variant]()
    shard(student, mesh)
    assert all(isinstance(parameter, DTensor) for parameter in student.parameters())
    return student


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_sharded_student_answers_as_a_whole_one(variant: str, mesh: DeviceMesh):
    whole = VARIANTS[variant]()
    row = pack_one(whole, make_sample(), make_sample(branches=(CONVERSATION,), num_frames=4, seed=1))
    limits = [6] * len(row.spans)

    def answers(student: Student):
        prefilled = student.prefill(row)
        return prefilled.score_options(), prefilled.generate(limits)

    def loss_of(student: Student):
        return weighted_cross_entropy(student.supervised_logits(row), row.target_ids, row.target_weights)

    expected = answers(whole)
    assert answers(sharded(variant, mesh)) == expected, "the first thing after sharding"
    with torch.inference_mode():
        assert answers(sharded(variant, mesh)) == expected, "as evaluation asks"
    student = sharded(variant, mesh)
    losses = [loss_of(one) for one in (student, whole)]
    assert torch.equal(*(loss.detach() for loss in losses))
    for loss in losses:
        loss.backward()
    for (name, ours), theirs in zip(student.named_parameters(), whole.parameters(), strict=True):
        if theirs.grad is not None:
            assert isinstance(ours.grad, DTensor)
            assert torch.allclose(ours.grad.full_tensor(), theirs.grad, atol=1e-6), name
    assert answers(student) == expected, "after a training step's passes"
