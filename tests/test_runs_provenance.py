import json
import subprocess
from pathlib import Path

import pytest

from autodrive.runs.provenance import collect_provenance, git_commit, peak_memory_mb, write_provenance


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    command = ["git", "-C", folder, *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_commit_is_named_with_its_state(tmp_path: Path):
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("a = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD").strip()
    assert git_commit(tmp_path) == commit
    (tmp_path / "code.py").write_text("a = 2\n")
    assert git_commit(tmp_path) == f"{commit}-dirty"


def test_outside_a_checkout_there_is_no_commit(tmp_path: Path):
    assert git_commit(tmp_path) is None


def test_nothing_secret_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_API_KEY", "s3cr3t-value")
    write_provenance(tmp_path, {"num_steps": 3})
    text = (tmp_path / "provenance.json").read_text()
    assert "s3cr3t" not in text
    facts = json.loads(text)
    assert facts["num_steps"] == 3
    assert facts["packages"]["torch"] == collect_provenance()["packages"]["torch"]
    assert peak_memory_mb() > 10
