"""Simulates N drivers who meet the same scene with different behaviour, and names the outcome of each."""

from dataclasses import dataclass

import numpy as np

from autodrive.world.driver import (
    HARMLESS_CLOSING_MPS,
    JERK_LIMIT_MPS3,
    Drivers,
    predict_meeting,
    required_deceleration,
    time_to_side_contact,
)
from autodrive.world.scenario import EGO, OtherMotion, Scene

STEP_S = 0.04
# Speed at which a driver who stopped far off rolls up.
ROLL_UP_MPS = 1.8
# Outcome thresholds. What satisfies none of them is rejected, so that classes do not touch.
COLLISION_CLOSING_MPS, SIDE_CLOSING_MPS = 4.0, 0.8
# Struck from behind: how fast, and the room ahead, so that being pushed forward is the only contact.
BLOW_CLOSING_MPS, BLOW_ROOM_M = (2.5, 9.0), 1.5
# By how much predicted paths miss each other: less than this and a driver sees a conflict, a normal outcome stays above
# this whenever time is short, and a near-collision's paths overlap.
CONFLICT_MISS_M, NORMAL_MISS_M, NEAR_MISS_M = 0.2, 0.5, -0.2
# How far ahead of the ego's centre the lens is, and how far aside of its axis, per metre of depth, things are in view.
LENS_M, VIEW_SLOPE = 0.3, 0.65
# Between what is no danger (see `driver`) and what is one, relative speeds leave room as well.
GRAVE_CLOSING_MPS, GRAVE_LATERAL_MPS = 4.5, 1.2
NEAR_TTC_S, NEAR_GAP_M = 0.85, (0.15, 3.2)
NEAR_DECEL_MPS2, NEAR_LATERAL_MPS2 = 5.0, 3.5
NORMAL_TTC_S, NORMAL_DRAC_MPS2, NORMAL_GAP_M = 2.2, 2.0, 0.5
# A time to collision counts once the other is this close to the ego's path; who yields further out is no danger.
PATH_MARGIN_M, PATH_OVERLAP_M = 1.0, 0.3
# A frontal contact that overlaps less than this sideways, 80 ms on, is a graze that a small picture does not show.
GRAZE_M, GRAZE_STEPS = 0.25, 2
# What touches a flank is seen if it reaches this far ahead of the ego's centre.
SEEN_AHEAD_M = 1.5
# The event of a near-collision is the first moment within this distance of the closest approach.
CLOSEST_SLACK_M = 0.3
URGENT_BEFORE_STEPS = 20
FRONT, REAR, LEFT, RIGHT = "front", "rear", "left", "right"


@dataclass(frozen=True)
class Trajectories:
    """Ego motion of N candidates on K steps from the onset, and the distances to the other; each (K, N) unless said.

    Attributes:
        x_m, y_m: Centre of the ego vehicle.
        speed_mps: Speed of the ego vehicle.
        acceleration_mps2: Ego acceleration along the road.
        gap_x_m: Bumper distance along the road, negative alongside.
        gap_y_m: Distance between the flanks, negative where they overlap.
        ttc_s: Constant-velocity time to collision, of the front or a flank, if contact would do harm.
        urgent_s: The same if contact would do grave harm.
        drac_mps2: Deceleration that would just avoid contact with what is in the path (deceleration rate to avoid a
            crash), 0 where nothing is.
        alert_s: First sign of a conflict, shape (N,); infinite if there was none.
    """

    x_m: np.ndarray
    y_m: np.ndarray
    speed_mps: np.ndarray
    acceleration_mps2: np.ndarray
    gap_x_m: np.ndarray
    gap_y_m: np.ndarray
    ttc_s: np.ndarray
    urgent_s: np.ndarray
    drac_mps2: np.ndarray
    alert_s: np.ndarray

    def candidate(self, index: int) -> "Trajectories":
        """The motion of one candidate, still with a trailing axis of length one."""
        return Trajectories(**{name: values[..., index : index + 1] for name, values in vars(self).items()})


@dataclass(frozen=True)
class Outcomes:
    """What became of N candidates; each of shape (N,).

    Attributes:
        label: Class name, or "" where the candidate lies between classes.
        side: Side of the ego that is struck or strikes in a collision, else "".
        event_s: Contact, closest approach or (normal) the hazard's worst moment, from the onset.
        min_gap_m, min_ttc_s: Smallest distance to what is not behind, and smallest time to collision.
        peak_decel_mps2, peak_lateral_mps2: Strongest braking and steering until contact, if there is one.
        closing_mps: Speed along the direction of contact at which it happens.
    """

    label: np.ndarray
    side: np.ndarray
    event_s: np.ndarray
    min_gap_m: np.ndarray
    min_ttc_s: np.ndarray
    peak_decel_mps2: np.ndarray
    peak_lateral_mps2: np.ndarray
    closing_mps: np.ndarray


def simulate(scene: Scene, drivers: Drivers, other: OtherMotion) -> Trajectories:
    """Drive N egos through the scene, without contact forces (those follow in `impact`).

    Only sums, products and comparisons of float64 are used, so results do not depend on how candidates are batched.
    """
    steps, num = other.x_m.shape
    length_m, width_m = (EGO.length_m + scene.footprint_m[0]) / 2, (EGO.width_m + scene.footprint_m[1]) / 2
    x, v, a, y, vy = np.zeros(num), np.full(num, scene.ego_speed_mps), np.zeros(num), np.zeros(num), np.zeros(num)
    alert_s, swerve_s = np.full(num, np.inf), drivers.swerve_early_s.copy()
    startled = np.zeros(num, dtype=bool)
    out = np.empty((9, steps, num))
    for k in range(steps):
        # What the driver sees now: distances, the time until front or flanks meet, the braking that would be needed.
        now_s = k * STEP_S
        clear_x = np.abs(other.x_m[k] - x) - length_m
        gap_x = np.where(other.x_m[k] > x, clear_x, -1.0)
        offset_y, closing = other.y_m[k] - y, v - other.vx_mps[k]
        lateral, gap_y = other.vy_mps[k] - vy, np.abs(offset_y) - width_m
        meet_s, miss_m = predict_meeting(gap_x, closing, offset_y, lateral, width_m, 2 * length_m)
        ttc = np.where(miss_m < CONFLICT_MISS_M, meet_s, np.inf)
        beside_s = time_to_side_contact(clear_x, gap_y, -np.sign(offset_y) * lateral, closing)
        need = required_deceleration(gap_x, np.maximum(closing, 0.0), other.decel_mps2[k], drivers.margin_m)
        # Reaction time runs from the first sign of a conflict; then those who swerve late begin to, and pedals move.
        conflict = np.isfinite(ttc)
        sign = (conflict & ((ttc < 2.6) | (need > 1.0))) | (beside_s < 1.5)
        alert_s = np.where(np.isinf(alert_s) & sign, now_s, alert_s)
        reacting = now_s >= alert_s + drivers.reaction_s
        late = reacting & np.isinf(swerve_s) & (drivers.swerve_m != 0) & (np.minimum(ttc, beside_s) < 2.0)
        swerve_s = np.where(late, now_s, swerve_s)
        demand = np.minimum(1.1 * need, drivers.brake_limit_mps2)
        command = np.where(reacting & conflict & (need > 0.5), -demand, 0.0)
        # A foot on the brake stays there until the gap no longer closes.
        command = np.where(reacting & conflict & ~startled, np.minimum(command, a), command)
        startled = (now_s >= drivers.startle_s) & (v > drivers.startle_speed_mps)
        command = np.where(startled, np.minimum(command, -drivers.brake_limit_mps2), command)
        # Who stopped far off rolls up to the distance that is kept.
        rolls_up = reacting & (now_s > alert_s + 1.0) & (v < ROLL_UP_MPS) & (gap_x > drivers.margin_m + 1.0)
        command = np.where(rolls_up & (closing < ROLL_UP_MPS), 0.8, command)
        resume = ~conflict & (now_s > alert_s + 3.0) & (v < scene.ego_speed_mps) & ((gap_x > 8.0) | (gap_x == -1.0))
        command = np.where(resume, 1.0, command)
        # Pedals are pressed no faster than the jerk limit, and who stands does not roll backwards.
        a = a + np.clip(command - a, -JERK_LIMIT_MPS3 * STEP_S, JERK_LIMIT_MPS3 * STEP_S)
        a = np.where((v <= 0) & (a < 0), 0.0, a)
        # What `judge` reads: contact counts by the harm it would do, not by what the driver made of it.
        harm = (closing > HARMLESS_CLOSING_MPS) & (miss_m < NORMAL_MISS_M)
        harmful = np.minimum(np.where(harm, meet_s, np.inf), beside_s)
        grave = np.where((closing > GRAVE_CLOSING_MPS) & (miss_m < NEAR_MISS_M), meet_s, np.inf)
        grave = np.minimum(grave, np.where(-np.sign(offset_y) * lateral > GRAVE_LATERAL_MPS, beside_s, np.inf))
        # A danger that no road camera shows decides nothing.
        far_end_m = np.maximum(other.x_m[k] - x + scene.footprint_m[0] / 2 - LENS_M, 0.0)
        grave = np.where(gap_y + EGO.width_m / 2 < VIEW_SLOPE * far_end_m, grave, np.inf)
        drac = np.where(conflict & (gap_y < PATH_OVERLAP_M), required_deceleration(gap_x, closing, 0.0 * a, 0.0), 0.0)
        out[:, k] = x, y, v, a, gap_x, gap_y, harmful, grave, drac
        moved = _evasion(drivers, now_s + STEP_S - swerve_s)
        # Nobody moves sideways without rolling.
        vy = np.where(v > 0.5, (moved - _evasion(drivers, now_s - swerve_s)) / STEP_S, 0.0)
        x, y, v = x + v * STEP_S, y + vy * STEP_S, np.maximum(v + a * STEP_S, 0.0)
    x_m, y_m, speed, acceleration, gap_x_m, gap_y_m, ttc_s, urgent_s, drac = out
    return Trajectories(x_m, y_m, speed, acceleration, gap_x_m, gap_y_m, ttc_s, urgent_s, drac, alert_s)


def _evasion(drivers: Drivers, since_s: np.ndarray) -> np.ndarray:
    """Lateral displacement of the evasion and its undoing, smooth in speed, shape (N,)."""
    there = np.clip(since_s / drivers.swerve_lasts_s, 0.0, 1.0)
    # Straightening up takes longer than the swerve did.
    again = np.clip(since_s / drivers.swerve_lasts_s / 1.5 - 1.0, 0.0, 1.0)
    smooth = there * there * (3 - 2 * there) - drivers.return_share * again * again * (3 - 2 * again)
    return drivers.swerve_m * smooth


def judge(scene: Scene, ego: Trajectories, other: OtherMotion, blow_step: np.ndarray, blow_mps: np.ndarray) -> Outcomes:
    """Decide each candidate's class from its motion: contact, evasion at the last moment, or neither.

    Args:
        scene: The scene that the candidates share.
        ego: What they did.
        other: What the other road user did, for each of them.
        blow_step: Step at which each is struck from behind, -1 for none, shape (N,).
        blow_mps: Closing speed of that blow, shape (N,).
    """
    steps, columns = len(ego.x_m), np.arange(ego.x_m.shape[1])
    clear_x = np.abs(other.x_m - ego.x_m) - (EGO.length_m + scene.footprint_m[0]) / 2
    # First contact decides: with the other, or from behind where that comes earlier. Whoever touches without satisfying
    # the thresholds of a collision belongs to no class.
    touching = (clear_x < 0) & (ego.gap_y_m < 0)
    contact, hit = np.argmax(touching, axis=0), touching.any(axis=0)
    side, closing, firm = _contact(scene, ego, other, clear_x, contact)
    blow = (blow_step >= 0) & ~(hit & (contact <= blow_step))
    at = np.maximum(blow_step, 0), columns
    room = (ego.gap_y_m[at] > PATH_OVERLAP_M) | (clear_x[at] > BLOW_ROOM_M)
    pushed = blow & room & (blow_mps > BLOW_CLOSING_MPS[0]) & (blow_mps < BLOW_CLOSING_MPS[1])
    contact, closing = np.where(blow, blow_step, contact), np.where(blow, blow_mps, closing)
    collision, touched = pushed | (hit & firm & ~blow), hit | blow
    side = np.where(collision, np.where(blow, REAR, side), "")

    # Trajectories go on as if nothing had happened after a contact, so what is driven is read up to it.
    until = np.arange(steps)[:, None] <= np.where(touched, contact, steps)
    lateral_mps = np.gradient(ego.y_m, STEP_S, axis=0)
    peak_decel = np.where(until, -ego.acceleration_mps2, 0).max(axis=0)
    peak_lateral = np.where(until, np.abs(np.gradient(lateral_mps, STEP_S, axis=0)), 0).max(axis=0)
    # Distances count until the other has fallen behind; times to collision while it is near the ego's path.
    gap = np.sqrt(np.maximum(clear_x, 0) ** 2 + np.maximum(ego.gap_y_m, 0) ** 2)
    gap = np.where(other.x_m + scene.footprint_m[0] / 2 > ego.x_m - EGO.length_m / 2, gap, np.inf)
    ttc = np.where(ego.gap_y_m < PATH_MARGIN_M, ego.ttc_s, np.inf)
    min_gap, min_ttc = gap.min(axis=0), ttc.min(axis=0)
    closest = np.argmax(gap < min_gap + CLOSEST_SLACK_M, axis=0)
    # A near-collision is what just came before its closest approach, so that a window that holds one holds the other.
    just_before = (np.arange(steps)[:, None] <= closest) & (np.arange(steps)[:, None] >= closest - URGENT_BEFORE_STEPS)
    urgent = np.where(just_before & (ego.gap_y_m < PATH_MARGIN_M), ego.urgent_s, np.inf).min(axis=0)

    evaded = (peak_decel > NEAR_DECEL_MPS2) | (peak_lateral > NEAR_LATERAL_MPS2)
    near = ~touched & evaded & (min_gap > NEAR_GAP_M[0]) & (min_gap < NEAR_GAP_M[1]) & (urgent < NEAR_TTC_S)
    normal = ~touched & (min_ttc > NORMAL_TTC_S) & (min_gap > NORMAL_GAP_M)
    normal &= ego.drac_mps2.max(axis=0) < NORMAL_DRAC_MPS2
    # A moment for each: contact, closest approach, or where a normal drive came nearest to a conflict.
    worst = np.where(np.isfinite(min_ttc), np.argmin(ttc, axis=0), closest)
    label = np.select([collision, near, normal], ["collision", "near_collision", "normal"], "")
    step = np.select([collision, near], [contact, closest], worst)
    return Outcomes(label, side, step * STEP_S, min_gap, min_ttc, peak_decel, peak_lateral, closing)


def _contact(
    scene: Scene, ego: Trajectories, other: OtherMotion, clear_x: np.ndarray, contact: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which side of the ego touches the other at step `contact`, how fast, and whether firmly enough to be seen."""
    columns, before = np.arange(len(contact)), np.maximum(contact - 1, 0)
    ahead = other.x_m[contact, columns] > ego.x_m[contact, columns]
    left = other.y_m[contact, columns] > ego.y_m[contact, columns]
    # Whichever distance was open a step before is the one that closed: along the road a front, else a flank.
    along = clear_x[before, columns] >= 0
    ego_vy = (ego.y_m[contact, columns] - ego.y_m[before, columns]) / STEP_S
    slower = ego.speed_mps[contact, columns] - other.vx_mps[contact, columns]
    across = np.abs(other.vy_mps[contact, columns] - ego_vy)
    later = np.minimum(contact + GRAZE_STEPS, len(ego.x_m) - 1)
    frontal = ahead & (slower > COLLISION_CLOSING_MPS) & (ego.gap_y_m[later, columns] < -GRAZE_M)
    side = np.select([along, left], [FRONT, LEFT], RIGHT)
    # A flank that is struck further back, or by someone on foot, is no collision that a road camera shows.
    reaches = other.x_m[contact, columns] + scene.footprint_m[0] / 2 > ego.x_m[contact, columns] + SEEN_AHEAD_M
    flank = (across > SIDE_CLOSING_MPS) & reaches & (scene.other.name != "pedestrian")
    return side, np.where(along, np.abs(slower), across), np.where(along, frontal, flank)
