"""What a run was made of and what it cost: `provenance.json`."""

import importlib.metadata
import json
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from autodrive.runs.folder import RunFiles
from autodrive.whole_files import whole

PACKAGES = ("vlm-autodrive", "torch", "transformers", "lightning", "av", "numpy", "tokenizers", "hydra-core")


def collect_provenance() -> dict[str, Any]:
    """Code, packages and machine; nothing secret, no environment variables."""
    return {
        "git_commit": git_commit(Path(__file__).resolve().parents[2]),
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def peak_memory_mb() -> float:
    """The most memory that this process has held so far, and the largest of its finished children, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, kilobytes elsewhere


def cpu_seconds() -> float:
    """Processor time of this process and of its finished children so far, user and system."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def git_commit(folder: Path) -> str | None:
    """The checked-out commit, with "-dirty" if tracked files differ; None outside a checkout."""
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def write_provenance(run_dir: Path, facts: dict[str, Any]) -> None:
    """Write `provenance.json` with the collected facts and the run's own."""
    text = json.dumps(collect_provenance() | facts, indent=2, sort_keys=True)
    with whole(RunFiles(run_dir).provenance) as partial:
        partial.write_text(text + "\n")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
