"""Workers that read, build and evict at once: none waits for ever, and none keeps what it has read."""

import subprocess
import sys
from pathlib import Path


def test_workers_read_some_hundred_clips_without_growing(repository: Path):
    """A worker that kept its clips would gain 0.6 MB with each of its 200, against the 10 MB that the script allows."""
    command = [sys.executable, "experiments/soak.py", "--clips", "400", "--videos", "20", "--workers", "2"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "flat" in done.stdout
    kept_mb = float(done.stdout.split("workers; ")[1].split(" MB kept")[0])
    assert 10 < kept_mb < 0.6 * 20 * 120 * 3 * 56 * 112 / 1e6  # the cache was in use, and within its bound
