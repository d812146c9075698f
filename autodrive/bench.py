"""Measures our own parts against what one would run instead, in the same process on the same work.

python -m autodrive.bench name=tree                 clip trees against a sequence per annotation
python -m autodrive.bench name=loader video=a.mp4   the frame cache against decoding every window
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from autodrive.benchmarks.adapters import adapter_benchmark
from autodrive.benchmarks.mixture import evaluation_benchmark, mixture_benchmark
from autodrive.benchmarks.ranks import ranks_benchmark
from autodrive.benchmarks.trees import tree_benchmark
from autodrive.benchmarks.video import decode_benchmark, loader_benchmark, patchify_benchmark
from autodrive.config import BenchConfig, check_config
from autodrive.entry_point import run_with_hydra
from autodrive.errors import InputError
from autodrive.runs.machine import device_of, quiet_libraries
from autodrive.students.student import DTYPES


def bench(config: DictConfig) -> dict[str, Any]:
    """Run one benchmark, print its ratios, and write everything it measured to `out`.

    Raises:
        InputError: A value is wrong, or the video is missing.
    """
    check_config(config, BenchConfig)
    quiet_libraries()
    video = Path(config.video) if config.video else None
    if video is not None and not video.is_file():
        raise InputError(f"video={video}: no such file")
    model = {"spec": instantiate(config.student), "repeats": config.repeats, "device": device_of(config.accelerator)}
    model["dtype"] = DTYPES[config.dtype]
    prefixes = list(config.prefix_tokens)
    benchmarks = {
        "tree": lambda: tree_benchmark(prefix_tokens=prefixes, annotations=list(config.branches), **model),
        "train": lambda: mixture_benchmark(
            prefix_tokens=prefixes[-1],
            tokens_per_row=config.tokens_per_row,
            padded_batch_size=config.padded_batch_size,
            **model,
        ),
        "adapters": lambda: adapter_benchmark(
            rank=config.rank, prefix_tokens=prefixes[-1], tokens_per_row=config.tokens_per_row, **model
        ),
        "ranks": lambda: ranks_benchmark(prefix_tokens=prefixes[-1], tokens_per_row=config.tokens_per_row, **model),
        "evaluate": lambda: evaluation_benchmark(prefix_tokens=prefixes[-1], **model),
        "decode": lambda: decode_benchmark(video, config.repeats),
        "loader": lambda: loader_benchmark(video, config.repeats),
        "patchify": lambda: patchify_benchmark(config.repeats),
    }
    found = {"name": config.name, "repeats": config.repeats} | benchmarks[config.name]()
    _show(found)
    if config.out is not None:
        out = Path(config.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=2) + "\n")
    else:
        print(json.dumps(found, indent=2))
    return found


def ratios(found: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """All ratios against a competitor, at any depth, by their path."""
    collected: dict[str, float] = {}
    for key, value in found.items():
        if isinstance(value, Mapping):
            collected |= ratios(value, f"{prefix}{key}.")
        elif key.endswith("_speedup") and isinstance(value, int | float):
            collected[f"{prefix}{key}"] = float(value)
    return collected


def _show(found: Mapping[str, Any]) -> None:
    figures = ratios(found) or {name: value for name, value in found.items() if isinstance(value, float)}
    table = Table(title=f"{found['name']}, medians of {found['repeats']}", caption="_speedup: how many times faster")
    table.add_column("what", no_wrap=True)
    table.add_column("figure", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{value:.4g}")
    for point in found.get("curve", []):
        name = f"{point['annotations']} annotations on {point['prefix_tokens']} tokens"
        table.add_row(
            f"{name} (token counts: {point['predicted_speedup']:.2f})", f"{point['train_vs_one_by_one_speedup']:.2f}"
        )
    console = Console(stderr=True)
    console.print(table)
    if floor := found.get("floor"):
        console.print(
            f"packed training takes {floor['measured_over_floor']:.2f} times its floor, {floor['gflop']:.1f} GFLOP "
            f"at the {floor['matmul_gflop_per_s']:.0f} GFLOP/s of a large matrix product"
        )


def main() -> None:
    """Read the command line and bench."""
    run_with_hydra(bench, "bench")


if __name__ == "__main__":
    main()
