"""The keys at the root of the configuration of `python -m autodrive.parity`."""

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Le
from omegaconf import MISSING

from autodrive.bounds import Count, PathText, PositiveNumber, one_of
from autodrive.schema import SPLITS


@dataclass
class ParityConfig:
    """Keys of a comparison of a student with another making of it.

    Attributes:
        ckpt: The run folder whose student is compared.
        against: `server`, which serves the same student, or `transformers`, whose own model class reads its weights.
        base_url: Address of the server, up to `/v1`.
        model: The student's name there.
        clips: A manifest with clips to ask about; null: the run's own.
        split: The split of which clips are taken.
        num_clips: Clips that are asked about.
        num_shown: Questions that are shown side by side.
        tolerance: Most by which the log-probability of an option may differ.
        accelerator: Where this side is computed; as the trainer's.
        out: A JSON file; null: none.
    """

    ckpt: PathText = MISSING
    against: Annotated[str, one_of("server", "transformers")] = MISSING
    base_url: PathText | None = None
    model: PathText | None = None
    clips: PathText | None = None
    split: Annotated[str, one_of(*SPLITS)] = "test"
    num_clips: Annotated[Count, Le(1000)] = MISSING
    num_shown: Annotated[Count, Le(1000)] = MISSING
    tolerance: PositiveNumber = MISSING
    accelerator: Annotated[str, one_of("auto", "cpu", "gpu", "cuda")] = MISSING
    out: PathText | None = None
    served: Any = MISSING
    paths: Any = MISSING
