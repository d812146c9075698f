"""Schedules: pure functions of the step."""

import math

from autodrive.bounds import Count, Fraction


def warmup_cosine(step: int, num_steps: Count, warmup_fraction: Fraction, final_fraction: Fraction) -> float:
    """Linear warm-up, then a cosine from 1 down to `final_fraction`.

    Args:
        step: Optimiser step, from 0.
        num_steps: Steps of the whole training.
        warmup_fraction: Share of the steps spent warming up.
        final_fraction: Factor reached after the last step.

    Returns:
        Factor on the peak learning rate, in (0, 1].
    """
    warmup_steps = max(1, round(num_steps * warmup_fraction))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def validation_interval(num_steps: int, longest: int) -> int:
    """Steps between validations, at most `longest`, such that training ends with one or very soon after one.

    Fewer steps follow the last validation than there are validations. 300 and 50: 50; 120 and 50: 40; 8 and 50: 8.
    """
    return num_steps // math.ceil(num_steps / longest)
