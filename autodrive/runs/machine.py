"""How a run uses its machine: threads, memory, device, and a quiet screen."""

import ctypes
import logging
import os
import warnings

import torch
from transformers.utils import logging as transformers_logging

TORCH_THREADS = torch.get_num_threads()  # torch's own choice: the cores this process may use
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt(3)
KEPT_BYTES = 2**31 - 1
LARGEST_HEAP_BLOCK = 32 * 2**20  # the most that glibc accepts
IRRELEVANT_WARNINGS = (
    r".*logs directory .* exists and is not empty",  # Hydra's folder, made for this run
    r"Checkpoint directory .* exists and is not empty",  # those of a run that is started again in its folder
    r".*LeafSpec.* is deprecated",
    r"You have overridden `transfer_batch_to_device` in `LightningModule`",
    r"`gradient_checkpointing_enable` is deprecated",  # its new name is missing in earlier 5.x releases
    r"The '\w+_dataloader' does not have many workers",  # num_workers is chosen for the cores there are
    r"It is recommended to use `self.log\('val/accuracy', \.\.\., sync_dist=True\)`",  # it is summed up before
    r"`torch.distributed.\w+_tensor` is deprecated",  # DeepSpeed's calls
    r"torch.distributed is disabled, unavailable or uninitialized",  # parts of a checkpoint are read by one process
)


def share_cores(num_workers: int) -> None:
    """Give torch the cores that loader workers and other ranks leave, at least one; `OMP_NUM_THREADS` decides if set.

    On the default's two cores a second thread makes a step 12 % shorter but costs a third more processor time, and
    leaves the loader no core of its own.

    Args:
        num_workers: Number of loader processes, each with one thread.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        own = TORCH_THREADS // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, own - num_workers))


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


def device_of(accelerator: str) -> torch.device:
    """Where a student works outside of the trainer, which leaves it on the CPU; `accelerator` as the trainer's."""
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def quiet_libraries() -> None:
    """Show warnings only; no advertisements, device listings, retries or bars for a file of a few megabytes."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for name in ("huggingface_hub", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    for message in IRRELEVANT_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
