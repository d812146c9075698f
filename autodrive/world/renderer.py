"""Draws a video frame by frame: sky, road surface, everything that stands or moves on it, hood, rain.

All geometry of a video is projected at once; what is left per frame is two image warps and a list of small fills.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from autodrive.world.fills import SUBPIXEL_BITS, Actor, Debris, make_fills
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
# Rendering runs in one process for each CPU; OpenCV's own threads would only get in the way.
cv2.setNumThreads(1)


def render(
    look: Look, camera: Camera, actors: list[Actor], rain: bool, look_seed: int, debris: Debris | None = None
) -> Iterator[np.ndarray]:
    """Yield the frames of a video, uint8 RGB (height, width, 3). The array is reused: copy it to keep it.

    Args:
        look: The scene without what moves.
        camera: Poses of the camera, which also give the number of frames and their size.
        actors: The other road users, with their poses in every frame.
        rain: Whether rain is drawn.
        look_seed: Seed of the rain's streaks.
        debris: What flies about after a contact.
    """
    fills = make_fills(look, camera, actors, debris)
    starts = np.searchsorted(fills.frame, np.arange(len(camera.x_m) + 1)).tolist()
    colours, counts = fills.colour.tolist(), fills.num_corners.tolist()
    backdrop = _Backdrop(look, camera)
    hood = _hood(camera.width, camera.height)
    streaks = _streaks(camera.width, camera.height, look_seed) if rain else []
    for t in range(len(camera.x_m)):
        frame = backdrop.draw(t)
        for i in range(starts[t], starts[t + 1]):
            cv2.fillConvexPoly(frame, fills.pixels[i, : counts[i]], colours[i], cv2.LINE_AA, SUBPIXEL_BITS)
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
        self.level_of_row = np.searchsorted(LEVEL_STARTS_M, depth[:, 0], side="right") - 1
        self.tile = look.surface.shape[1] // len(LEVEL_STARTS_M)

    def draw(self, t: int) -> np.ndarray:
        camera = self.camera
        horizon, roll = float(camera.horizon_px[t]), float(camera.roll_rad[t])
        frame = self._sky(t, horizon, roll)
        first = int(np.ceil(horizon))
        first_row = max(first, 0)
        if first_row >= camera.height:
            return frame
        rows = np.arange(first_row, camera.height, dtype=np.float32)[:, None]
        below = np.maximum(rows + 0.5 - horizon + roll * self.columns, 0.35)
        depth = (camera.focal_px * CAMERA_HEIGHT_M) / below
        table = slice(first_row - first, first_row - first + len(rows))
        yaw = float(camera.yaw_rad[t])
        left = depth * (yaw - self.columns / camera.focal_px) + float(camera.y_m[t])
        left -= 0.5 * camera.curvature_per_m * depth * depth
        across = np.clip((HALF_WIDTH_M - left) / TEXEL_Y_M - 0.5, 0.5, self.tile - 1.5)
        across += (self.level_of_row[table] * self.tile)[:, None]
        along = (float(camera.x_m[t]) % PERIOD_M + np.minimum(depth, REACH_M - 1)) / TEXEL_X_M
        maps = across.astype(np.float32), along.astype(np.float32)
        road = cv2.remap(self.look.surface, *maps, cv2.INTER_LINEAR)
        lit = cv2.multiply(road, self.gain[table], scale=1 / 200.0)
        cv2.add(lit, self.haze[table], dst=frame[first_row:])
        return frame

    def _sky(self, t: int, horizon: float, roll: float) -> np.ndarray:
        camera, panorama = self.camera, self.look.panorama
        span = panorama.shape[1] - camera.width * 2
        turn = float(camera.yaw_rad[t]) + camera.curvature_per_m * float(camera.x_m[t])
        # The panorama swings to and fro instead of wrapping, so that its ends never meet in view.
        phase = (camera.focal_px * turn + span / 2) % (2 * span)
        offset = camera.width / 2 + 2 * span - phase if phase > span else camera.width / 2 + phase
        drop = 1.6 * camera.height - horizon - roll * camera.width / 2
        warp = np.array([[1, 0, panorama.shape[1] - offset - camera.width], [roll, 1, drop]], dtype=np.float64)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(
            panorama, warp, (camera.width, camera.height), flags=flags, borderMode=cv2.BORDER_REPLICATE
        )


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
