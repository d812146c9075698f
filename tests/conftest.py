"""Fixtures shared by all tests."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"


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
