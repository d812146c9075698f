import pytest
import torch

from autodrive.training.threads import TORCH_THREADS, share_cores


@pytest.fixture(autouse=True)
def _restore():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_torch_takes_what_the_workers_leave(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for workers, expected in ((0, TORCH_THREADS), (1, max(1, TORCH_THREADS - 1)), (1000, 1), (0, TORCH_THREADS)):
        share_cores(workers)
        assert torch.get_num_threads() == expected


def test_the_environment_has_the_last_word(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    torch.set_num_threads(2)
    share_cores(1000)
    assert torch.get_num_threads() == 2
