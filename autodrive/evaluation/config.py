"""What configurations say of evaluation: the node `evaluation`, and the keys of `python -m autodrive.power`."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt
from omegaconf import MISSING
from pydantic import AfterValidator

from autodrive.bounds import Choices, Count, CountOrZero, Distinct, Fraction, PathText, Seed
from autodrive.schema import Mode, ProbeName, Record


def _none_or_several(number: int) -> int:
    if number == 1:
        raise ValueError("must be 0, or 2 or more: stability is what several replies have in common")
    return number


class EvaluationKeys(Record):
    """What the node `evaluation` holds.

    Attributes:
        modes: Inference modes in which every question is asked.
        num_strips: Most misclassified clips shown in `report.html`.
        slices: Keys of the clips' metadata, for whose values the headline task is scored apart.
        probes: Under what else the questions are asked, to see whether the student looks.
        samples: Replies to each question that are drawn beside the most probable one; 0: none.
        temperature: What logits are divided by before a token is drawn.
    """

    modes: Choices[Mode]
    num_strips: CountOrZero
    slices: Distinct[str] = ()
    probes: Distinct[ProbeName] = ()
    samples: Annotated[CountOrZero, Le(1000), AfterValidator(_none_or_several)] = 0
    temperature: Annotated[float, Gt(0), Le(100)] = 1.0


@dataclass
class PowerConfig:
    """Keys of what a planned comparison can find; see `Study`.

    Attributes:
        num_steps: Steps of a table that are tested together.
        accuracy: Halfway between the rows of a step.
        num_tables: Tables that are simulated for each difference that is tried.
        out: A JSON file; null: none.
    """

    num_clips: Annotated[Count, Le(100_000)] = MISSING
    num_seeds: Annotated[Count, Le(100)] = MISSING
    num_steps: Annotated[Count, Le(100)] = MISSING
    trained: bool = MISSING
    accuracy: Annotated[float, Gt(0), Lt(1)] = MISSING
    seed_spread: Fraction = MISSING
    clips_per_video: Annotated[Count, Le(100_000)] = MISSING
    num_tables: Annotated[int, Ge(20), Le(100_000)] = MISSING
    seed: Seed = MISSING
    out: PathText | None = None
