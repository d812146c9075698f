"""Which rooms may not know of which: the arrows of the house point down."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "autodrive"
VERBS = {"annotate", "bench", "export", "mine", "parity", "plan", "power", "predict", "prepare", "report", "review"}
ROOMS = sorted(path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__")
FORBIDDEN = {
    "students": {"mixture", "experts"},
    "trees": {"students", "mixture", "experts"},
    "inference": {"training"},
    "reporting": {"students", "tracking"},
    "tracking": {"students", "training", "inference"},
    "ablation": {"students"},
}


def imported(path: Path) -> Iterator[str]:
    """Second parts of the names imported from this package: `video` of `autodrive.video.decoder`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "autodrive":
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            yield from (parts[1] for parts in names if parts[0] == "autodrive" and len(parts) > 1)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_no_verb_and_nothing_that_is_forbidden_to_it(room: str):
    forbidden = VERBS | {"assembly", "data_assembly", "exam_assembly", "run_assembly"} | FORBIDDEN.get(room, set())
    found = {(path.name, name) for path in (PACKAGE / room).rglob("*.py") for name in imported(path)}
    assert [pair for pair in sorted(found) if pair[1] in forbidden] == []


def test_loader_processes_do_not_import_lightning():
    """They import what their data set is made of, which took seconds of every start."""
    script = "import sys, autodrive.mixture.clip_batches, autodrive.students.qwen_processor; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "torch" in loaded
    assert not loaded & {"lightning", "peft", "wandb", "matplotlib"}


def test_the_import_reader_sees_imports():
    names = set(imported(Path(__file__).parent / "records.py"))
    assert names == {"schema"}
