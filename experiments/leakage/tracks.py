"""From boxes to distances: where each road user stands and how it moves, as an eye with a known lens would read it.

A road user is taken for a block of its kind's size, along the road or across it, whichever suits its boxes. The foot of
a box gives the distance of its near end; where the foot is below the picture, the width does; where a side is cut off
too, the roof does, whose distance behind the near end was seen before; else it goes on as it was going, but not through
the ego. The camera's pitch, roll and yaw and the road's bend are taken out.

Letters in shapes: T sampled frames, O road users.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autodrive.world.motion import DIVE_RAD_PER_MPS2
from autodrive.world.projection import CAMERA_FORWARD_M, CAMERA_HEIGHT_M, HORIZON, Lens
from autodrive.world.scenario import EGO, ROAD_USERS

Floats = NDArray[np.float64]

LENS_TO_BUMPER_M = EGO.length_m / 2 - CAMERA_FORWARD_M
FAR_M, NEVER_S = 80.0, 9.0
EDGE_PX = 0.05
# Speeds are read over about so long, where frames are that close.
SMOOTHED_S = 0.27
# A vehicle's box takes in its shadow, which is this much larger to every side.
SHADOW_M = 0.15
# Nobody drives through the ego: as near as bodies that touch can be seen to come.
TOUCHING_M = 1.6
# A time to collision counts once the other is this close to the ego's path.
PATH_MARGIN_M = 1.0
# Tangent given to what is out of view.
AWAY = 3.0
# A roof usually begins this far behind the near end.
USUAL_SETBACK_M = 0.9
# What left the picture nearer than this is followed for so long.
FOLLOWED_M, FOLLOWED_S = 18.0, 1.2


@dataclass(frozen=True)
class Tracks:
    """What can be read from the boxes; arrays have shape (T, O). Out of view, distances are `FAR_M` and rates 0.

    Attributes:
        seen: Whether it is in view, or was a moment ago and close by.
        shown: Whether it is in view now.
        ahead_m: From the ego's bumper to its near end, negative beside the ego.
        aside_m: From the ego's flank to its own, negative where it overlaps the ego's path.
        centre_m: Its centre, left of the ego's.
        gap_m: Distance between both, zero where they touch.
        closing_mps: Speed at which `ahead_m` shrinks.
        inward_mps: Speed at which `aside_m` shrinks.
        ttc_s: Time until the ego's front meets it at constant speeds, at most `NEVER_S`.
        flank_s: Time until flanks meet, of what is beside the ego, at most `NEVER_S`.
        need_mps2: Deceleration that would just avoid contact with what is in the path.
        enter_s: Time until it is reached along the road, whether or not paths meet, at most `NEVER_S`.
        miss_m: Distance between both aside at that time.
        inner: Tangent of the angle between the camera's axis and its inner side, negative where it covers the axis.
        inner_per_s: How fast that grows.
    """

    seen: NDArray[np.bool_]
    shown: NDArray[np.bool_]
    ahead_m: Floats
    aside_m: Floats
    centre_m: Floats
    gap_m: Floats
    closing_mps: Floats
    inward_mps: Floats
    ttc_s: Floats
    flank_s: Floats
    need_mps2: Floats
    enter_s: Floats
    miss_m: Floats
    inner: Floats
    inner_per_s: Floats


def read_tracks(
    boxes_TO4: Floats,
    classes: Sequence[str],
    view_T4: Floats,
    lens: Lens,
    size_px: tuple[int, int],
    step_s: float,
) -> Tracks:
    """Distances and speeds along the road and across it from boxes, the camera's own motion taken out.

    Args:
        boxes_TO4: Boxes in pixels as x0, y0, x1, y1; NaN where there is none.
        classes: Kind of each road user.
        view_T4: The camera's pitch, roll and yaw against the road, radians, and the road's curvature per metre.
        lens: The camera; its angles are part of `view_T4`.
        size_px: Height and width of the picture.
        step_s: Time between frames.
    """
    height, width = size_px
    focal = width / 2 / np.tan(lens.half_view_rad)
    x0, y0, x1, y1 = np.moveaxis(boxes_TO4, 2, 0)
    seen = np.isfinite(x0)
    pitch, roll, yaw, bend = (view_T4[:, i : i + 1] for i in range(4))
    # With roll, each side of a box is the top or the foot of an upright edge, and its foot is the one at a side.
    top, foot, middle = y0 - HORIZON * height, y1 - HORIZON * height, width / 2
    left, right = x0 - roll * np.where(roll > 0, top, foot), x1 - roll * np.where(roll > 0, foot, top)
    level = focal * np.tan(pitch)
    below = foot + level + roll * (np.where(roll > 0, x0, x1) - middle)
    above = -(top + level + roll * (np.where(roll > 0, x1, x0) - middle))
    heights = np.array([ROAD_USERS[name].height_m for name in classes])
    bounds = _Bounds(
        left=(middle - left) / focal,
        right=(middle - right) / focal,
        left_cut=x0 < EDGE_PX,
        right_cut=x1 > width - EDGE_PX,
        foot_cut=y1 > height - EDGE_PX,
        cut_foot_m=focal * CAMERA_HEIGHT_M / np.maximum((1 - HORIZON) * height + level, 1.0),
        foot_m=focal * CAMERA_HEIGHT_M / np.maximum(below, 0.5),
        roof_m=np.where(
            (y0 > EDGE_PX) & (above > 0.2), focal * (heights - CAMERA_HEIGHT_M) / np.maximum(above, 0.2), np.nan
        ),
        seen=seen,
    )
    length, breadth = _footprints(bounds, classes)
    braking_T = np.clip((pitch[:, 0] - lens.pitch_rad) / DIVE_RAD_PER_MPS2, -5.0, 11.0)
    near, middle, read, there = _follow(bounds, length, breadth, braking_T, step_s)
    shadow = np.where(np.array(classes) == "pedestrian", 0.0, SHADOW_M)
    length, breadth, near = length - 2 * shadow, breadth - 2 * shadow, near + shadow
    away = near + length / 2
    sided = seen & ~(bounds.left_cut & bounds.right_cut)
    inner = np.where(seen, np.maximum(bounds.right, -bounds.left) - np.sign(middle) * np.tan(yaw), AWAY)
    centre = middle + away * np.tan(yaw) - bend * away**2 / 2
    return _relate(there, near, centre, inner, (length, breadth), (read, sided), step_s)


@dataclass(frozen=True)
class _Bounds:
    """Sides as slopes left of the camera's axis, what the picture cuts off, and distances told by foot and roof.

    Whose foot is below the picture is nearer than `cut_foot_m`, shape (T, 1).
    """

    left: Floats
    right: Floats
    left_cut: NDArray[np.bool_]
    right_cut: NDArray[np.bool_]
    foot_cut: NDArray[np.bool_]
    cut_foot_m: Floats
    foot_m: Floats
    roof_m: Floats
    seen: NDArray[np.bool_]


def _footprints(bounds: _Bounds, classes: Sequence[str]) -> tuple[Floats, Floats]:
    """Length along the road and width across it of each road user (O,), its shadow included."""
    users = [ROAD_USERS[name] for name in classes]
    shadow = np.array([0.0 if user.name == "pedestrian" else 2 * SHADOW_M for user in users])
    long, wide = (np.array(sizes) + shadow for sizes in ([u.length_m for u in users], [u.width_m for u in users]))
    whole = bounds.seen & ~bounds.left_cut & ~bounds.right_cut & ~bounds.foot_cut
    misfit = []
    for length, breadth in ((long, wide), (wide, long)):
        left, right = _edges(bounds.left, bounds.right, bounds.foot_m, length)
        misfit.append(np.where(whole, np.abs(left - right - breadth), 0).sum(0))
    across = (misfit[1] < misfit[0]) & (np.array(classes) != "pedestrian")
    return np.where(across, wide, long), np.where(across, long, wide)


def _edges(left: Floats, right: Floats, near: Floats, length: Floats) -> tuple[Floats, Floats]:
    """Sides of a block in metres: an edge that leans away from the axis is its near corner, else its far one."""
    return left * np.where(left > 0, near, near + length), right * np.where(right < 0, near, near + length)


def _follow(
    bounds: _Bounds, length: Floats, breadth: Floats, braking_T: Floats, step_s: float
) -> tuple[Floats, Floats, NDArray, NDArray]:
    """Distance of the near end, place of the middle, whether these were read, and whether it is there; (T, O) each.

    What is cut off on too many sides goes on at its own speed while the ego brakes as its dive tells. If its speed was
    never seen, it is taken to keep its distance aside while it falls back, and its place when it moves in. What left
    the picture close by is followed for a while.
    """
    b = bounds
    lean = np.maximum(b.right, 0) + np.maximum(-b.left, 0)
    from_width = (lean * length + breadth) / np.maximum(b.left - b.right, 1e-3)
    near = np.where(b.foot_cut, np.minimum(from_width, b.cut_foot_m), b.foot_m)
    read = b.seen & (~b.foot_cut | (~b.left_cut & ~b.right_cut))
    there, middle = b.seen.copy(), np.zeros_like(near)
    trust = min(1.0, step_s / SMOOTHED_S * 2)
    num = near.shape[1]
    speed, sideways, gone_s = np.full(num, np.nan), np.zeros(num), np.zeros(num)
    setback = np.full(num, np.nan)
    for t in range(len(near)):
        last = max(t - 1, 0)
        gone_s = np.where(b.seen[t], 0.0, gone_s + step_s)
        there[t] = b.seen[t] | ((t > 0) & there[last] & (gone_s <= FOLLOWED_S) & (near[last] < FOLLOWED_M))
        goes_on = there[t] & there[last] & (t > 0)
        roofed = b.seen[t] & ~read[t] & np.isfinite(b.roof_m[t])
        speed = speed - braking_T[t] * step_s
        onward = near[last] - np.nan_to_num(speed) * step_s
        # An inner edge is the far end at the distance aside that it had.
        inner, slope = (
            middle[last] - np.sign(middle[last]) * breadth / 2,
            np.where(b.left_cut[t], b.right[t], b.left[t]),
        )
        falls_back = np.maximum(b.right[t], -b.left[t]) >= np.maximum(b.right[last], -b.left[last]) - 1e-6
        edge = goes_on & b.seen[t] & np.isnan(speed) & (b.left_cut[t] != b.right_cut[t]) & (inner * slope > 0.02)
        settled = edge & ~falls_back
        speed, edge = np.where(settled, 0.0, speed), edge & ~settled
        onward = np.where(edge, inner / np.where(edge, slope, 1.0) - length, onward)
        stopped = (np.abs(middle[last]) < (breadth + EGO.width_m) / 2) & (onward < TOUCHING_M) & (near[last] > 0)
        onward = np.where(stopped, np.minimum(near[last], TOUCHING_M), onward)
        onward = np.where(b.seen[t] & b.foot_cut[t], np.minimum(onward, b.cut_foot_m[t]), onward)
        behind = np.where(np.isnan(setback), USUAL_SETBACK_M, setback)
        near[t] = np.where(roofed, b.roof_m[t] - behind, np.where(goes_on & ~read[t], onward, near[t]))
        setback = np.where(read[t], np.clip(b.roof_m[t] - near[t], 0, 2.5), np.where(there[t], setback, np.nan))
        read[t] |= roofed & np.isfinite(setback)
        left, right = _edges(b.left[t], b.right[t], near[t], length)
        left, right = np.where(b.left_cut[t], right + breadth, left), np.where(b.right_cut[t], left - breadth, right)
        blind = goes_on & (~b.seen[t] | (b.left_cut[t] & b.right_cut[t]))
        middle[t] = np.where(blind, middle[last] + np.where(b.seen[t], 0.0, sideways * step_s), (left + right) / 2)
        fresh = goes_on & read[t] & read[last]
        now = np.clip((near[last] - near[t]) / step_s, -15.0, 40.0)
        speed = np.where(fresh, speed + (now - speed) * trust, np.where(stopped & ~read[t], 0.0, speed))
        speed = np.where(fresh & np.isnan(speed), now, speed)
        speed, sideways = np.where(there[t], speed, np.nan), np.where(there[t], sideways, 0.0)
        drift = (middle[t] - middle[last]) / step_s
        sideways = np.where(goes_on & ~blind, sideways + (drift - sideways) * trust, sideways)
    return near, np.nan_to_num(middle), read, there


def _relate(
    seen: NDArray,
    near: Floats,
    centre: Floats,
    inner: Floats,
    size: tuple[Floats, Floats],
    known: tuple[NDArray, NDArray],
    step_s: float,
) -> Tracks:
    """Gaps, speeds and times from places."""
    length, breadth = size
    centre = np.where(seen, centre, 0.0)
    ahead = np.where(seen, near - LENS_TO_BUMPER_M, FAR_M)
    reach = (breadth + EGO.width_m) / 2
    aside = np.where(seen, np.abs(centre) - reach, FAR_M)
    closing, lateral = (_rate(v, seen & k, seen, step_s) for v, k in zip((-ahead, centre), known, strict=True))
    inward = -np.sign(centre) * lateral
    beside = (ahead < 0) & (ahead + length + EGO.length_m > 0)
    gap = np.minimum(np.hypot(np.maximum(ahead, 0), np.maximum(aside, 0)), FAR_M)
    gap = np.where(ahead + length + EGO.length_m > 0, gap, FAR_M)
    enter_s = np.maximum(ahead, 0) / np.maximum(closing, 0.1)
    leave_s = enter_s + np.minimum((length + EGO.length_m) / np.maximum(closing, 0.1), 1.0)
    at_enter, at_leave = centre + lateral * enter_s, centre + lateral * leave_s
    meets = (np.minimum(np.abs(at_enter), np.abs(at_leave)) < reach + 0.2) | (at_enter * at_leave < 0)
    meets &= seen & (ahead > -1) & (closing > 0.3) & (aside < PATH_MARGIN_M)
    ttc = np.where(meets, np.minimum(enter_s, NEVER_S), NEVER_S)
    flank = np.where(beside & (inward > 0.5) & (aside > 0), np.maximum(aside, 0) / np.maximum(inward, 0.05), NEVER_S)
    need = np.where(meets & (aside < 0.3), np.maximum(closing, 0) ** 2 / (2 * np.maximum(ahead, 0.3)), 0.0)
    miss = np.minimum(np.abs(at_enter), np.abs(at_leave)) - reach
    reached = seen & (ahead > -1) & (closing > 0.3)
    return Tracks(
        seen,
        inner < AWAY,
        ahead,
        aside,
        centre,
        gap,
        closing,
        inward,
        ttc,
        np.minimum(flank, NEVER_S),
        need,
        enter_s=np.where(reached, np.minimum(enter_s, NEVER_S), NEVER_S),
        miss_m=np.where(reached, np.where(at_enter * at_leave < 0, -reach, miss), FAR_M),
        inner=inner,
        inner_per_s=_rate(inner, inner < AWAY, inner < AWAY, step_s),
    )


def _rate(values: Floats, certain: NDArray, there: NDArray, step_s: float) -> Floats:
    """Change per second, over the frames around where they were read; else as it was while it stays there.

    A picture's edges are known to a part of a pixel, so that differences of frames close in time are mostly noise.
    """
    rate, half, last = np.zeros_like(values), round(SMOOTHED_S / 2 / step_s), len(values) - 1
    for t in range(1, len(values)):
        now = np.where(there[t] & there[t - 1], rate[t - 1], 0.0)
        known = certain[t] & certain[t - 1]
        now = np.where(known, (values[t] - values[t - 1]) / step_s, now)
        for reach in range(1, half + 1):
            start, end = max(t - reach, 0), min(t + reach, last)
            known = known & certain[start] & certain[end]
            now = np.where(known, (values[end] - values[start]) / ((end - start) * step_s), now)
        rate[t] = now
    return np.clip(rate, -40, 40)
