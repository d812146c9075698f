"""Shapes of road users: two stacked blocks with windows, lights and wheels, or a walking person, as flat faces."""

from dataclasses import dataclass

import numpy as np

from autodrive.world.scenario import RoadUserType

PAINTS = (
    (168, 30, 34),
    (28, 62, 140),
    (222, 222, 224),
    (44, 46, 50),
    (126, 130, 136),
    (206, 158, 46),
    (36, 98, 66),
    (112, 58, 38),
)
GLASS = (44, 54, 66)
SURFACE, TAIL_LIGHT, HEAD_LIGHT, SHADOW = range(4)
# Directional light: how bright a face is that looks along -x (to the camera), +x, left, right or up.
FACE_BRIGHTNESS = {"rear": 0.92, "front": 0.98, "left": 0.7, "right": 0.8, "top": 1.12}


@dataclass(frozen=True)
class Body:
    """Faces of one road user in its own frame (x forward, y left, z up from the ground), in drawing order.

    Attributes:
        corners_m: X, y, z of the four corners of each face, shape (F, 4, 3).
        colour: RGB of each face in full light, 0 to 255, shape (F, 3).
        normal: Outward direction, shape (F, 3); zero for a face that is always drawn.
        kind: SURFACE, TAIL_LIGHT, HEAD_LIGHT or SHADOW, shape (F,).
        stride: +1 or -1 for a leg that swings, else 0, shape (F,).
    """

    corners_m: np.ndarray
    colour: np.ndarray
    normal: np.ndarray
    kind: np.ndarray
    stride: np.ndarray


def make_body(user: RoadUserType, rng: np.random.Generator) -> Body:
    """Draw the colours of a road user and build its faces."""
    return _person(user, rng) if user.name == "pedestrian" else _vehicle(user, rng)


class _Faces:
    """Collects faces until they become a Body."""

    def __init__(self) -> None:
        self.rows: list[tuple[np.ndarray, np.ndarray, tuple[float, float, float], int, float]] = []

    def add(self, corners: list, colour, normal=(0.0, 0.0, 0.0), kind: int = SURFACE, stride: float = 0.0) -> None:
        self.rows.append((np.array(corners, dtype=float), np.array(colour, dtype=float), normal, kind, stride))

    def body(self) -> Body:
        corners, colour, normal, kind, stride = zip(*self.rows, strict=True)
        return Body(np.stack(corners), np.stack(colour), np.array(normal), np.array(kind), np.array(stride))


def _block(faces: _Faces, base: tuple, top: tuple, z: tuple[float, float], paint: np.ndarray) -> None:
    """A block between z0 and z1; `base` and `top` are (x_rear, x_front, half_width)."""
    (r0, f0, w0), (r1, f1, w1), (z0, z1) = base, top, z
    shade = {name: paint * value for name, value in FACE_BRIGHTNESS.items()}
    faces.add([(r0, -w0, z0), (r0, w0, z0), (r1, w1, z1), (r1, -w1, z1)], shade["rear"], (-1, 0, 0))
    faces.add([(f0, -w0, z0), (f0, w0, z0), (f1, w1, z1), (f1, -w1, z1)], shade["front"], (1, 0, 0))
    faces.add([(r0, w0, z0), (f0, w0, z0), (f1, w1, z1), (r1, w1, z1)], shade["left"], (0, 1, 0))
    faces.add([(r0, -w0, z0), (f0, -w0, z0), (f1, -w1, z1), (r1, -w1, z1)], shade["right"], (0, -1, 0))
    faces.add([(r1, -w1, z1), (f1, -w1, z1), (f1, w1, z1), (r1, w1, z1)], shade["top"], (0, 0, 1))


def _windows(faces: _Faces, base: tuple, top: tuple, z: tuple[float, float], sides: bool) -> None:
    """Glass slightly inside the faces of a block."""
    (r0, f0, w0), (r1, f1, w1), (z0, z1) = base, top, z
    low, high, pad = z0 + 0.12 * (z1 - z0), z1 - 0.14 * (z1 - z0), 0.12
    eps = 0.02
    faces.add(
        [
            (r0 - eps, -w0 + pad, low),
            (r0 - eps, w0 - pad, low),
            (r1 - eps, w1 - pad, high),
            (r1 - eps, -w1 + pad, high),
        ],
        GLASS,
        (-1, 0, 0),
    )
    faces.add(
        [
            (f0 + eps, -w0 + pad, low),
            (f0 + eps, w0 - pad, low),
            (f1 + eps, w1 - pad, high),
            (f1 + eps, -w1 + pad, high),
        ],
        GLASS,
        (1, 0, 0),
    )
    if sides:
        for sign in (1, -1):
            side = sign * (w0 + eps), sign * (w1 + eps)
            faces.add(
                [
                    (r0 + 0.25, side[0], low),
                    (f0 - 0.25, side[0], low),
                    (f1 - 0.1, side[1], high),
                    (r1 + 0.1, side[1], high),
                ],
                GLASS,
                (0, sign, 0),
            )


def _across(x: float, y0: float, y1: float, z0: float, z1: float) -> list[tuple[float, float, float]]:
    """An upright rectangle across the body."""
    return [(x, y0, z0), (x, y1, z0), (x, y1, z1), (x, y0, z1)]


def _along(y: float, x0: float, x1: float, z0: float, z1: float) -> list[tuple[float, float, float]]:
    """An upright rectangle along the body."""
    return [(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)]


def _lights(faces: _Faces, user: RoadUserType) -> None:
    half_l, half_w = user.length_m / 2 + 0.03, user.width_m / 2
    z0, z1 = (0.62, 0.84) if user.name == "car" else (0.75, 1.05)
    for sign in (1, -1):
        inner, outer = sign * (half_w - 0.42), sign * (half_w - 0.05)
        faces.add(_across(-half_l, inner, outer, z0, z1), (150, 22, 18), (-1, 0, 0), TAIL_LIGHT)
        faces.add(_across(half_l, inner, outer, z0, z1), (236, 236, 220), (1, 0, 0), HEAD_LIGHT)
    if user.name == "car":
        faces.add(_across(-half_l, -0.3, 0.3, 0.45, 0.58), (214, 214, 196), (-1, 0, 0))


def _wheels(faces: _Faces, user: RoadUserType) -> None:
    half_l, half_w = user.length_m / 2, user.width_m / 2 + 0.02
    radius = 0.32 if user.name == "car" else 0.45
    for sign in (1, -1):
        for x in (-half_l * 0.62, half_l * 0.62):
            wheel = _along(sign * half_w, x - radius, x + radius, 0.0, 1.6 * radius)
            faces.add(wheel, (22, 22, 24), (0, sign, 0))


def _vehicle(user: RoadUserType, rng: np.random.Generator) -> Body:
    faces = _Faces()
    paint = np.multiply(PAINTS[rng.integers(len(PAINTS))], rng.uniform(0.85, 1.15))
    x, y = user.length_m / 2 + 0.15, user.width_m / 2 + 0.15
    faces.add([(-x, -y, 0.02), (x, -y, 0.02), (x, y, 0.02), (-x, y, 0.02)], (26, 26, 28), kind=SHADOW)
    if user.name == "car":
        _car(faces, user, paint)
    else:
        _boxy(faces, user, paint, rng)
    return faces.body()


def _car(faces: _Faces, user: RoadUserType, paint: np.ndarray) -> None:
    half_l, half_w, height = user.length_m / 2, user.width_m / 2, user.height_m
    low = (-half_l, half_l, half_w)
    _block(faces, low, (-half_l + 0.08, half_l - 0.12, half_w), (0.22, 0.88), paint)
    _wheels(faces, user)
    _lights(faces, user)
    base, top = (-half_l * 0.92, half_l * 0.4, half_w * 0.94), (-half_l * 0.66, half_l * 0.08, half_w * 0.78)
    _block(faces, base, top, (0.88, height), paint)
    _windows(faces, base, top, (0.88, height), sides=True)


def _boxy(faces: _Faces, user: RoadUserType, paint: np.ndarray, rng: np.random.Generator) -> None:
    """A van (one painted box) or a truck (a pale cargo box behind a painted cab)."""
    half_l, half_w, height = user.length_m / 2, user.width_m / 2, user.height_m
    full = (-half_l, half_l, half_w)
    if user.name == "truck":
        _block(faces, full, full, (0.35, height), np.full(3, 195.0) * rng.uniform(0.7, 1.1))
        for sign in (1, -1):
            cab = _along(sign * (half_w + 0.02), half_l * 0.45, half_l, 0.4, height * 0.85)
            faces.add(cab, paint * 0.75, (0, sign, 0))
    else:
        _block(faces, full, full, (0.35, height), paint)
        _windows(faces, full, full, (1.1, height), sides=False)
    z0, z1 = (1.25, 1.85) if user.name == "van" else (1.5, 2.3)
    for sign in (1, -1):
        faces.add(_along(sign * (half_w + 0.04), half_l * 0.5, half_l * 0.92, z0, z1), GLASS, (0, sign, 0))
    faces.add(_across(half_l + 0.02, -half_w * 0.83, half_w * 0.83, 1.3, 2.0), GLASS, (1, 0, 0))
    faces.add(_across(-half_l - 0.02, -half_w, half_w, 0.35, 0.6), (40, 40, 44), (-1, 0, 0))
    _wheels(faces, user)
    _lights(faces, user)


def _person(user: RoadUserType, rng: np.random.Generator) -> Body:
    """A figure that faces the camera: two swinging legs, torso, arms and head."""
    faces = _Faces()
    coat, trousers = (np.multiply(PAINTS[i], rng.uniform(0.8, 1.1)) for i in rng.integers(len(PAINTS), size=2))
    skin, h, w = np.array([206.0, 164.0, 136.0]) * rng.uniform(0.5, 1.1), user.height_m, user.width_m / 2
    faces.add([(-0.25, -w, 0.02), (0.25, -w, 0.02), (0.25, w, 0.02), (-0.25, w, 0.02)], (30, 30, 32), kind=SHADOW)

    def upright(y0: float, y1: float, z0: float, z1: float, colour: np.ndarray, stride: float = 0.0) -> None:
        faces.add([(0, y0, z0), (0, y1, z0), (0, y1, z1), (0, y0, z1)], colour, stride=stride)

    upright(-0.17, -0.02, 0.0, h * 0.5, trousers, 1.0)
    upright(0.02, 0.17, 0.0, h * 0.5, trousers * 0.85, -1.0)
    upright(-w, -w + 0.13, h * 0.45, h * 0.8, coat * 0.8)
    upright(w - 0.13, w, h * 0.45, h * 0.8, coat * 0.8)
    upright(-w * 0.72, w * 0.72, h * 0.47, h * 0.84, coat)
    upright(-0.12, 0.12, h * 0.85, h, skin)
    return faces.body()
