"""Numbers as configurations may give them: types that carry their bounds, checked by `config_check` before any work.

The class or function that takes a value says in its signature what it can work with. Upper bounds are far above any
sensible value: they turn a slip of the keyboard into one line instead of a machine that runs out of memory.
"""

from collections.abc import Sequence
from typing import Annotated, TypeVar

from annotated_types import Ge, Gt, Le, MinLen, MultipleOf
from pydantic import AfterValidator

ItemT = TypeVar("ItemT")

Count = Annotated[int, Ge(1), Le(10**9)]
"""At least one of something."""
CountOrZero = Annotated[int, Ge(0), Le(10**9)]
"""How many, perhaps none."""
PositiveNumber = Annotated[float, Gt(0), Le(1e12)]
"""A finite number above 0."""
Fraction = Annotated[float, Ge(0), Le(1)]
"""A share of a whole."""
Seconds = Annotated[float, Gt(0), Le(86_400)]
"""A duration of at most a day."""
FramesPerSecond = Annotated[float, Gt(0), Le(1000)]
"""A frame rate that a camera may have."""
Processes = Annotated[int, Ge(0), Le(256)]
"""Helpers beside this process: workers or threads."""
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]
"""A seed that every random generator in use takes."""
PathText = Annotated[str, MinLen(1)]
"""A path, or whatever else is not empty."""
Layers = Annotated[int, Ge(1), Le(256)]
"""Depth of a network."""
Width = Annotated[int, Ge(1), Le(65_536)]
"""Width of a network, or its number of heads."""


def _told_apart(items: Sequence[ItemT]) -> Sequence[ItemT]:
    if len(set(map(str, items))) < len(items):
        raise ValueError("must not name anything twice")
    return items


def one_of(*names: str) -> AfterValidator:
    """Restricts a text to a few names, where a structured configuration takes no `Literal`."""

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"choose one of {', '.join(names)}")
        return name

    return AfterValidator(check)


Distinct = Annotated[Sequence[ItemT], AfterValidator(_told_apart)]
"""Items that are each named once."""
Choices = Annotated[Sequence[ItemT], MinLen(1), AfterValidator(_told_apart)]
"""One item or more, each named once."""
Even = MultipleOf(2)
"""For pixels: video codecs halve them."""
