"""The keys at the root of the configuration of `python -m autodrive.annotate`."""

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Le
from omegaconf import MISSING

from autodrive.bounds import Count, CountOrZero, PathText, Seed, one_of
from autodrive.schema import SPLITS


@dataclass
class AnnotateConfig:
    """Keys of making annotations.

    Attributes:
        clips: A manifest written by `python -m autodrive.prepare`.
        out: Folder for the annotations and their companions.
        split: The split whose clips are annotated; null: all clips.
        seed: Seed of everything that is drawn.
        concurrency: Clips that a stage works on at once.
        num_shown: Most clips on the page.
        base_url: Address of the server that a model is asked at, up to `/v1`.
        model: The model that is asked.
        max_requests: The most calls that are sent to models before the run pauses; null: any number.
        dry_run: Whether calls, tokens and cost are shown and nothing is sent or written.
    """

    clips: PathText = MISSING
    out: PathText = MISSING
    split: Annotated[str, one_of(*SPLITS)] | None = None
    seed: Seed = MISSING
    concurrency: Annotated[Count, Le(1024)] = MISSING
    num_shown: Annotated[CountOrZero, Le(1000)] = MISSING
    base_url: PathText | None = None
    model: PathText | None = None
    max_requests: Count | None = None
    dry_run: bool = MISSING
    teacher: Any = MISSING
    executor: Any = MISSING
    labels: Any = MISSING
    prompts: Any = MISSING
    decoder: Any = MISSING
