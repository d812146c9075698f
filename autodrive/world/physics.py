"""Simulates N drivers who meet the same scene with different behaviour, and names the outcome of each."""

from dataclasses import dataclass

import numpy as np

from autodrive.world.driver import JERK_LIMIT_MPS3, Drivers, required_deceleration, time_to_conflict
from autodrive.world.scenario import EGO, OtherMotion, Scene

STEP_S = 0.02
# Outcome thresholds. What satisfies none of them is rejected, so that classes do not touch.
COLLISION_CLOSING_MPS = 5.0
NEAR_DECEL_MPS2, NEAR_GAP_M, NEAR_TTC_S = 5.5, (0.7, 2.3), 1.1
NORMAL_TTC_S, NORMAL_DECEL_MPS2, NORMAL_GAP_M, NORMAL_PASS_M = 1.9, 3.5, 6.0, 1.2
# Nobody who drives normally gets nearer than this to what is in the ego's own path.
NORMAL_FOLLOW_M, PATH_OVERLAP_M = 3.5, 0.3
# A contact that overlaps less than this sideways, 60 ms on, is a graze that a small picture does not show: rejected.
GRAZE_M = 0.25
GRAZE_STEPS = 3
# Contact further back than this along the ego's flank is not seen by a forward camera and is rejected.
VISIBLE_FLANK_M = 1.2
# A time to collision counts once the other is this close to the ego's path; who yields further out is no danger.
PATH_MARGIN_M = 1.0
# The event of a near-collision is the first moment within this distance of the closest approach.
CLOSEST_SLACK_M = 0.3


@dataclass(frozen=True)
class Trajectories:
    """Ego motion of N candidates on K steps from the onset, and the distances to the other; each (K, N) unless said.

    Attributes:
        x_m, y_m: Centre of the ego vehicle, shape (K, N).
        speed_mps: Speed of the ego vehicle, shape (K, N).
        acceleration_mps2: Ego acceleration along the road.
        gap_x_m: Bumper distance along the road, negative alongside.
        gap_y_m: Distance between the flanks, negative where they overlap.
        ttc_s: Constant-velocity time to collision.
        alert_s: First sign of a conflict, shape (N,); infinite if there was none.
    """

    x_m: np.ndarray
    y_m: np.ndarray
    speed_mps: np.ndarray
    acceleration_mps2: np.ndarray
    gap_x_m: np.ndarray
    gap_y_m: np.ndarray
    ttc_s: np.ndarray
    alert_s: np.ndarray


@dataclass(frozen=True)
class Outcomes:
    """What became of N candidates.

    Attributes:
        label: Class name, or "" where the candidate lies between classes, shape (N,).
        event_s: Contact, closest approach or (normal) the hazard's worst moment, from the onset, shape (N,).
        event_step: The event's time as an index into the trajectories.
        min_gap_m, min_ttc_s, peak_decel_mps2, closing_mps: The quantities the label was decided by, shape (N,).
    """

    label: np.ndarray
    event_s: np.ndarray
    event_step: np.ndarray
    min_gap_m: np.ndarray
    min_ttc_s: np.ndarray
    peak_decel_mps2: np.ndarray
    closing_mps: np.ndarray


def simulate(scene: Scene, drivers: Drivers, other: OtherMotion) -> Trajectories:
    """Drive N egos through the scene, without contact forces (those follow in `impact`).

    Only sums, products and comparisons of float64 are used, so results do not depend on how candidates are batched.
    """
    steps, num = other.x_m.shape
    length_m, width_m = (EGO.length_m + scene.footprint_m[0]) / 2, (EGO.width_m + scene.footprint_m[1]) / 2
    x, v, a, y = np.zeros(num), np.full(num, scene.ego_speed_mps), np.zeros(num), np.zeros(num)
    alert_s = np.full(num, np.inf)
    out = np.empty((6, steps, num))
    ttc_s = np.empty((steps, num))
    for k in range(steps):
        now_s = k * STEP_S
        gap_x = np.abs(other.x_m[k] - x) - length_m
        gap_x = np.where(other.x_m[k] > x, gap_x, -1.0)
        offset_y, closing = other.y_m[k] - y, v - other.vx_mps[k]
        ttc = time_to_conflict(gap_x, closing, offset_y, other.vy_mps[k], width_m, 2 * length_m)
        need = required_deceleration(gap_x, np.maximum(closing, 0.0), other.decel_mps2[k])
        conflict = np.isfinite(ttc)
        alert_s = np.where(np.isinf(alert_s) & conflict & ((ttc < 2.6) | (need > 1.0)), now_s, alert_s)
        reacting = now_s >= alert_s + drivers.reaction_s
        evading = reacting & (drivers.swerve_m != 0) & (ttc < 2.0)
        demand = np.where(evading, drivers.brake_limit_mps2, np.minimum(1.1 * need, drivers.brake_limit_mps2))
        command = np.where(reacting & conflict & (need > 0.5), -demand, 0.0)
        # A foot on the brake stays there until the gap no longer closes.
        command = np.where(reacting & conflict, np.minimum(command, a), command)
        resume = ~conflict & (now_s > alert_s + 3.0) & (v < scene.ego_speed_mps) & ((gap_x > 8.0) | (gap_x == -1.0))
        command = np.where(resume, 1.0, command)
        a = a + np.clip(command - a, -JERK_LIMIT_MPS3 * STEP_S, JERK_LIMIT_MPS3 * STEP_S)
        a = np.where((v <= 0) & (a < 0), 0.0, a)
        out[:, k] = x, y, v, a, gap_x, np.abs(offset_y) - width_m
        ttc_s[k] = ttc
        u = np.clip((now_s - alert_s - drivers.reaction_s) / 1.1, 0.0, 1.0)
        x, y, v = x + v * STEP_S, drivers.swerve_m * u * u * (3 - 2 * u), np.maximum(v + a * STEP_S, 0.0)
    return Trajectories(out[0], out[1], out[2], out[3], out[4], out[5], ttc_s, alert_s)


def judge(scene: Scene, ego: Trajectories, other: OtherMotion) -> Outcomes:
    """Decide each candidate's class from its motion: contact, evasion at the last moment, or neither."""
    columns = np.arange(ego.x_m.shape[1])
    centre_gap = np.abs(other.x_m - ego.x_m) - (EGO.length_m + scene.footprint_m[0]) / 2
    touching = (centre_gap < 0) & (ego.gap_y_m < 0)
    contact, hit = np.argmax(touching, axis=0), touching.any(axis=0)
    gap = np.sqrt(np.maximum(centre_gap, 0) ** 2 + np.maximum(ego.gap_y_m, 0) ** 2)
    ahead = other.x_m > ego.x_m - 1.0
    gap_ahead = np.where(ahead, gap, np.inf)
    ttc = np.where(ego.gap_y_m < PATH_MARGIN_M, ego.ttc_s, np.inf)
    decel = np.maximum(-ego.acceleration_mps2, 0)
    slower = ego.speed_mps - other.vx_mps
    closing = np.sqrt(slower**2 + other.vy_mps**2)[contact, columns]
    frontal = (centre_gap[contact, columns] > -VISIBLE_FLANK_M) & (slower[contact, columns] > 1.0)
    frontal &= ego.gap_y_m[np.minimum(contact + GRAZE_STEPS, len(ego.x_m) - 1), columns] < -GRAZE_M
    collision = hit & frontal & (closing > COLLISION_CLOSING_MPS)
    until_contact = np.arange(len(decel))[:, None] <= np.where(hit, contact, len(decel))
    peak = np.where(until_contact, decel, 0).max(axis=0)
    min_gap, min_ttc = gap_ahead.min(axis=0), ttc.min(axis=0)
    near = (
        ~hit & (peak > NEAR_DECEL_MPS2) & (min_gap > NEAR_GAP_M[0]) & (min_gap < NEAR_GAP_M[1]) & (min_ttc < NEAR_TTC_S)
    )
    calm = (peak < NORMAL_DECEL_MPS2) | (min_gap > NORMAL_GAP_M)
    in_path = np.where(ahead & (ego.gap_y_m < PATH_OVERLAP_M), np.maximum(centre_gap, 0), np.inf).min(axis=0)
    normal = ~hit & (min_ttc > NORMAL_TTC_S) & (min_gap > NORMAL_PASS_M) & (in_path > NORMAL_FOLLOW_M) & calm
    closest = np.argmax(gap_ahead < min_gap + CLOSEST_SLACK_M, axis=0)
    worst = np.where(np.isfinite(min_ttc), np.argmin(ttc, axis=0), closest)
    label = np.select([collision, near, normal], ["collision", "near_collision", "normal"], "")
    step = np.select([collision, near], [contact, closest], worst)
    return Outcomes(label, step * STEP_S, step, min_gap, min_ttc, peak, closing)
