"""How a training process uses its machine: threads, and memory that it has freed."""

import ctypes
import os

import torch

TORCH_THREADS = torch.get_num_threads()  # torch's own choice: the cores this process may use
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt(3)
KEPT_BYTES = 2**31 - 1
LARGEST_HEAP_BLOCK = 32 * 2**20  # the most that glibc accepts


def share_cores(num_workers: int) -> None:
    """Give torch the cores that the loader workers leave, at least one; `OMP_NUM_THREADS` has the last word.

    On the default's two cores a second thread makes a step 12 % shorter and a third dearer in processor time, and
    leaves the loader no core of its own.

    Args:
        num_workers: loader processes, each with one thread.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, TORCH_THREADS - num_workers))


def keep_freed_memory() -> bool:
    """Keep the memory of one step for the next one; false where the C library cannot be told (it is not glibc).

    By default glibc returns large blocks to the system as soon as they are free, and every step pays for getting tens
    of megabytes of activations back page by page: 3 to 8 % of the tiny student's step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_HEAP_BLOCK) and mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
