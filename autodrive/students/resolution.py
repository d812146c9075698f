"""How many visual tokens a frame may take: `AxB` of configurations, or solved from a budget.

Without torch, so that a configuration can be checked before it is loaded.
"""

import math
import re
from dataclasses import dataclass

from autodrive.errors import InputError


@dataclass(frozen=True)
class Resolution:
    """A bound on the visual tokens of one temporal patch: at most `max_tokens`, at least `min_tokens`.

    Written `AxB` in configurations, so `128x32` is at most 128 and at least 32.
    """

    max_tokens: int
    min_tokens: int

    def __post_init__(self) -> None:
        if not 1 <= self.min_tokens <= self.max_tokens:
            raise InputError(
                f"resolution={self}: needs at least 1 token and a maximum that is not below the minimum; write it as "
                "AxB with A >= B >= 1, for example 128x32"
            )

    @classmethod
    def parse(cls, text: str) -> "Resolution":
        """The resolution that a configuration writes as `AxB`, or `fixed`.

        Raises:
            InputError: `text` is anything else.
        """
        if str(text).strip() == "fixed":
            return FIXED
        match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", str(text).strip())
        if match is None:
            raise InputError(
                f"resolution={text}: not of the form AxB (at most A and at least B visual tokens per temporal patch); "
                "write for example resolution=128x32, resolution=auto, or resolution=fixed"
            )
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return "fixed" if self == FIXED else f"{self.max_tokens}x{self.min_tokens}"


FIXED = Resolution(10**9, 1)
"""No bound that is chosen: the student's frames have one size."""


def solve_resolution(
    num_frames: int, token_budget: int, frames_per_group: int, ratio: int = 4
) -> tuple[Resolution, int]:
    """The largest resolution at which a clip stays within a budget of visual tokens (`resolution=auto`).

    Args:
        num_frames: Frames in a clip.
        token_budget: Most visual tokens that the clip may take.
        frames_per_group: Frames that share a group of visual tokens.
        ratio: How many times smaller the lower bound is than the upper one; 4 as in the paper's 128x32.

    Returns:
        The resolution, and the most visual tokens a clip can take at it.

    Raises:
        InputError: The budget holds less than one token per group.
    """
    num_groups = math.ceil(num_frames / frames_per_group)
    max_tokens = token_budget // num_groups
    if max_tokens < 1:
        raise InputError(
            f"resolution=auto: {token_budget} visual tokens do not reach for the {num_groups} groups of "
            f"{num_frames} frames; raise the budget, or lower fps or duration_s"
        )
    return Resolution(max_tokens, max(1, max_tokens // ratio)), max_tokens * num_groups
