"""The repository's face: packaging, house numbers, imports, and names that must not appear."""

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import autodrive

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = [REPOSITORY / name for name in ("autodrive", "hydra_plugins", "train.py", "eval.py")]
MAX_MODULE_LINES, MAX_FUNCTION_LINES = 400, 60
DRAWERS = {"utils", "util", "common", "helpers", "misc", "extras"}
# Needed without an import of ours: by transformers' image processor, by its server, and tools that are run as commands.
NOT_IMPORTED = {
    "pillow",
    "fastapi",
    "gguf",
    "uvicorn",
    "ipykernel",
    "mlflow",
    "pre-commit",
    "pyright",
    "ruff",
    "pytest-xdist",
}
TEXT_SUFFIXES = {".py", ".md", ".yaml", ".yml", ".toml", ".ipynb", ".j2", ".cfg", ".txt", ".sh", ""}
# Ids of a requirements ledger, and folders of one machine. (Written so that this file does not match itself.)
FOREIGN_NAMES = re.compile(r"\bR-[ATSL]\d|\bD-[ATSL]\d|/w[o]rk/|/h[o]me/\w|/U[s]ers/\w|/r[o]ot/\w|/t[m]p/v[e]nv")


def project() -> dict:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def python_files(*roots: Path) -> list[Path]:
    return sorted(path for root in roots for path in ([root] if root.is_file() else root.rglob("*.py")))


def tracked_files() -> list[Path]:
    command = ["git", "-C", str(REPOSITORY), "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this copy is not a git checkout")
    return [path for line in listed if (path := REPOSITORY / line).is_file()]


def imported_names(paths: list[Path]) -> set[str]:
    """Top-level names of everything these files import, also inside functions."""
    names: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names


def distributions(names: set[str]) -> set[str]:
    """Packages on the index that provide these modules, in lower case; the standard library and our own left out."""
    own = {"autodrive", "experiments", "train", "eval", *(path.stem for path in (REPOSITORY / "tests").glob("*.py"))}
    foreign = names - own - set(sys.stdlib_module_names)
    provided = importlib.metadata.packages_distributions()
    return {(provided.get(name) or [name])[0].lower().replace("_", "-") for name in foreign}


def package_name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return match[0].lower()


def test_environment_file_lists_the_packages_and_bounds_of_pyproject():
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    wanted = project()["dependencies"] + project()["optional-dependencies"]["dev"]
    assert sorted(pip) == sorted([*wanted, "-e ."])
    assert f"python{project()['requires-python']}" in environment["dependencies"]


def test_every_import_is_a_declared_dependency_and_every_dependency_is_imported():
    declared = {package_name(requirement) for requirement in project()["dependencies"]}
    extras = project()["optional-dependencies"]
    optional = {package_name(requirement) for requirement in extras["torchcodec"] + extras["deepspeed"]}
    used = distributions(imported_names(python_files(*SOURCES)))
    assert used - declared - optional == set()
    assert declared - used - NOT_IMPORTED == set()


def test_development_tools_are_declared_and_used():
    declared = {package_name(requirement) for requirement in project()["optional-dependencies"]["dev"]}
    runtime = {package_name(requirement) for requirement in project()["dependencies"]}
    beside = [REPOSITORY / "tests", REPOSITORY / "docs", REPOSITORY / "experiments"]
    used = distributions(imported_names(python_files(*beside)))
    assert used - runtime - declared == set()
    assert declared - used - NOT_IMPORTED == set()


def test_every_module_imports_and_nothing_asks_for_torchvision():
    modules = [
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
        for path in python_files(*SOURCES)
    ]
    for name in modules:
        importlib.import_module(name)
    assert "torchvision" not in imported_names(python_files(*SOURCES, REPOSITORY / "tests"))


def test_modules_and_functions_stay_below_the_house_numbers():
    too_long: list[str] = []
    for path in python_files(*SOURCES, REPOSITORY / "docs", REPOSITORY / "experiments", REPOSITORY / "tests"):
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(REPOSITORY)
        assert not DRAWERS & set(name.with_suffix("").parts), f"{name}: say what is in it"
        if text.count("\n") > MAX_MODULE_LINES:
            too_long.append(f"{name}: {text.count(chr(10))} lines")
        too_long += [f"{name}:{node.lineno} {node.name}" for node in _long_functions(ast.parse(text))]
    assert too_long == []


def _long_functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            num_lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if num_lines > MAX_FUNCTION_LINES:
                yield node


def test_packages_are_one_level_deep():
    folders = {path.parent.relative_to(REPOSITORY) for path in python_files(REPOSITORY / "autodrive")}
    assert {str(folder) for folder in folders if len(folder.parts) > 2} == set()


def test_no_file_names_a_requirement_id_or_a_machine():
    found = []
    for path in tracked_files():
        if path.suffix in TEXT_SUFFIXES:
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
                if FOREIGN_NAMES.search(line):
                    found.append(f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()[:80]}")
    assert found == []


def test_no_tracked_file_is_large():
    assert [str(path) for path in tracked_files() if path.stat().st_size > 1_000_000] == []


def test_changelog_tells_of_this_version():
    text = (REPOSITORY / "CHANGELOG.md").read_text()
    assert re.search(rf"^## \[{re.escape(autodrive.__version__)}\] - \d{{4}}-\d\d-\d\d$", text, re.MULTILINE)
    assert re.search(r"^## \[Unreleased\]$", text, re.MULTILINE)


def test_licence_is_the_declared_one():
    assert project()["license"] == "Apache-2.0"
    assert "Apache License" in (REPOSITORY / "LICENSE").read_text()[:300]


def test_templates_are_installed_with_the_package():
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    package = REPOSITORY / "autodrive"
    covered = {
        path
        for name, patterns in declared.items()
        for pattern in patterns
        for path in (REPOSITORY / name.replace(".", "/")).glob(pattern)
    }
    data = {path for path in package.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    assert data == covered
