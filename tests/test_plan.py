"""`python -m autodrive.plan`: what it prints and writes, where its values come from, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from running import composed, run

from autodrive.entry_point import CommandLine
from autodrive.plan import at_its_scale, build_plan
from autodrive.students.resolution import solve_resolution

WIDTH = 100


def planned(out: Path, *arguments: str, code: int = 0) -> dict:
    assert run("plan", *arguments, f"out={out / 'plan.json'}") == code
    return json.loads((out / "plan.json").read_text())


def test_a_7b_s_plan_takes_seconds_no_network_and_little_memory(repository: Path, tmp_path: Path):
    out = tmp_path / "plan.json"
    arguments = ["student=qwen2_5_vl_7b", "adapter=dora", "rank=32", "fps=30", "duration_s=6", "resolution=128x32"]
    arguments.append("workload.annotations_per_visit=5.1")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty"), "COLUMNS": str(WIDTH)}
    command = [sys.executable, "-m", "autodrive.plan", *arguments, f"out={out}"]
    output = tmp_path / "stdout", tmp_path / "stderr"
    with output[0].open("w") as stdout, output[1].open("w") as stderr:
        process = subprocess.Popen(command, cwd=repository, env=environment, stdout=stdout, stderr=stderr)
        _, status, used = os.wait4(process.pid, 0)  # of this process alone; `RUSAGE_CHILDREN` has the largest so far
        process.returncode = os.waitstatus_to_exitcode(status)
    printed, complained = (path.read_text() for path in output)
    assert (process.returncode, complained) == (0, "")
    assert used.ru_maxrss < 1.5 * 2**20  # kilobytes
    # Ten seconds on cores of its own; the other worker takes its part of what two cores share.
    assert used.ru_utime + used.ru_stime < 20
    assert max(map(len, printed.splitlines())) <= WIDTH
    for figure in ("82,130,944", "8,292,166,656", "10,800", "11,520", "estimate"):
        assert figure in printed
    plan = json.loads(out.read_text())
    assert plan["parameters"]["language"] == {"trained": 82_130_944, "frozen": 7_615_616_512}
    assert plan["tokens"]["visual_per_clip"] == 90 * 8 * 15
    assert plan["settled_gib"] == pytest.approx(15.4 + 1.2, abs=0.1)
    assert set(plan["estimated"]) == {"activations", "context"}
    assert plan["fits"]
    assert plan["source"].startswith("config.json of Qwen/Qwen2.5-VL-7B-Instruct")
    assert plan["needed_gib"] == pytest.approx(sum(plan["device_gib"].values()))
    step, epoch = plan["operations"]["step"], plan["operations"]["epoch"]
    assert step["without_trees"] / step["trees"] == pytest.approx(4.94, abs=0.1)
    assert epoch["trees"] == pytest.approx(step["trees"] / 8 * 68_000)


def test_what_does_not_fit_ends_with_2_and_says_what_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    plan = planned(tmp_path, "student=qwen2_5_vl_7b", code=2)
    assert plan["settled_gib"] == pytest.approx(123.6, abs=0.05)
    assert not plan["fits"]
    assert plan["would_fit"]["adapter=dora rank=16"] < 80
    assert "strategy=fsdp trainer.devices=2" not in plan["would_fit"]  # 62 GiB of states, and much beside them
    # A part of what is settled, the copies, the largest layer and what lies outside of layers, activations and context.
    beside = 14.4 + 5.2 + 12.4
    assert plan["would_fit"]["strategy=fsdp trainer.devices=4"] == pytest.approx(123.6 / 4 + beside, abs=1)
    captured = capsys.readouterr()
    assert "does not fit in 80 GiB" in captured.out
    assert captured.err.startswith("error: gpu_memory_gib=80: student=qwen2_5_vl_7b adapter=full needs ")
    assert captured.err.endswith("123.6 of them before activations; give adapter=dora rank=16\n")


def test_a_student_from_scratch_takes_a_laptop_s_values_unless_they_are_given(tmp_path: Path):
    tiny = planned(tmp_path, "student=tiny_qwen2_5_vl", "batch_size=6")
    assert (tiny["config"]["scale"], tiny["config"]["fps"], tiny["config"]["batch_size"]) == ("tiny", 15, 6)
    assert tiny["tokens"]["visual_per_clip"] == 60
    assert tiny["workload"]["annotations_per_visit"] == 2  # of conf/mixture/uniform.yaml
    assert (
        tiny["operations"]["training"]["trees"]
        == tiny["operations"]["visit"]["trees"] * 6 * tiny["config"]["num_steps"]
    )
    assert composed("plan", ["experiment=trinci_dora"]).rank == 32
    for overrides in (["student=tiny_qwen2_5_vl", "scale=paper"], ["student=qwen2_5_vl_3b"]):
        config = at_its_scale(composed("plan", overrides), CommandLine(overrides, {}))
        assert (config.scale, config.fps, config.workload.visits_per_epoch) == ("paper", 30, 68_000)


def test_resolution_and_weights_in_4_bits_are_those_of_training():
    overrides = ["student=qwen2_5_vl_3b", "resolution=auto", "tokens_per_clip=5000", "adapter=qdora", "rank=16"]
    plan = build_plan(composed("plan", overrides))
    resolution, most = solve_resolution(180, 5000, frames_per_group=2)
    assert plan.most_visual_tokens == most <= 5000
    assert plan.visit.video.rows * plan.visit.video.columns <= resolution.max_tokens
    assert plan.visits_per_row == int(16_384 // plan.visit.tokens) > 1
    trained = sum(count.trained for count in plan.parameters.values())
    base = sum(count.frozen for count in plan.parameters.values())
    assert (trained, base) == (30_965_760, 3_754_622_976)
    packed = 36 * (2 * 2048 * 2048 + 2 * 2048 * 256 + 3 * 2048 * 11008)  # values of the language model's layers
    # Half a byte a value, a byte for 64 of them that scales them, and four for 256 of those.
    expected = packed * (0.5 + 1 / 64 + 4 / 64 / 256) + (base - packed) * 2 + trained * 4
    assert plan.fixed.weights == pytest.approx(expected, rel=1e-6)


def test_a_strategy_says_what_a_device_holds(tmp_path: Path):
    """GiB of 3B with AdamW: 14.0 of weights, as much of gradients, twice that of states, of eight devices a part."""
    held = {}
    for strategy in ("ddp", "deepspeed_zero2", "deepspeed_zero3", "fsdp"):
        arguments = ["student=qwen2_5_vl_3b", f"strategy={strategy}", "trainer.devices=4", "trainer.num_nodes=2"]
        plan = planned(tmp_path, *arguments)
        assert plan["devices"]["number"] == 8
        held[strategy] = plan["device_gib"]
    weights = 3_754_622_976 * 4 / 2**30
    names = ("weights", "gradients", "optimizer")
    eighths = {"ddp": (8, 8, 16), "deepspeed_zero2": (8, 1, 3), "deepspeed_zero3": (1, 1, 3), "fsdp": (1, 1, 2)}
    for strategy, expected in eighths.items():
        found = [held[strategy][name] / weights * 8 for name in names]
        assert found == pytest.approx(expected, rel=1e-3), strategy
        assert ("gathered" in held[strategy]) == (expected[0] == 1)
    assert len({held[strategy]["copies"] for strategy in eighths}) == 1


@pytest.mark.parametrize(("student", "per_frame"), [("nvila_8b", 257), ("nvila_lite_2b", 122)])
def test_a_student_with_frames_of_one_size_sees_eight_of_a_clip(
    student: str, per_frame: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    plan = planned(tmp_path, f"student={student}", "duration_s=6", "gpu_memory_gib=200")
    assert plan["config"]["fps"] is None
    assert plan["tokens"]["visual_per_clip"] == plan["tokens"]["most_visual_per_clip"] == 8 * (per_frame - 1)
    assert plan["tokens"]["per_visit"] == 8 * per_frame + 40 + 2 * 80
    assert plan["remarks"][0].startswith("num_frames=8: spread evenly over every clip")
    shown = " ".join(capsys.readouterr().out.split())
    assert f"8 frames of {per_frame} tokens each" in shown
    assert "reconstructed" in shown
    assert plan["operations"]["visit"]["without_trees"] > 1.5 * plan["operations"]["visit"]["trees"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["student_from=runs/a"], "student_from=runs/a: a plan reads no run"),
        (["trainer.devices=auto"], "trainer.devices=auto: a plan is for devices that are elsewhere"),
        (["trainer.devices=8"], "trainer.devices=8: strategy=single is for one device"),
        (["student.checkpoint=nobody/nothing"], "student.checkpoint=nobody/nothing: cannot be read"),
        (["student=qwen2_5_vl_3b", "scale=tiny"], "scale=tiny sets a laptop's frame rate"),
    ],
)
def test_wrong_input_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert run("plan", *arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {said}") or said in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
