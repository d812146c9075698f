"""Fixtures shared by all tests."""

import os

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # before torch is imported: two workers with two threads each wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the hub; it is read when the libraries are imported

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"
# A worker takes a file at a time. Begun last, one of these would leave the other worker idle for as long as it takes.
LONGEST_FILES = (
    "test_training_strategies",
    "test_wrong_values",
    "test_train_ranks",
    "test_sweep",
    "test_teachers_real_server",
)
LONGEST_FILES += ("test_golden", "test_ablation_table", "test_train", "test_prepare", "test_bench")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; all others keep their order."""
    places = {name: place for place, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real clips and formats that some tests read; they skip where it is missing."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the shared folder with real dashcam clips is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def real_videos(shared_data: Path) -> Path:
    return shared_data / "real" / "video"


@pytest.fixture
def ordinary_user() -> Iterator[Path]:
    """A new folder, and no right to read or write what is closed to everybody: for root, that of another user."""
    nobody = 65534
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() != 0:
            yield Path(folder)
            return
        os.chown(folder, nobody, nobody)
        os.seteuid(nobody)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


@pytest.fixture(scope="session")
def shared_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this test session that its worker processes share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def world_dir(shared_dir: Path) -> Path:
    """`paths.data_dir` of all tests that train: the world is rendered once."""
    folder = shared_dir / "world"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def smoke_run(world_dir: Path, shared_dir: Path) -> Path:
    """A finished run of `experiment=smoke`, long enough that the student answers with letters."""
    from running import run, tiny

    folder = shared_dir / "smoke_run"
    arguments = tiny(world_dir, num_steps=24, lr=3e-3, logger="csv_wandb", **{"trainer.val_check_interval": 12})
    with FileLock(shared_dir / "smoke_run.lock"):  # the first worker trains, the other one finds it done
        if not (folder / "provenance.json").is_file():
            assert run("train", *arguments, f"hydra.run.dir={folder}", wandb="offline") == 0
    return folder


@pytest.fixture(scope="session")
def manifest(smoke_run: Path) -> Path:
    """The manifest that the smoke run was trained on."""
    from autodrive.data_assembly import prepared_manifest
    from autodrive.runs.folder import run_config

    return prepared_manifest(run_config(smoke_run))
