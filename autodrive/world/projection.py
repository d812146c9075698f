"""From road coordinates to pixels, for a whole video at once."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autodrive.world.road import Road

CAMERA_HEIGHT_M = 1.3
# Along the ego's axis from its centre; the bumper is 1.9 m ahead of the lens.
CAMERA_FORWARD_M = 0.3
NEAR_PLANE_M = 0.4
HORIZON = 0.42
# Between these, lenses see half their view; so far, about each axis (pitch, roll, yaw), they are stuck on askew. The
# narrowest one, turned furthest, still sees what the outcomes are judged by (`VIEW_SLOPE` of physics.py).
HALF_VIEW_DEG = (35.0, 43.0)
ASKEW_DEG = (3.0, 1.5, 2.0)


@dataclass(frozen=True)
class Lens:
    """A camera as it is made and stuck to the windscreen: the same throughout a recording, another in every car.

    Attributes:
        half_view_rad: Half the horizontal angle of view.
        pitch_rad, roll_rad, yaw_rad: Angles against the car: nose-down, right-side-down and left are positive.
    """

    half_view_rad: float
    pitch_rad: float
    roll_rad: float
    yaw_rad: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Lens":
        """Any car's camera."""
        half_view = np.radians(rng.uniform(*HALF_VIEW_DEG))
        return cls(half_view, *np.radians(rng.uniform(-1, 1, 3) * ASKEW_DEG))


@dataclass(frozen=True)
class Camera:
    """The camera's pose in every frame; arrays have shape (T,).

    Attributes:
        x_m, y_m: Position of the lens in road coordinates.
        yaw_rad, pitch_rad, roll_rad: Angles of the camera: left (of the road's direction where it is), nose-down and
            right-side-down are positive.
        road: Where the road goes.
        lens: What the camera is like; its angles are part of those above.
        width, height: Width and height of the picture in pixels.
    """

    x_m: np.ndarray
    y_m: np.ndarray
    yaw_rad: np.ndarray
    pitch_rad: np.ndarray
    roll_rad: np.ndarray
    road: Road
    lens: Lens
    width: int
    height: int

    @property
    def focal_px(self) -> float:
        """Focal length in pixels."""
        return self.width / 2 / np.tan(self.lens.half_view_rad)

    @property
    def horizon_px(self) -> np.ndarray:
        """Row of the horizon at the picture's centre column, shape (T,)."""
        return HORIZON * self.height - self.focal_px * np.tan(self.pitch_rad)

    @cached_property
    def plane_xy_m(self) -> tuple[np.ndarray, np.ndarray]:
        """Position of the lens in the plane of the road, shape (T,) each."""
        return self.road.place(self.x_m, self.y_m)

    @cached_property
    def heading_rad(self) -> np.ndarray:
        """Direction of the camera in that plane, shape (T,)."""
        return self.road.heading(self.x_m) + self.yaw_rad

    def relative(self, frame: np.ndarray, x_m: np.ndarray, y_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Depth and left offset seen from the camera; `frame` indexes the poses and broadcasts with the points."""
        return self._seen(frame, *self.road.place(x_m, y_m))

    def _seen(self, frame: np.ndarray, x_m: np.ndarray, y_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ahead, aside = x_m - self.plane_xy_m[0][frame], y_m - self.plane_xy_m[1][frame]
        cos, sin = np.cos(self.heading_rad)[frame], np.sin(self.heading_rad)[frame]
        return ahead * cos + aside * sin, aside * cos - ahead * sin

    def project(self, frame: np.ndarray, points_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (..., 2) and depth (...) of points (..., 3) in road coordinates; `frame` has their leading shape.

        Points behind the near plane are moved onto it, which clips faces along the road exactly.
        """
        return self.project_laid(frame, self.road.lay(points_m))

    def project_laid(self, frame: np.ndarray, points_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same for points that are laid out in the plane of the road already."""
        index = frame.reshape(frame.shape + (1,) * (points_m.ndim - 1 - frame.ndim))
        depth, left = self._seen(index, points_m[..., 0], points_m[..., 1])
        z = np.maximum(depth, NEAR_PLANE_M)
        u = self.width / 2 - self.focal_px * left / z
        v = self.horizon_px[index] + self.focal_px * (CAMERA_HEIGHT_M - points_m[..., 2]) / z
        du, dv, roll = u - self.width / 2, v - HORIZON * self.height, self.roll_rad[index]
        return np.stack([u + roll * dv, v - roll * du], axis=-1), depth
