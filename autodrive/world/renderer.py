"""Draws a video frame by frame: sky, road surface, everything that stands or moves on it, hood, rain.

All geometry of a video is projected at once; what is left per frame is two image warps and a list of small fills.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from autodrive.world.fills import SUBPIXEL_BITS, Actor, make_fills
from autodrive.world.flying import Flying
from autodrive.world.projection import CAMERA_HEIGHT_M, Camera
from autodrive.world.scenery import (
    HALF_WIDTH_M,
    LEVEL_STARTS_M,
    PERIOD_M,
    REACH_M,
    TEXEL_X_M,
    TEXEL_Y_M,
    Light,
    Look,
)

# Divides the frames of half a second, so that a video with more lead-in shows the same rain at the same moment.
STREAK_PICTURES = 15
# The ground is worked out at this many heights to a pixel, from just below the horizon on, and interpolated.
HEIGHTS_PER_PX, TOP_PX = 4, 0.35
# Distances along the road at which its course is looked up.
COURSE_M = np.concatenate([np.arange(-4.0, REACH_M), np.arange(REACH_M, 320.0, 10.0)])
# Rendering runs in one process for each CPU; OpenCV's own threads would only get in the way.
cv2.setNumThreads(1)


def render(
    look: Look, camera: Camera, actors: list[Actor], rain: bool, look_seed: int, flying: Flying | None = None
) -> Iterator[np.ndarray]:
    """Yield the frames of a video, uint8 RGB (height, width, 3). The array is reused: copy it to keep it.

    Args:
        look: The scene without what moves.
        camera: Poses of the camera, which also give the number of frames and their size.
        actors: The other road users, with their poses in every frame.
        rain: Whether rain is drawn.
        look_seed: Seed of the rain's streaks.
        flying: What flies about.
    """
    fills = make_fills(look, camera, actors, flying)
    starts = np.searchsorted(fills.frame, np.arange(len(camera.x_m) + 1)).tolist()
    colours, counts = fills.colour.tolist(), fills.num_corners.tolist()
    backdrop = _Backdrop(look, camera)
    hood = _hood(camera.width, camera.height)
    streaks = _streaks(camera.width, camera.height, look_seed) if rain else []
    for t in range(len(camera.x_m)):
        frame = backdrop.draw(t)
        own = slice(starts[t], starts[t + 1])
        for corners, count, colour in zip(fills.pixels[own], counts[own], colours[own], strict=True):
            cv2.fillConvexPoly(frame, corners[:count], colour, cv2.LINE_AA, SUBPIXEL_BITS)
        cv2.fillConvexPoly(frame, hood, look.hood_colour, cv2.LINE_AA, SUBPIXEL_BITS)
        if rain:
            cv2.polylines(
                frame, streaks[t % len(streaks)], False, _streak_colour(look.light), 1, cv2.LINE_AA, SUBPIXEL_BITS
            )
        yield frame


class _Backdrop:
    """Sky and road surface."""

    def __init__(self, look: Look, camera: Camera) -> None:
        self.look, self.camera = look, camera
        height, width = camera.height, camera.width
        self.columns = np.arange(width, dtype=np.float32) - width / 2 + 0.5
        # Light and haze on the ground depend on the row below the horizon and the column only.
        below = np.arange(1, 2 * height)[:, None] - 0.5
        depth = camera.focal_px * CAMERA_HEIGHT_M / below * np.ones((1, width))
        lateral = self.columns * depth / camera.focal_px
        black = look.light.shade(np.zeros(3), depth, lateral)
        self.haze = np.clip(black, 0, 255).astype(np.uint8)
        gain = look.light.shade(np.full(3, 100.0), depth, lateral) - black
        self.gain = np.clip(gain * 2.0, 0, 255).astype(np.uint8)
        self.tile = look.surface.shape[1] // len(LEVEL_STARTS_M)
        level = np.searchsorted(LEVEL_STARTS_M, depth[:, 0], side="right") - 1
        self.block_of_row = (level * self.tile).astype(np.float32)[:, None]
        self.start_texel = (camera.x_m % PERIOD_M / TEXEL_X_M).tolist()
        self.ground_TN4, self.zero = _ground(camera), np.zeros((height, width), dtype=np.float32)
        self.horizon_px, self.roll_rad = camera.horizon_px.tolist(), camera.roll_rad.tolist()
        self.heading_rad = camera.heading_rad.tolist()

    def draw(self, t: int) -> np.ndarray:
        height, width = self.camera.height, self.camera.width
        frame = np.empty((height, width, 3), dtype=np.uint8)
        horizon, roll = self.horizon_px[t], self.roll_rad[t]
        first = int(np.ceil(horizon))
        first_row = min(max(first, 0), height)
        if first_row:
            self._sky(t, frame[:first_row])
        if first_row == height:
            return frame
        rows = np.arange(first_row, height, dtype=np.float32)[:, None]
        below = np.maximum(rows + 0.5 - horizon + roll * self.columns, TOP_PX)
        table = slice(first_row - first, first_row - first + len(rows))
        heights = (below - TOP_PX) * HEIGHTS_PER_PX
        ground = cv2.remap(self.ground_TN4[t][None], heights, self.zero[: len(rows)], cv2.INTER_LINEAR)
        across = ground[..., 2] + ground[..., 3] * self.columns
        across = np.maximum(np.minimum(across, self.tile - 1.5), 0.5) + self.block_of_row[table]
        along = ground[..., 0] + ground[..., 1] * self.columns
        along = np.maximum(np.minimum(along, (REACH_M - 1) / TEXEL_X_M), 0.0) + self.start_texel[t]
        road = cv2.remap(self.look.surface, across, along, cv2.INTER_LINEAR)
        lit = cv2.multiply(road, self.gain[table], scale=1 / 200.0)
        cv2.add(lit, self.haze[table], dst=frame[first_row:])
        return frame

    def _sky(self, t: int, rows: np.ndarray) -> None:
        """Draw what is above the road into the picture's first rows."""
        camera, panorama, roll = self.camera, self.look.panorama, self.roll_rad[t]
        span = panorama.shape[1] - camera.width * 2
        # The panorama swings to and fro instead of wrapping, so that its ends never meet in view.
        phase = (camera.focal_px * self.heading_rad[t] + span / 2) % (2 * span)
        offset = camera.width / 2 + 2 * span - phase if phase > span else camera.width / 2 + phase
        drop = 1.6 * camera.height - self.horizon_px[t] - roll * camera.width / 2
        warp = np.array([[1, 0, panorama.shape[1] - offset - camera.width], [roll, 1, drop]], dtype=np.float64)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = (camera.width, len(rows))
        cv2.warpAffine(panorama, warp, size, dst=rows, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _ground(camera: Camera) -> np.ndarray:
    """Where the road lies in each picture, in texels of its surface, shape (T, N, 4), at N heights below the horizon.

    Of the middle column: distance along the road from the lens, and, in the third place, how far right of the surface's
    left edge; each is followed by its change for every column to the right. Seen from the lens, the road's centre
    crosses depth Z at `aside`, heading `phi`; a point q to the left of that crossing lies q sin(phi) further along and
    q cos(phi) aside, for offsets that are small beside the bend's radius.
    """
    num = len(camera.x_m)
    lowest = camera.height - camera.horizon_px.min() + np.abs(camera.roll_rad).max() * camera.width / 2
    below = TOP_PX + np.arange(int(max(lowest, 1.0) * HEIGHTS_PER_PX) + 2) / HEIGHTS_PER_PX
    depth = camera.focal_px * CAMERA_HEIGHT_M / below
    along = camera.x_m[:, None] + COURSE_M
    ahead, aside = camera.relative(np.arange(num)[:, None], along, np.zeros_like(along))
    # A road that turns back is looked up as far as it leads away.
    ahead = np.maximum.accumulate(ahead, axis=1)
    phi = camera.road.heading(along) - camera.heading_rad[:, None]
    # Where each depth lies between the entries of the road's course, as a broken number.
    entry = np.stack([np.interp(depth, some, np.arange(len(COURSE_M))) for some in ahead])
    index = np.minimum(entry.astype(np.int64), len(COURSE_M) - 2)
    part = entry - index

    def there(values: np.ndarray) -> np.ndarray:
        here = np.take_along_axis(values, index, axis=1)
        return here + part * (np.take_along_axis(values, index + 1, axis=1) - here)

    crossing, offset, turn = (there(values) for values in (np.broadcast_to(COURSE_M, ahead.shape), aside, phi))
    cos, sin = np.cos(turn), np.sin(turn)
    per_column = -depth / camera.focal_px
    along = (crossing - offset * sin) / TEXEL_X_M, per_column * sin / TEXEL_X_M
    across = (HALF_WIDTH_M + offset * cos) / TEXEL_Y_M - 0.5, -per_column * cos / TEXEL_Y_M
    return np.stack([*along, *across], axis=-1).astype(np.float32)


def _hood(width: int, height: int) -> np.ndarray:
    shape = np.array(
        [
            (-0.05, 1.05),
            (-0.05, 0.985),
            (0.12, 0.92),
            (0.35, 0.885),
            (0.65, 0.885),
            (0.88, 0.92),
            (1.05, 0.985),
            (1.05, 1.05),
        ]
    )
    return (shape * (width, height) * (1 << SUBPIXEL_BITS)).astype(np.int32)


def _streaks(width: int, height: int, seed: int) -> list[list[np.ndarray]]:
    """Half a second of rain, each picture a list of short slanted lines."""
    rng = np.random.default_rng([seed, 3])
    pictures = []
    for _ in range(STREAK_PICTURES):
        start = rng.uniform((0, -0.1), (1, 0.9), (14, 2)) * (width, height)
        fall = np.array([0.02 * width, 0.13 * height]) * rng.uniform(0.5, 1.3, (14, 1))
        lines = np.stack([start, start + fall], axis=1) * (1 << SUBPIXEL_BITS)
        pictures.append(list(lines.astype(np.int32)))
    return pictures


def _streak_colour(light: Light) -> tuple[float, ...]:
    return tuple(np.minimum(light.sky_horizon * 0.9 + 18, 255).tolist())
