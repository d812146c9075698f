"""What a teacher would ask, and what it would cost, before anything is sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le
from rich.table import Table

from autodrive.schema import Record

CHARACTERS_PER_TOKEN = 4
"""Of English text; teachers' tokenizers differ by a quarter either way."""
PIXELS_PER_TOKEN_SIDE = 28
"""A visual token of a widespread kind of model covers 28 x 28 pixels; others count otherwise."""


COUNTS = ("calls", "at_hand", "prompt_tokens", "completion_tokens")


class StageForecast(Record):
    """What one stage would ask.

    Attributes:
        stage: Name of the stage.
        model: The model that is asked.
        calls: Calls that it would make, at most: whether a clip is asked about may depend on replies to come.
        at_hand: Those of them whose replies are at hand and cost nothing.
        prompt_tokens: Tokens that would be sent, estimated, of all calls.
        completion_tokens: Tokens that would come back, if every reply were as long as it may be.
        cost: What the calls that would be sent cost at most, in the currency of the prices; None: not known.
    """

    stage: str
    model: str
    calls: int
    at_hand: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None


@dataclass(frozen=True)
class Prices:
    """What tokens cost, in any currency.

    Attributes:
        prompt: Price of a million tokens that are sent; None: not known.
        completion: Price of a million tokens that come back.
    """

    prompt: Annotated[float, Ge(0), Le(1e6)] | None = None
    completion: Annotated[float, Ge(0), Le(1e6)] | None = None

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float | None:
        """What so many tokens cost; None if a price is not known."""
        if self.prompt is None or self.completion is None:
            return None
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


def text_tokens(text: str) -> int:
    """About how many tokens a text is."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def picture_tokens(height: int, width: int) -> int:
    """About how many tokens a picture of this size is, in pixels."""
    return -(-height // PIXELS_PER_TOKEN_SIDE) * -(-width // PIXELS_PER_TOKEN_SIDE)


def forecast_table(stages: Sequence[StageForecast]) -> Table:
    """Calls, tokens and costs by stage, with sums; a cost that is not known is a question mark."""
    table = Table(
        title="dry run: nothing is sent", caption="tokens sent: estimated; calls, tokens back and cost: at most"
    )
    for column in ("stage", "model", "calls", "at hand", "tokens sent", "tokens back", "cost"):
        table.add_column(column, justify="left" if column in ("stage", "model") else "right")
    for stage in stages:
        table.add_row(stage.stage, stage.model, *_cells(stage))
    sums = {name: sum(getattr(s, name) for s in stages) for name in COUNTS}
    costs = [stage.cost for stage in stages]
    total = None if None in costs else sum(cost for cost in costs if cost is not None)
    table.add_row("all", "", *_cells(StageForecast(stage="all", model="", **sums, cost=total)), style="bold")
    return table


def _cells(stage: StageForecast) -> list[str]:
    return [*(f"{getattr(stage, name):,}" for name in COUNTS), "?" if stage.cost is None else f"{stage.cost:,.2f}"]
