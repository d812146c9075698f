"""Keeps other libraries' remarks off the screen where they concern nobody who runs this project."""

import logging
import warnings

from transformers.utils import logging as transformers_logging

IRRELEVANT_WARNINGS = (
    r".*logs directory .* exists and is not empty",  # Hydra's folder, made for this run
    r"Checkpoint directory .* exists and is not empty",  # it holds the data's fingerprint, written a moment before
    r".*LeafSpec.* is deprecated",
    r"You have overridden `transfer_batch_to_device` in `LightningModule`",
    r"`gradient_checkpointing_enable` is deprecated",  # its new name is missing in earlier 5.x releases
    r"The '\w+_dataloader' does not have many workers",  # num_workers is chosen for the cores there are
)


def quiet_libraries() -> None:
    """Show warnings only; no advertisements, device listings, retries or bars for a file of a few megabytes."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    for message in IRRELEVANT_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
