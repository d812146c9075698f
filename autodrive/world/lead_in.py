"""How the ego drives up to the hazard: it brakes, accelerates and cruises, the same for all siblings of a scene."""

from dataclasses import dataclass

import numpy as np

from autodrive.world.scenario import Scene

STEP_S = 0.01
# Speeds that no manoeuvre leaves.
SPEEDS_MPS = (6.0, 21.0)
# Seconds of steady driving before the onset, and between manoeuvres.
FIRST_GAP_S, GAP_S = (0.05, 1.5), (2.0, 12.0)
HARSH_SHARE = 0.55
# Peak of braking (-1) and accelerating (1), change of speed of a manoeuvre, and how long its force takes to build up.
HARSH_MPS2 = {-1: (3.4, 7.0), 1: (3.1, 4.2)}
GENTLE_MPS2 = {-1: (0.6, 2.5), 1: (0.5, 2.0)}
HARSH_CHANGE_MPS, GENTLE_CHANGE_MPS = (2.5, 6.0), (1.0, 4.0)
BUILD_UP_S = 0.3


@dataclass(frozen=True)
class LeadIn:
    """What the ego's driving before the onset adds to a constant speed; zero from the onset on.

    Whoever keeps a place in the ego's traffic adds the same, so that distances stay what the scene says.

    Attributes:
        time_s: Times up to the onset at zero, in steps of 10 ms.
        gain_mps: Speed above the speed at the onset.
        shift_m: Distance along the road ahead of where a constant speed would have been.
    """

    time_s: np.ndarray
    gain_mps: np.ndarray
    shift_m: np.ndarray

    def gain(self, time_s: np.ndarray) -> np.ndarray:
        """Speed above the speed at the onset, m/s, at any times not before the first."""
        return np.interp(time_s, self.time_s, self.gain_mps)

    def shift(self, time_s: np.ndarray) -> np.ndarray:
        """Distance ahead of a drive at constant speed, metres, at any times not before the first."""
        return np.interp(time_s, self.time_s, self.shift_m)


def drive_up(scene: Scene, start_s: float) -> LeadIn:
    """Draw the ego's driving from `start_s` to the onset; the same manoeuvres for every `start_s`."""
    rng = np.random.default_rng([scene.look_seed, 10])
    time = -STEP_S * np.arange(int(np.ceil(max(-start_s, 0.0) / STEP_S)) + 2)[::-1]
    acceleration = np.zeros(len(time))
    speed, end = scene.ego_speed_mps, -rng.uniform(*FIRST_GAP_S)
    while end > start_s:
        sign = int(rng.choice([-1, 1]))
        harsh, low, high = rng.random() < HARSH_SHARE, *SPEEDS_MPS
        change = rng.uniform(*(HARSH_CHANGE_MPS if harsh else GENTLE_CHANGE_MPS))
        if not low < speed - sign * change < high:
            sign = -sign
        peak = rng.uniform(*(HARSH_MPS2 if harsh else GENTLE_MPS2)[sign])
        lasts = change / peak + BUILD_UP_S
        rising = np.minimum(time - (end - lasts), end - time) / BUILD_UP_S
        acceleration += sign * peak * np.clip(rising, 0.0, 1.0)
        speed -= sign * change
        end -= lasts + rng.uniform(*GAP_S)
    gain = _until_the_end(acceleration)
    return LeadIn(time, gain, _until_the_end(gain))


def _until_the_end(rate: np.ndarray) -> np.ndarray:
    """The integral that is zero at the last time (trapezoidal rule), the same for any first time."""
    steps = (rate[1:] + rate[:-1]) / 2 * STEP_S
    return np.concatenate([-np.cumsum(steps[::-1])[::-1], [0.0]])
