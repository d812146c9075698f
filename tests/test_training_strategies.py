"""Two processes take the steps that one takes, and one goes on where two stopped, and two where one did."""

import importlib.util
from typing import Any

import pytest
from rank_tasks import train_and_compare

from autodrive.ranks.launching import run_ranks

TORCHS, DEEPSPEEDS = ("ddp", "fsdp"), ("deepspeed_zero2", "deepspeed_zero3")
SHARDED = ("fsdp", "deepspeed_zero3")
CLOSE = 1e-5  # relative, per tensor


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What tests/two_processes.py found, by strategy: real processes, gloo, two rows and more on each."""
    strategies = TORCHS + (DEEPSPEEDS if importlib.util.find_spec("deepspeed") else ())
    return run_ranks(train_and_compare, (strategies, tmp_path_factory.mktemp("two_processes")), 2)


@pytest.fixture(params=TORCHS + DEEPSPEEDS)
def strategy(request: pytest.FixtureRequest) -> str:
    if request.param in DEEPSPEEDS and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed: DS_BUILD_OPS=0 pip install deepspeed")
    return request.param


def far(differences: dict[str, float]) -> dict[str, float]:
    assert differences
    return {name: value for name, value in differences.items() if not value <= CLOSE}


@pytest.mark.parametrize("tuning", ["full", "dora", "tied"])
def test_two_processes_take_the_steps_of_one(results: dict[str, Any], strategy: str, tuning: str):
    found = results[strategy][tuning]
    alone, ranks = found["alone"], found["ranks"]
    assert not far(found["gradients"])
    assert not far(found["weights"])
    for rank in ranks:
        assert rank["loss"] == pytest.approx(alone["loss"], rel=CLOSE)
        assert rank["gradient_norm"] == pytest.approx(alone["gradient_norm"], rel=CLOSE)
    assert min(alone["gradient_norm"]) > 1, "clipping to 0.5 was put to work"
    first, second = ranks
    assert first["rows"] == second["rows"], "as many forward passes on each"
    assert sum(first["fillers"] + second["fillers"]) > 0, "rows were uneven"
    shares = list(zip(first["clips"], second["clips"], strict=True))
    assert any(set(one) != {*one, *other} for one, other in shares), "each decodes its own share only"
    for one, other, everything in zip(first["clips"], second["clips"], alone["clips"], strict=True):
        assert sorted({*one, *other}) == everything
    assert [rank["unread"] for rank in ranks] == [False, strategy == "fsdp"], "weights are read once and handed on"
    assert [rank["shard"] for rank in ranks] == ([0.5, 0.5] if strategy in SHARDED else [1.0, 1.0])


def test_another_number_of_processes_goes_on_from_a_checkpoint(results: dict[str, Any], strategy: str):
    """One process's checkpoint after a step in two, and the two's after two steps in one."""
    assert not far(results[strategy][f"{strategy}_resumed_3"])
    assert not far(results[strategy][f"after_{strategy}_3"])


def test_every_process_writes_its_part_of_a_large_checkpoint(results: dict[str, Any]):
    """And reads it again; that what one process goes on from was in parts, the test above shows."""
    found = results["fsdp"]
    assert not far(found["fsdp_again_3"])
    one, other = found["parts"]
    assert one == pytest.approx(other, rel=0.2)
    assert found["file"] < 0.1 * (one + other), "the file has no large tensor"
    assert "fsdp_full_3-3.parts" in found["folders"]
    assert not [name for name in found["folders"] if name.startswith("fsdp_dora_")], "an adapter fits one file"
