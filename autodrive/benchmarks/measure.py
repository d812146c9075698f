"""Time, memory and arithmetic, measured so that ratios hold on a machine that others use too."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

Step = Callable[[], float]
"""One unit of work; returns a number (a loss, a log-probability) that the variants must agree on."""

MATMUL_SIZE = {"cpu": 1536, "cuda": 8192}


def seconds(step: Step, device: torch.device) -> tuple[float, float]:
    """Cost of one step, and what it returned: processor seconds on a CPU, wall seconds of a finished step on a GPU."""
    if device.type == "cpu":
        began = time.process_time()
        value = step()
        return time.process_time() - began, value
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    value = step()
    torch.cuda.synchronize(device)
    return time.perf_counter() - began, value


def time_alternately(
    steps: Mapping[str, Step], repeats: int, device: torch.device, tolerance: float = 1e-3
) -> dict[str, float]:
    """Median cost of each step, taken in turns so that whatever else the machine does falls on all of them.

    Every step runs once before anything counts.

    Raises:
        RuntimeError: The steps do not return the same number; they did not do the same work.
    """
    values = {name: step() for name, step in steps.items()}
    first = next(iter(values.values()))
    if any(abs(value - first) > tolerance * max(1.0, abs(first)) for value in values.values()):
        raise RuntimeError(f"the variants disagree: {values}")
    costs: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            costs[name].append(seconds(step, device)[0])
    return {name: statistics.median(found) for name, found in costs.items()}


def peak_memory_mb(build: Callable[..., Step], *arguments: Any, device: torch.device) -> float | None:
    """Memory that a step takes above what lay there before it, measured in a process of its own.

    Args:
        build: Function that makes the step; importable by name, so that another process can call it.
        arguments: Arguments that `build` is called with.
        device: Device that the step runs on.

    Returns:
        Megabytes, or None where the system does not tell.
    """
    # A fork server imports the libraries once and then forks a fresh process for every measurement.
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        multiprocessing.set_forkserver_preload([build.__module__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_peak_in_this_process, build, arguments, device).result()


def _peak_in_this_process(build: Callable[..., Step], arguments: tuple, device: torch.device) -> float | None:
    step = build(*arguments)
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    before_kb = _reset_resident_peak()
    if before_kb is None:
        return None
    step()
    return (_resident_kb("VmHWM") - before_kb) / 1024


def _reset_resident_peak() -> int | None:
    """Resident kilobytes now, from where Linux counts the peak on."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _resident_kb("VmRSS")
    except OSError:
        return None


def _resident_kb(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")


def count_flops(step: Step) -> float:
    """Floating-point operations of a step as its matrix products and attention calls have them."""
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def matmul_flops_per_s(device: torch.device, dtype: torch.dtype, repeats: int = 5) -> float:
    """The rate this machine reaches in a large square matrix product: what a floor is computed from."""
    size = MATMUL_SIZE.get(device.type, 1024)
    one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def step() -> float:
        torch.mm(one, other)
        return 0.0

    step()
    return 2 * size**3 / min(seconds(step, device)[0] for _ in range(repeats))


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {"device": name, "torch_threads": torch.get_num_threads(), "torch": torch.__version__}
