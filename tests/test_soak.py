"""Workers that read, build and evict at once: none waits for ever, and none keeps what it has read."""

import runpy
import sys
from pathlib import Path

import pytest

CLIPS, VIDEOS = 240, 20


def test_workers_read_some_hundred_clips_without_growing(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A worker that kept its clips would gain 0.6 MB with each of its 120, against the 10 MB that the script allows."""
    script = str(repository / "experiments" / "soak.py")
    soak = runpy.run_path(script)
    for name, value in soak["MALLOC_BOUND"].items():
        monkeypatch.setenv(name, value)  # the script sets it for its workers; here it is taken back
    monkeypatch.setattr(sys, "argv", [script, f"--clips={CLIPS}", f"--videos={VIDEOS}", "--workers=2"])
    code = soak["main"]()
    said = capsys.readouterr().out
    assert code == 0, said
    assert "flat" in said
    kept_mb = float(said.split("workers; ")[1].split(" MB kept")[0])
    assert 10 < kept_mb < 0.6 * VIDEOS * 120 * 3 * 56 * 112 / 1e6  # the cache was in use, and within its bound
