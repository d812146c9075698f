"""A student that torch shards (FSDP2) reads, scores and replies as it did whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from student_samples import FAMILIES, make_tied_student

VARIANTS = FAMILIES | {"qwen2_5_vl tied": make_tied_student}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_sharded_student_answers_as_a_whole_one(variant: str, repository: Path, tmp_path: Path):
    """In a process of its own: a process group is for life."""
    paths = [str(repository), str(repository / "tests")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, __file__, variant, str(tmp_path / "rendezvous")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def _compare(variant: str, rendezvous: str) -> None:
    import torch
    import torch.distributed as dist
    from student_samples import CONVERSATION, make_sample, pack_one
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor
    from transformers.modeling_layers import GradientCheckpointingLayer

    from autodrive.training.losses import weighted_cross_entropy

    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=0, world_size=1)
    mesh = dist.device_mesh.init_device_mesh("cpu", (1,))

    def sharded():
        student = VARIANTS[variant]()
        for layer in [m for m in student.modules() if isinstance(m, GradientCheckpointingLayer)]:
            fully_shard(layer, mesh=mesh)
        # By default the root keeps its weights gathered, and what goes around its forward pass works just after one.
        fully_shard(student, mesh=mesh, reshard_after_forward=True)
        assert all(isinstance(parameter, DTensor) for parameter in student.parameters())
        return student

    whole = VARIANTS[variant]()
    row = pack_one(whole, make_sample(), make_sample(branches=(CONVERSATION,), num_frames=4, seed=1))
    limits = [6] * len(row.spans)

    def answers(student):
        prefilled = student.prefill(row)
        return prefilled.score_options(), prefilled.generate(limits)

    def loss_of(student):
        return weighted_cross_entropy(student.supervised_logits(row), row.target_ids, row.target_weights)

    expected = answers(whole)
    assert answers(sharded()) == expected, "the first thing after sharding"
    with torch.inference_mode():
        assert answers(sharded()) == expected, "as evaluation asks"
    student = sharded()
    losses = [loss_of(one) for one in (student, whole)]
    assert torch.equal(*(loss.detach() for loss in losses))
    for loss in losses:
        loss.backward()
    for (name, ours), theirs in zip(student.named_parameters(), whole.parameters(), strict=True):
        if theirs.grad is not None:
            assert isinstance(ours.grad, DTensor)
            assert torch.allclose(ours.grad.full_tensor(), theirs.grad, atol=1e-6), name
    assert answers(student) == expected, "after a training step's passes"
    dist.destroy_process_group()


if __name__ == "__main__":
    _compare(*sys.argv[1:])
