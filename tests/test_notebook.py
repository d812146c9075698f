"""The notebook runs from top to bottom, and shows what it says."""

import resource
from pathlib import Path

import nbformat
from nbclient import NotebookClient

MAX_CPU_S = 60


def test_first_look_runs_in_under_a_minute(repository: Path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(repository / "notebooks" / "first_look.ipynb", as_version=4)
    nbformat.validate(notebook)
    before_s = _children_cpu_s()
    # The project's root is the kernel's folder, where `import autodrive` works as it does for train.py.
    client = NotebookClient(
        notebook,
        timeout=600,
        startup_timeout=300,  # a kernel on a busy machine takes more than nbclient's minute
        kernel_name="python3",
        resources={"metadata": {"path": repository}},
    )
    client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) == 2
    assert "What happens in this clip?" in printed
    assert "right answer: collision" in printed
    assert all(f" {name} event at " in printed for name in ("normal", "near_collision", "collision"))
    assert _children_cpu_s() - before_s < MAX_CPU_S


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
