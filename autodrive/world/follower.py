"""The vehicle behind, which no road camera sees: whether it stops in time when the ego brakes."""

from dataclasses import dataclass

import numpy as np

from autodrive.world.physics import STEP_S, Trajectories
from autodrive.world.scenario import EGO

# The follower reacts to braking harder than this.
NOTICED_DECEL_MPS2 = 1.0
# Share of egos with someone close behind.
FOLLOWED_SHARE = 0.4


@dataclass(frozen=True)
class BlowFromBehind:
    """Contacts of N followers with N egos, each array of shape (N,).

    Attributes:
        step: Step of the contact, -1 where there is none.
        closing_mps: Speed of the follower relative to the ego at that step, 0 where there is none.
    """

    step: np.ndarray
    closing_mps: np.ndarray


def follow(ego: Trajectories, rng: np.random.Generator) -> BlowFromBehind:
    """Drive one follower behind each of N egos, up to its contact.

    Args:
        ego: Trajectories of the egos, without contact.
        rng: Draws who is followed, distances, reaction times and brakes.
    """
    steps, num = ego.x_m.shape
    followed = rng.random(num) < FOLLOWED_SHARE
    x, v = -EGO.length_m - rng.uniform(4.0, 14.0, num), ego.speed_mps[0].copy()
    reaction_s, brake_mps2 = rng.uniform(0.6, 2.6, num), rng.uniform(3.0, 7.5, num)
    noticed_s, step, closing = np.full(num, np.inf), np.full(num, -1), np.zeros(num)
    for k in range(steps):
        noticed = np.isinf(noticed_s) & (ego.acceleration_mps2[k] < -NOTICED_DECEL_MPS2)
        noticed_s = np.where(noticed, k * STEP_S, noticed_s)
        touches = followed & (step < 0) & (x + EGO.length_m >= ego.x_m[k])
        step, closing = np.where(touches, k, step), np.where(touches, v - ego.speed_mps[k], closing)
        braking = k * STEP_S >= noticed_s + reaction_s
        x, v = x + v * STEP_S, np.maximum(v - np.where(braking, brake_mps2, 0.0) * STEP_S, 0.0)
    return BlowFromBehind(step, closing)
