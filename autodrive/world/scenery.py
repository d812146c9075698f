"""What stands around the road: light, sky, the road's surface and the objects beside it.

Colours are RGB, 0-255. Road coordinates: x along the road, y left of the ego lane's centre, z up, metres.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from autodrive.world.roadside import Polygons, make_ground, make_objects
from autodrive.world.scenario import LANE_WIDTH_M, Scene

# The surface texture: one period of the road plus what the camera sees beyond it.
TEXEL_X_M, TEXEL_Y_M = 0.25, 0.125
PERIOD_M, REACH_M, HALF_WIDTH_M = 72.0, 60.0, 20.0
# Distances from which a coarser (blurred) copy of the texture is used, against shimmering.
OUTER_M = 3.2
LEVEL_STARTS_M = (0.0, 7.0, 13.0, 25.0, 45.0)
# From this standard deviation on, in texels, a surface is blurred by a triangle instead of a Gaussian.
WIDE_BLUR = 8.0

SKIES = {  # top, horizon, ambient light
    "day": ((84, 134, 206), (196, 212, 228), 1.0),
    "dusk": ((62, 62, 112), (226, 154, 108), 0.55),
    "night": ((6, 8, 20), (24, 27, 42), 0.13),
}
WEATHER_SKIES = {"rain": ((112, 120, 130), (156, 162, 168)), "fog": ((182, 187, 192), (190, 194, 198))}
HEADLIGHTS = {"day": 0.0, "dusk": 0.3, "night": 0.95}
HAZE_PER_M = {"clear": 1 / 500, "rain": 1 / 110, "fog": 1 / 26}


@dataclass(frozen=True)
class Light:
    """How bright things are: ambient light, own headlights, and haze that swallows the distance."""

    sky_top: np.ndarray
    sky_horizon: np.ndarray
    ambient: float
    headlights: float
    haze_per_m: float

    def shade(self, colour: np.ndarray, depth_m: np.ndarray, lateral_m: np.ndarray) -> np.ndarray:
        """Colours (..., 3) as seen through haze at a depth and a lateral offset from the camera's axis, each (...)."""
        glow, clear = self.illumination(depth_m, lateral_m), np.exp(-depth_m * self.haze_per_m)[..., None]
        return colour * glow[..., None] * clear + self.sky_horizon * (1 - clear)

    def illumination(self, depth_m: np.ndarray, lateral_m: np.ndarray) -> np.ndarray:
        """Light that falls on a thing, 0 to about 1."""
        if self.headlights == 0:
            return np.full(np.shape(depth_m), self.ambient)
        beam = np.exp(-depth_m / 24.0) * np.exp(-((lateral_m / (2.2 + 0.22 * depth_m)) ** 2))
        return np.minimum(self.ambient + self.headlights * beam, 1.05)


@dataclass(frozen=True)
class Look:
    """Everything static about a scene's appearance, shared by its siblings."""

    light: Light
    surface: np.ndarray
    panorama: np.ndarray
    objects: Polygons
    ground: Polygons
    hood_colour: tuple[float, ...]
    road_edges_m: tuple[float, float]


def make_look(scene: Scene, x_range_m: tuple[float, float], width: int, height: int) -> Look:
    """Draw the static appearance of a scene for a road section that the ego drives through.

    Args:
        scene: The scene to dress; its `look_seed` decides everything random.
        x_range_m: First and last x that the camera will see.
        width: Width of the picture in pixels, which sets the panorama's scale.
        height: Height of the picture in pixels.
    """
    rng = np.random.default_rng([scene.look_seed, 1])
    light = _make_light(scene, rng)
    place = str(rng.choice(["rural", "suburb", "city"]))
    right = -LANE_WIDTH_M * (0.5 + scene.lanes_right)
    left = LANE_WIDTH_M * (0.5 + scene.lanes_left)
    return Look(
        light=light,
        surface=_make_surface(scene, place, (right, left), rng),
        panorama=_make_panorama(light, place, width, height, rng),
        objects=make_objects(scene, place, (right, left), x_range_m),
        ground=make_ground(scene, (right, left), rng),
        hood_colour=tuple((rng.uniform(15, 90) + rng.uniform(0, 25, 3)) * min(1.0, light.ambient + 0.12)),
        road_edges_m=(right, left),
    )


def _make_light(scene: Scene, rng: np.random.Generator) -> Light:
    top, horizon, ambient = SKIES[scene.light]
    if scene.weather in WEATHER_SKIES:
        dim = ambient * (0.8 if scene.weather == "rain" else 0.95)
        top, horizon = (np.multiply(c, dim) for c in WEATHER_SKIES[scene.weather])
        ambient = dim
    tint = rng.uniform(0.93, 1.07)
    haze = HAZE_PER_M[scene.weather] * rng.uniform(0.8, 1.25)
    return Light(np.multiply(top, tint), np.multiply(horizon, tint), ambient * tint, HEADLIGHTS[scene.light], haze)


def _noise(rng: np.random.Generator, rows: int, cols: int, cell: tuple[int, int]) -> np.ndarray:
    """Smooth noise of unit size whose features measure `cell` texels, shape (rows, cols)."""
    coarse = rng.standard_normal((rows // cell[0] + 2, cols // cell[1] + 2)).astype(np.float32)
    return cv2.resize(coarse, (cols, rows), interpolation=cv2.INTER_CUBIC)


def _make_surface(scene: Scene, place: str, edges: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """The road seen from above, one column block for each level of blur, uint8 (rows, levels * columns, 3)."""
    rows, cols = int(PERIOD_M / TEXEL_X_M), int(2 * HALF_WIDTH_M / TEXEL_Y_M)
    y = HALF_WIDTH_M - (np.arange(cols) + 0.5) * TEXEL_Y_M
    right, left = edges
    verges = {"rural": (88, 112, 58), "suburb": (104, 122, 76), "city": (138, 134, 128)}
    earth = np.multiply(verges[place], rng.uniform(0.85, 1.15))
    grain = 18 * _noise(rng, rows, cols, (6, 5)) + 9 * _noise(rng, rows, cols, (2, 3))
    image = earth + grain[..., None] * np.array([1.0, 1.0, 0.7])
    asphalt = rng.uniform(72, 112) * (0.75 if scene.weather == "rain" else 1.0)
    road = (y > right - 0.5) & (y < left + 0.5)
    tone = asphalt + 7 * _noise(rng, rows, cols, (12, 6)) + 5 * _noise(rng, rows, cols, (3, 2))
    for _ in range(9):
        r, c = rng.integers(rows - 12), rng.integers(cols)
        tone[r : r + rng.integers(4, 22), c : c + rng.integers(6, 20)] += rng.choice([-22, -14, 12])
    for lane in range(-scene.lanes_right, scene.lanes_left + 1):
        for wheel in (-0.8, 0.8):
            tone[:, np.abs(y - lane * LANE_WIDTH_M - wheel) < 0.25] -= 6
    image[:, road] = tone[:, road, None]
    _paint_lines(image, scene, y, edges, rows)
    image = np.clip(image, 0, 255).astype(np.uint8)
    image = np.concatenate([image, image[: int(REACH_M / TEXEL_X_M)]])
    return np.concatenate([_blurred(image, distance) for distance in LEVEL_STARTS_M], axis=1)


def _blurred(image: np.ndarray, distance_m: float) -> np.ndarray:
    """The texture as coarse as one pixel sees it at that distance Z.

    A pixel spans about Z^2/100 m along the road and Z/80 m across; aside of the axis, its length along the ray also
    sweeps y Z/100 m across, so the outer columns are blurred more.
    """
    if distance_m == 0:
        return image
    along, across = distance_m**2 / 100 / TEXEL_X_M * 0.45, distance_m / 80 / TEXEL_Y_M * 0.6
    aside = OUTER_M * 1.6 * distance_m / 100 / TEXEL_Y_M * 0.4
    cut = int((HALF_WIDTH_M - OUTER_M) / TEXEL_Y_M)
    blocks = np.split(image, [cut, image.shape[1] - cut], axis=1)
    widths = (max(across, aside), max(across, 0.3), max(across, aside))
    blurred = [_blur(block, width, along) for block, width in zip(blocks, widths, strict=True)]
    return np.concatenate(blurred, axis=1)


def _blur(image: np.ndarray, sigma_x: float, sigma_y: float) -> np.ndarray:
    if sigma_y < WIDE_BLUR:
        return cv2.GaussianBlur(image, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y)
    # A triangle's cost does not grow with its width; that of half-width r has variance r (r + 2) / 6.
    half_widths = (round(np.sqrt(6 * sigma**2 + 1) - 1) for sigma in (sigma_x, sigma_y))
    return cv2.stackBlur(image, tuple(2 * half_width + 1 for half_width in half_widths))


def _paint_lines(image: np.ndarray, scene: Scene, y: np.ndarray, edges: tuple[float, float], rows: int) -> None:
    white, yellow = np.array([222.0, 222.0, 218.0]), np.array([208.0, 172.0, 62.0])
    dashes = (np.arange(rows) * TEXEL_X_M) % 12.0 < 4.0
    for edge in edges:
        image[:, np.abs(y - edge) < 0.09] = white
    for lane in range(-scene.lanes_right, scene.lanes_left):
        line = (lane + 0.5) * LANE_WIDTH_M
        if lane + 1 == scene.oncoming_from_lane:
            image[:, np.abs(np.abs(y - line) - 0.12) < 0.07] = yellow
        else:
            image[np.ix_(dashes, np.abs(y - line) < 0.09)] = white


def _make_panorama(light: Light, place: str, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Sky with clouds and a skyline that wraps around, uint8 (2 * height, 6 * width, 3)."""
    rows, cols = 2 * height, 6 * width
    up = np.clip((1.6 * height - np.arange(rows)) / height, 0, 1)[:, None, None]
    image = light.sky_horizon + (light.sky_top - light.sky_horizon) * up**0.8 * np.ones((1, cols, 1))
    clouds = np.clip(_noise(rng, rows, cols, (height // 6, width // 3)), 0, 2)[..., None]
    image = image + clouds * 22 * light.ambient * (up > 0.05)
    clear = np.exp(-140.0 * light.haze_per_m)
    skyline = (
        np.abs(_noise(rng, 1, cols, (1, 9 if place == "city" else 22))[0])
        * height
        * (0.11 if place == "city" else 0.06)
    )
    if place == "city":
        skyline = np.repeat(skyline[::8], 8)[:cols]
    far = np.multiply((92, 104, 110) if place == "city" else (74, 96, 70), light.ambient)
    below = np.arange(rows)[:, None] > 1.6 * height - skyline[None]
    image[below] = image[below] * (1 - clear * 0.8) + far * clear * 0.8
    return np.clip(image, 0, 255).astype(np.uint8)
