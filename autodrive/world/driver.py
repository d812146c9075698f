"""Drivers of the ego vehicle: when they see a conflict, how they brake and steer, within limits of force and jerk."""

from dataclasses import dataclass

import numpy as np

JERK_LIMIT_MPS3 = 25.0
# Relative speeds below these would do no harm on contact and are no conflict.
HARMLESS_CLOSING_MPS, HARMLESS_LATERAL_MPS = 2.0, 0.6


@dataclass(frozen=True)
class Drivers:
    """Parameters of N drivers who meet the same hazard; each of shape (N,).

    Attributes:
        reaction_s: Delay between the first sign of a conflict and the first brake pressure.
        brake_limit_mps2: Strongest deceleration the driver and the tyres reach.
        margin_m: Distance that is kept to what stands in the path.
        startle_s: When the driver brakes as hard as possible without need, from the onset; infinite for the calm.
        startle_speed_mps: Speed at which the startled let go again.
        swerve_m: Lateral evasion (left positive), 0 for those who keep their line.
        swerve_lasts_s: Duration of the lateral move.
        swerve_early_s: When those who pull over in good time begin to, from the onset; infinite for those who swerve
            once they react to a conflict.
        return_share: Part of the evasion that is undone afterwards, 0 to 1.
    """

    reaction_s: np.ndarray
    brake_limit_mps2: np.ndarray
    margin_m: np.ndarray
    startle_s: np.ndarray
    startle_speed_mps: np.ndarray
    swerve_m: np.ndarray
    swerve_lasts_s: np.ndarray
    swerve_early_s: np.ndarray
    return_share: np.ndarray


def predict_meeting(
    gap_x_m: np.ndarray,
    closing_mps: np.ndarray,
    offset_y_m: np.ndarray,
    lateral_mps: np.ndarray,
    width_m: float,
    length_m: float,
) -> tuple[np.ndarray, np.ndarray]:
    """When the ego's front reaches the other if both keep their velocities, and by how much they miss each other then.

    Args:
        gap_x_m: Bumper-to-bumper distance along the road, negative once the other is alongside.
        closing_mps: Speed at which that distance shrinks.
        offset_y_m: Lateral distance of the centres.
        lateral_mps: Rate of change of `offset_y_m`.
        width_m: Half the sum of both widths across the road.
        length_m: Sum of both lengths along the road.

    Returns:
        Time to collision in seconds, infinite where the ego does not close in, and the lateral distance between both as
        they pass, negative where they overlap.
    """
    closing = np.maximum(closing_mps, 0.1)
    enter_s = np.maximum(gap_x_m, 0.0) / closing
    leave_s = enter_s + np.minimum(length_m / closing, 1.0)
    at_enter = offset_y_m + lateral_mps * enter_s
    at_leave = offset_y_m + lateral_mps * leave_s
    nearest = np.where(at_enter * at_leave < 0, 0.0, np.minimum(np.abs(at_enter), np.abs(at_leave)))
    return np.where((gap_x_m > -1.0) & (closing_mps > 0.3), enter_s, np.inf), nearest - width_m


def time_to_side_contact(
    clear_x_m: np.ndarray, gap_y_m: np.ndarray, approach_mps: np.ndarray, closing_mps: np.ndarray
) -> np.ndarray:
    """Time until the flanks of two vehicles that are beside each other touch; infinite where they will not.

    Args:
        clear_x_m: Distance along the road between the two, negative while they overlap along it.
        gap_y_m: Distance between the flanks.
        approach_mps: Speed at which that distance shrinks.
        closing_mps: Speed at which the other moves backwards past the ego (negative: forwards).
    """
    within_s = np.maximum(gap_y_m, 0.0) / np.maximum(approach_mps, 0.05)
    beside = (clear_x_m < 0) & (clear_x_m + np.abs(closing_mps) * within_s < 0) & (gap_y_m > 0)
    return np.where(beside & (approach_mps > HARMLESS_LATERAL_MPS), within_s, np.inf)


def required_deceleration(
    gap_x_m: np.ndarray, closing_mps: np.ndarray, other_decel_mps2: np.ndarray, margin_m: np.ndarray | float
) -> np.ndarray:
    """Deceleration that ends the approach `margin_m` before contact, the other's own braking included."""
    room_m = np.maximum(gap_x_m - margin_m, 0.3)
    return closing_mps * closing_mps / (2.0 * room_m) + other_decel_mps2
