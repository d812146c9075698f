"""The ego driver: sees a conflict coming, reacts after a delay, brakes within limits of force and jerk."""

from dataclasses import dataclass

import numpy as np

JERK_LIMIT_MPS3 = 25.0
STANDSTILL_MARGIN_M = 1.5


@dataclass(frozen=True)
class Drivers:
    """Parameters of N drivers who meet the same hazard.

    Attributes:
        reaction_s: Delay between the first sign of a conflict and the first brake pressure, shape (N,).
        brake_limit_mps2: Strongest deceleration the driver and the tyres reach, shape (N,).
        swerve_m: Signed lateral evasion (left positive), begun with the braking, shape (N,).
    """

    reaction_s: np.ndarray
    brake_limit_mps2: np.ndarray
    swerve_m: np.ndarray


def time_to_conflict(
    gap_x_m: np.ndarray,
    closing_mps: np.ndarray,
    offset_y_m: np.ndarray,
    lateral_mps: np.ndarray,
    width_m: float,
    length_m: float,
) -> np.ndarray:
    """Time to collision if both keep their velocities; infinite where the paths do not meet.

    Args:
        gap_x_m: Bumper-to-bumper distance along the road, negative once the other is alongside.
        closing_mps: Speed at which that distance shrinks.
        offset_y_m: Lateral distance of the centres.
        lateral_mps: Rate of change of `offset_y_m`.
        width_m: Half the sum of both widths across the road.
        length_m: Sum of both lengths along the road.
    """
    closing = np.maximum(closing_mps, 0.1)
    enter_s = np.maximum(gap_x_m, 0.0) / closing
    leave_s = enter_s + np.minimum(length_m / closing, 1.0)
    at_enter = offset_y_m + lateral_mps * enter_s
    at_leave = offset_y_m + lateral_mps * leave_s
    nearest = np.minimum(np.abs(at_enter), np.abs(at_leave))
    meets = ((nearest < width_m + 0.2) | (at_enter * at_leave < 0)) & (gap_x_m > -1.0) & (closing_mps > 0.3)
    return np.where(meets, enter_s, np.inf)


def required_deceleration(gap_x_m: np.ndarray, closing_mps: np.ndarray, other_decel_mps2: np.ndarray) -> np.ndarray:
    """Deceleration that ends the approach just before contact, the other's own braking included."""
    room_m = np.maximum(gap_x_m - STANDSTILL_MARGIN_M, 0.3)
    return closing_mps * closing_mps / (2.0 * room_m) + other_decel_mps2
