"""Events of driving, read off the ego's true motion: harsh braking, acceleration and cornering, speed in a turn."""

import numpy as np

from autodrive.schema import DrivingEvent
from autodrive.world.impact import RATE_HZ
from autodrive.world.motion import Play
from autodrive.world.scenario import GRAVITY_MPS2

# Tesla's Safety Score counts braking above 0.3 g as hard and turning above 0.4 g as aggressive; acceleration is held to
# what braking is.
HARSH_BRAKING_MPS2 = HARSH_ACCELERATION_MPS2 = 0.3 * GRAVITY_MPS2
HARSH_CORNERING_MPS2 = 0.4 * GRAVITY_MPS2
# Side friction by which a slow bend's advisory speed is set, 0.31 (Texas DOT, Procedures for Establishing Speed Zones).
EXCESS_IN_TURN_MPS2 = 0.31 * GRAVITY_MPS2
# What is shorter does not count; what is closer together is one event.
SHORTEST_S, JOIN_S = 0.15, 0.3


def find_driving_events(play: Play, start_s: float, end_s: float) -> tuple[DrivingEvent, ...]:
    """Events between two times from the onset, in order of their starts, in seconds from `start_s`.

    An event that is under way at either time begins or ends there. Its severity is the largest magnitude of what it is
    about, in m/s2: deceleration, acceleration, lateral acceleration, or v^2 k of the road's bend.
    """
    bend = play.ego_speed_mps**2 * play.road.curvature(play.ego_x_m)
    measured = {
        "harsh_braking": (-play.ego_accel_mps2, HARSH_BRAKING_MPS2),
        "harsh_acceleration": (play.ego_accel_mps2, HARSH_ACCELERATION_MPS2),
        "harsh_cornering": (np.abs(play.ego_lateral_mps2), HARSH_CORNERING_MPS2),
        "excess_speed_in_turn": (np.abs(bend), EXCESS_IN_TURN_MPS2),
    }
    events = []
    for kind, (amount, threshold) in measured.items():
        for begin, end in spans_of(play, amount > threshold, start_s, end_s):
            during = (play.time_s >= begin + start_s - 1e-6) & (play.time_s <= end + start_s + 1e-6)
            severity = round(float(amount[during].max()), 2)
            if end - begin >= SHORTEST_S:
                events.append(DrivingEvent(kind=kind, start_s=begin, end_s=end, severity=severity))
    return tuple(sorted(events, key=lambda event: (event.start_s, event.kind)))


def spans_of(play: Play, holds: np.ndarray, start_s: float, end_s: float) -> tuple[tuple[float, float], ...]:
    """When something holds between two times from the onset, in seconds from `start_s`; short gaps are closed.

    Args:
        play: The motion that it was read off.
        holds: Whether it holds at every step of the motion, shape (S,).
        start_s: Where to begin.
        end_s: Where to end.
    """
    inside = np.flatnonzero(holds & (play.time_s >= start_s) & (play.time_s <= end_s))
    if not len(inside):
        return ()
    groups = np.split(inside, np.flatnonzero(np.diff(inside) > JOIN_S * RATE_HZ) + 1)
    times = play.time_s - start_s
    return tuple((round(float(times[group[0]]), 3), round(float(times[group[-1]]), 3)) for group in groups)
