"""Things beside the road and paint on it, as flat polygons: posts, trees, lamps, buildings, side roads, zebras."""

from dataclasses import dataclass

import numpy as np

from autodrive.world.scenario import Scene

MAX_VERTICES = 8
# Where a side road comes in.
JUNCTIONS = ("crossing_vehicle", "witnessed_crossing_ahead", "witnessed_crossing_oncoming")
# Seeds must not be negative: road cells are counted from well behind any scene.
FIRST_CELL = 10**6


@dataclass(frozen=True)
class Polygons:
    """Polygons in road coordinates: P of them with up to eight corners.

    Attributes:
        corners_m: X, y, z, shape (P, 8, 3); unused corners repeat the last.
        num_corners: How many of a polygon's eight corners are its own, shape (P,).
        colour: RGB of each polygon in full light, 0 to 255, shape (P, 3).
        anchor_m: X and y of the object each belongs to, by which it is sorted, shape (P, 2).
        emission: 0 for a surface that reflects light, 1 for one that gives its own, shape (P,).
    """

    corners_m: np.ndarray
    num_corners: np.ndarray
    colour: np.ndarray
    anchor_m: np.ndarray
    emission: np.ndarray


def _polygons(items: list[tuple[np.ndarray, tuple, tuple[float, float], float]]) -> Polygons:
    """Stack (corners (n, 3), colour, anchor, emission) tuples."""
    corners = np.zeros((len(items), MAX_VERTICES, 3))
    for i, (points, *_) in enumerate(items):
        corners[i, : len(points)], corners[i, len(points) :] = points, points[-1]
    return Polygons(
        corners_m=corners,
        num_corners=np.array([len(points) for points, *_ in items], dtype=np.int64),
        colour=np.array([colour for _, colour, _, _ in items], dtype=float).reshape(-1, 3),
        anchor_m=np.array([anchor for _, _, anchor, _ in items], dtype=float).reshape(-1, 2),
        emission=np.array([emission for *_, emission in items], dtype=float),
    )


def _wall(x: float, y0: float, y1: float, z0: float, z1: float) -> np.ndarray:
    """An upright rectangle across the road."""
    return np.array([[x, y0, z0], [x, y1, z0], [x, y1, z1], [x, y0, z1]])


def _flank(y: float, x0: float, x1: float, z0: float, z1: float) -> np.ndarray:
    """An upright rectangle along the road."""
    return np.array([[x0, y, z0], [x1, y, z0], [x1, y, z1], [x0, y, z1]])


def _round(x: float, y: float, z: float, radius_y: float, radius_z: float) -> np.ndarray:
    angle = np.arange(8) * np.pi / 4 + 0.3
    return np.stack([np.full(8, x), y + radius_y * np.cos(angle), z + radius_z * np.sin(angle)], axis=1)


def make_objects(scene: Scene, place: str, edges: tuple[float, float], x_range: tuple[float, float]) -> Polygons:
    """Posts, trees, lamps and buildings along both sides; none within a junction's mouth.

    Every 12 m of road has a generator of its own, so a longer video sees the same objects at the same places.
    """
    items: list[tuple[np.ndarray, tuple, tuple[float, float], float]] = []
    density = {"rural": (0.5, 0.1), "suburb": (0.4, 0.35), "city": (0.2, 0.7)}[place]
    mouth = scene.start_xy_m[0] if scene.scenario in JUNCTIONS else -1e9
    for cell in range(int(x_range[0] // 12), int(x_range[1] // 12) + 1):
        x, rng = cell * 12.0, np.random.default_rng([scene.look_seed, 2, cell + FIRST_CELL])
        for sign, edge in ((-1, edges[0]), (1, edges[1])):
            at, kind = x + rng.uniform(-2, 2), rng.random()
            away = edge + sign * rng.uniform(2.5, 7.0)
            style = rng.uniform(0.8, 1.2, 3)
            if abs(at - mouth) < 9:
                continue
            items += _post(x, edge + sign * 0.8)
            if kind < density[0]:
                items += _tree(at, away, style)
            elif kind < sum(density):
                items += _building(at, edge + sign * rng.uniform(5, 10), sign, style, scene.light)
            elif kind < sum(density) + 0.1:
                items += _lamp(at, edge + sign * 1.4, scene.light)
    return _polygons(items)


def _post(x: float, y: float) -> list[tuple]:
    return [(_wall(x, y - 0.07, y + 0.07, 0, 1.0), (225, 225, 222), (x, y), 0.0)]


def _tree(x: float, y: float, style: np.ndarray) -> list[tuple]:
    green, height = tuple(np.multiply((58, 92, 44), style)), 4.0 * style[0] + 2.0 * style[1]
    trunk = _wall(x, y - 0.18, y + 0.18, 0, height * 0.5)
    crown = _round(x, y, height * 0.68, 1.6 * style[2], height * 0.36)
    top = _round(x, y + 0.4, height * 0.78, 0.9 * style[2], height * 0.2)
    lighter = tuple(np.multiply(green, 1.25))
    return [(trunk, (82, 66, 50), (x, y), 0.0), (crown, green, (x, y), 0.0), (top, lighter, (x, y), 0.0)]


def _building(x: float, y: float, sign: int, style: np.ndarray, light: str) -> list[tuple]:
    """A block 10 m along the road: the face across the road, the flank along it, and two rows of windows."""
    colour, height = np.multiply((150, 132, 116), style), 5.0 + 8.0 * (style[1] - 0.8)
    lit = light != "day" and style[2] > 0.95
    window, emission = ((236, 206, 140), 0.8) if lit else ((62, 74, 88), 0.0)
    back, anchor = y + sign * 9, (x + 5.0, y)
    items = [
        (_flank(y, x, x + 10, 0, height), tuple(colour * 0.78), anchor, 0.0),
        (_wall(x, y, back, 0, height), tuple(colour), anchor, 0.0),
    ]
    for low in (1.2, 3.8):
        items.append((_flank(y - sign * 0.02, x + 1, x + 9, low, low + 1.2), window, anchor, emission))
        items.append((_wall(x - 0.02, y + sign * 1, y + sign * 8, low, low + 1.2), window, anchor, emission))
    return items


def _lamp(x: float, y: float, light: str) -> list[tuple]:
    pole = (_wall(x, y - 0.09, y + 0.09, 0, 6.5), (96, 98, 100), (x, y), 0.0)
    head = (_round(x, y, 6.5, 0.45, 0.2), (255, 226, 168) if light != "day" else (140, 140, 140), (x, y), 0.9)
    return [pole, head]


def make_ground(scene: Scene, edges: tuple[float, float], rng: np.random.Generator) -> Polygons:
    """Flat markings that are not periodic: the side roads of a junction, a zebra crossing."""
    items: list[tuple[np.ndarray, tuple, tuple[float, float], float]] = []
    x, tone = scene.start_xy_m[0], rng.uniform(80, 104)
    if scene.scenario in JUNCTIONS:
        for sign, edge in ((-1, edges[0]), (1, edges[1])):
            far = edge + sign * 45
            strip = np.array([[x - 4.5, edge, 0], [x + 4.5, edge, 0], [x + 4, far, 0], [x - 4, far, 0]])
            items.append((strip, (tone,) * 3, (x, edge), 0.0))
            stop = np.array([[x - 4, edge, 0], [x, edge, 0], [x, edge + sign * 0.4, 0], [x - 4, edge + sign * 0.4, 0]])
            items.append((stop, (215, 215, 212), (x, edge), 0.0))
    elif scene.scenario == "pedestrian" and rng.random() < 0.4:
        for y in np.arange(edges[0] + 0.4, edges[1] - 0.5, 1.1):
            stripe = np.array([[x - 1.5, y, 0], [x + 1.5, y, 0], [x + 1.5, y + 0.55, 0], [x - 1.5, y + 0.55, 0]])
            items.append((stripe, (210, 210, 206), (x, y), 0.0))
    return _polygons(items)
