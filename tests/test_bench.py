"""`python -m autodrive.bench`: the keys that outsiders read, variants that did the same work, and wrong input."""

import json
from pathlib import Path

import pytest
import torch
from running import run

from autodrive.bench import ratios
from autodrive.benchmarks.measure import time_alternately
from autodrive.benchmarks.mixture import evaluation_benchmark
from autodrive.benchmarks.trees import TRAINING
from autodrive.benchmarks.workload import TreeSize
from autodrive.students.nvila_recipes import TinyNvila
from autodrive.students.qwen_tiny import TinyQwen3VL
from autodrive.students.recipe import StudentSpec

CPU = torch.device("cpu")
SMALL = {"vision_layers": 1, "vision_width": 64, "vision_heads": 2, "vision_mlp": 64, "text_layers": 1}
SMALL |= {"text_width": 64, "text_heads": 2, "text_kv_heads": 1, "text_mlp": 128}
OVERRIDES = [*(f"student.{key}={value}" for key, value in SMALL.items()), "accelerator=cpu", "repeats=1"]


def bench(out: Path, *arguments: str) -> dict:
    assert run("bench", *OVERRIDES, f"out={out / 'bench.json'}", *arguments) == 0
    return json.loads((out / "bench.json").read_text())


def test_the_tree_benchmark_has_the_keys_that_outsiders_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Ratios of so small a model say little; that seven annotations on a long prefix gain is beyond doubt."""
    found = bench(tmp_path, "name=tree", "prefix_tokens=[310]", "branches=[1,4]")
    assert "times its floor" in " ".join(capsys.readouterr().err.split())
    main = ("train_vs_one_by_one", "train_vs_padded", "evaluate_options", "evaluate_questions")
    assert {f"{name}_speedup" for name in main} <= set(ratios(found))
    assert found["train_vs_one_by_one_speedup"] > 1.5
    assert found["evaluate_options_speedup"] > 3
    assert [point["annotations"] for point in found["curve"]] == [1, 4]
    assert found["predicted_speedup"] == pytest.approx(7 * 390 / (310 + 560))
    assert found["floor"]["measured_over_floor"] > 1
    assert found["machine"]["device"] == "CPU"
    if Path("/proc/self/clear_refs").exists():  # only Linux tells a process its peak memory
        assert found["peak_memory_share_of_padded"] < 0.6


def test_a_step_over_a_mixture_and_an_evaluation(tmp_path: Path):
    train = bench(tmp_path, "name=train", "prefix_tokens=[110]", "tokens_per_row=1000")
    assert (train["visits"], train["annotations"]) == (8, 41)
    assert train["rows"] > 1
    assert train["train_vs_one_by_one_speedup"] > 1.2
    evaluate = bench(tmp_path, "name=evaluate", "prefix_tokens=[110]")
    assert evaluate["evaluate_all_speedup"] > 3


def test_two_processes_are_timed_against_one(tmp_path: Path):
    """Rows so short that a step has many, so that both have some; the shares say where the rest goes."""
    found = bench(tmp_path, "name=ranks", "prefix_tokens=[110]", "tokens_per_row=1000")
    assert 2 * found["rows"]["each"] >= found["rows"]["alone"] > 2
    assert found["ranks_over_alone"] == pytest.approx(found["ranks_s"] / found["alone_s"])
    assert 0 < found["communication_share"] < 1
    assert 0 <= found["empty_rows_share"] < 0.3
    assert 1 <= found["imbalance"] < 1.3


def test_every_adapter_is_timed_against_full_fine_tuning_and_merged_weights(tmp_path: Path):
    found = bench(tmp_path, "name=adapters", "prefix_tokens=[110]", "rank=4")
    kinds = ("lora", "dora", "qlora", "qdora")
    assert set(ratios(found)) == {
        *(f"{kind}_train_vs_full_speedup" for kind in kinds),
        *(f"{kind}_replies_merged_vs_in_place_speedup" for kind in kinds),
    }
    sizes = found["parameters"]
    assert sizes["lora"]["trained"] < sizes["dora"]["trained"] < 0.2 * sizes["full"]["trained"]
    assert sizes["qlora"]["weight_bytes"] < sizes["lora"]["weight_bytes"]


@pytest.mark.parametrize("spec", [TinyQwen3VL("tiny3"), TinyNvila("squares", pooled_frames=2)], ids=lambda s: s.name)
def test_other_families_do_the_same_work_with_and_without_trees(spec: StudentSpec):
    """A step with trees, one by one and padded has one loss, and an evaluation asks `generate` for as many tokens."""
    size = TreeSize(130, 3, prompt_tokens=9, target_tokens=4)
    losses = {name: build(spec, size, False, CPU, torch.float32)() for name, build in TRAINING.items()}
    assert losses == pytest.approx(dict.fromkeys(TRAINING, losses["packed"]), abs=1e-4)
    assert evaluation_benchmark(spec, 130, 1, CPU, torch.float32)["evaluate_all_speedup"] > 1


def test_variants_that_differ_are_no_benchmark():
    with pytest.raises(RuntimeError, match="disagree"):
        time_alternately({"one": lambda: 1.0, "other": lambda: 1.1}, 1, CPU)


def test_the_median_is_of_every_step_in_turn():
    calls: list[str] = []

    def step(name: str) -> float:
        calls.append(name)
        return 1.0

    time_alternately({"a": lambda: step("a"), "b": lambda: step("b")}, 3, CPU)
    assert calls == ["a", "b"] * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["name=trees"], "name=trees: choose one of tree, train, adapters, ranks, evaluate, decode, loader, patchify"),
        (["name=tree", "dtype=float8"], "dtype=float8: choose one of float32, bfloat16"),
        (["name=tree", "repeats=0"], "repeats=0: must be greater than or equal to 1"),
        (["name=tree", "prefix_tokens=[60]"], "prefix_tokens=60: a group of frames of student=benchmark takes 100"),
        (["name=loader", "video=/nowhere.mp4"], "video=/nowhere.mp4: no such file"),
    ],
)
def test_wrong_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert run("bench", *arguments) == 2
    assert message in capsys.readouterr().err
