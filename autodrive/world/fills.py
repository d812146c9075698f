"""Turns everything that is drawn as polygons into pixels: one sorted list of fills for a whole video."""

from dataclasses import dataclass
from functools import reduce

import numpy as np

from autodrive.world import bodies
from autodrive.world.bodies import Body
from autodrive.world.projection import CAMERA_HEIGHT_M, Camera
from autodrive.world.roadside import MAX_VERTICES, Polygons
from autodrive.world.scenery import Light, Look

SUBPIXEL_BITS = 4
SEE_FAR_M, ACTOR_FAR_M = 80.0, 150.0
# Polygons whose bounding box is smaller than this are left out.
SPECK_PX2 = 0.8
# Drawing layers: flat paint first, then upright things from far to near, then what flies about.
GROUND_LAYER, UPRIGHT_LAYER, DEBRIS_LAYER = 0, 1, 2
DEBRIS_LASTS_S, GRAVITY_MPS2 = 0.7, 9.81


@dataclass(frozen=True)
class Actor:
    """A road user with its pose in every frame; arrays have shape (T,).

    Attributes:
        name: Kind of road user.
        body: The faces it is drawn with.
        x_m, y_m, heading_rad, tilt_rad, lift_m: Pose of the actor's centre in every frame.
        brakes: Whether its brake lights are on.
    """

    name: str
    body: Body
    x_m: np.ndarray
    y_m: np.ndarray
    heading_rad: np.ndarray
    tilt_rad: np.ndarray
    lift_m: np.ndarray
    brakes: np.ndarray


@dataclass(frozen=True)
class Debris:
    """Splinters that burst from a contact and fall.

    Attributes:
        since_s: Time since the contact in every frame, negative before, shape (T,).
        origin_m: Where the contact happened: x, y, z.
        velocity_mps: Velocity of each splinter, shape (N, 3).
        size_m: Half a splinter's width, shape (N,).
        colour: RGB of each splinter in full light, 0 to 255, shape (N, 3).
    """

    since_s: np.ndarray
    origin_m: np.ndarray
    velocity_mps: np.ndarray
    size_m: np.ndarray
    colour: np.ndarray


@dataclass(frozen=True)
class Fills:
    """Polygons ready to be drawn, M of them over all frames."""

    frame: np.ndarray
    layer: np.ndarray
    depth: np.ndarray
    order: np.ndarray
    pixels: np.ndarray
    num_corners: np.ndarray
    colour: np.ndarray


def make_fills(look: Look, camera: Camera, actors: list[Actor], debris: Debris | None) -> Fills:
    """Project everything and bring it into drawing order (by frame, layer, then from far to near)."""
    parts = [_static_fills(look.ground, look.light, camera, GROUND_LAYER)]
    parts.append(_static_fills(look.objects, look.light, camera, UPRIGHT_LAYER))
    parts += [_actor_fills(actor, look.light, camera) for actor in actors]
    if debris is not None:
        parts.append(_debris_fills(debris, look.light, camera))
    return _sorted(parts)


def _static_fills(polygons: Polygons, light: Light, camera: Camera, layer: int) -> Fills:
    num = len(polygons.num_corners)
    anchor = polygons.anchor_m[None, :, 0] - camera.x_m[:, None]
    frame, index = np.nonzero((anchor > -6.0) & (anchor < SEE_FAR_M)) if num else (np.zeros((2, 0), dtype=int))
    pixels, depth = camera.project(frame, polygons.corners_m[index])
    at, left = camera.relative(frame, polygons.anchor_m[index, 0], polygons.anchor_m[index, 1])
    corners = np.moveaxis(depth, 1, 0)
    middle = np.maximum(sum(corners) / len(corners), 0.5)
    lit = light.shade(polygons.colour[index], middle, left)
    own = polygons.emission[index][:, None]
    colour = lit * (1 - own) + own * polygons.colour[index] * np.exp(-middle * light.haze_per_m)[:, None]
    keep = reduce(np.maximum, corners) > 0.5
    fills = Fills(frame, np.full(len(frame), layer), at, index, pixels, polygons.num_corners[index], colour)
    return _seen(fills, keep, camera)


def actor_corners(actor: Actor) -> np.ndarray:
    """Corners of an actor's faces in road coordinates, shape (T, F, 4, 3)."""
    local = np.broadcast_to(actor.body.corners_m, (len(actor.x_m), *actor.body.corners_m.shape)).copy()
    travelled = actor.x_m + actor.y_m
    swing = 0.16 * np.sin(travelled * 4.5)[:, None, None] * actor.body.stride[None, :, None]
    low = local[..., 2] < 0.1
    local[..., 1] += swing * low
    cos_t, sin_t = np.cos(actor.tilt_rad)[:, None, None], np.sin(actor.tilt_rad)[:, None, None]
    x, z = local[..., 0] + local[..., 2] * sin_t, local[..., 2] * cos_t + actor.lift_m[:, None, None]
    heading = actor.heading_rad if actor.name != "pedestrian" else actor.heading_rad * 0
    cos, sin = np.cos(heading)[:, None, None], np.sin(heading)[:, None, None]
    y = local[..., 1]
    return np.stack([actor.x_m[:, None, None] + x * cos - y * sin, actor.y_m[:, None, None] + x * sin + y * cos, z], -1)


def _actor_fills(actor: Actor, light: Light, camera: Camera) -> Fills:
    corners = actor_corners(actor)
    num_frames, num_faces = corners.shape[:2]
    frames = np.repeat(np.arange(num_frames), num_faces)
    faces = np.tile(np.arange(num_faces), num_frames)
    pixels, depth = camera.project(frames, corners.reshape(-1, 4, 3))
    at, left = camera.relative(np.arange(num_frames), actor.x_m, actor.y_m)
    facing = _faces_camera(actor, camera, corners).reshape(-1)
    keep = facing & (depth.max(axis=1) > 0.5) & (np.abs(at) < ACTOR_FAR_M).repeat(num_faces)
    colour = _actor_colours(actor, light, depth.reshape(num_frames, num_faces, 4).mean(axis=2), left)
    padded = np.concatenate([pixels, np.repeat(pixels[:, -1:], MAX_VERTICES - 4, axis=1)], axis=1)
    layer = np.full(len(frames), UPRIGHT_LAYER)
    fills = Fills(frames, layer, at.repeat(num_faces), faces, padded, np.full(len(frames), 4), colour.reshape(-1, 3))
    return _seen(fills, keep, camera)


def _debris_fills(debris: Debris, light: Light, camera: Camera) -> Fills:
    """Splinters on their ballistic paths until they have come down."""
    flying = (debris.since_s > 0) & (debris.since_s < DEBRIS_LASTS_S)
    frame, index = np.nonzero(flying[:, None] & np.ones(len(debris.size_m), dtype=bool))
    since = debris.since_s[frame][:, None]
    at = debris.origin_m + debris.velocity_mps[index] * since - np.array([0, 0, GRAVITY_MPS2 / 2]) * since**2
    at[:, 2] = np.maximum(at[:, 2], 0.03)
    pixels, depth = camera.project(frame, at[:, None])
    radius = camera.focal_px * debris.size_m[index] / np.maximum(depth[:, 0], 0.5)
    turn = np.arange(MAX_VERTICES) * np.pi / 2 + since * 25 + index[:, None]
    corners = pixels + radius[:, None, None] * np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    colour = light.shade(debris.colour[index], np.maximum(depth[:, 0], 0.5), at[:, 1] * 0)
    layer, four = np.full(len(frame), DEBRIS_LAYER), np.full(len(frame), 4)
    fills = Fills(frame, layer, depth[:, 0], index, corners, four, colour)
    return _seen(fills, depth[:, 0] > 0.5, camera)


def _faces_camera(actor: Actor, camera: Camera, corners: np.ndarray) -> np.ndarray:
    """Whether a face looks towards the camera, shape (T, F)."""
    normal = actor.body.normal
    cos, sin = np.cos(actor.heading_rad)[:, None], np.sin(actor.heading_rad)[:, None]
    nx, ny = normal[:, 0] * cos - normal[:, 1] * sin, normal[:, 0] * sin + normal[:, 1] * cos
    centre = corners.mean(axis=2)
    to_camera = nx * (camera.x_m[:, None] - centre[..., 0]) + ny * (camera.y_m[:, None] - centre[..., 1])
    to_camera = to_camera + normal[None, :, 2] * (CAMERA_HEIGHT_M - centre[..., 2])
    return (to_camera > 0) | ~normal.any(axis=1)


def _actor_colours(actor: Actor, light: Light, depth: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Colours of the faces in every frame, shape (T, F, 3): lights shine by themselves, brake lights flare."""
    depth = np.maximum(depth, 0.5)
    kind = actor.body.kind
    colour = light.shade(actor.body.colour[None], depth, np.broadcast_to(left[:, None], depth.shape))
    clear = np.exp(-depth * light.haze_per_m * 0.7)[..., None]
    dark = light.ambient < 0.7 or light.haze_per_m > 0.005
    rear = np.where(actor.brakes[:, None], 1.0, 0.55 if dark else 0.0)[:, None]
    glow = np.array([255.0, 50.0, 36.0]) * rear * clear + colour * (1 - rear * clear)
    colour = np.where((kind == bodies.TAIL_LIGHT)[None, :, None], glow, colour)
    if dark:
        front = np.array([255.0, 248.0, 220.0]) * clear + colour * (1 - clear)
        colour = np.where((kind == bodies.HEAD_LIGHT)[None, :, None], front, colour)
    return colour


def _seen(fills: Fills, keep: np.ndarray, camera: Camera) -> Fills:
    """Only what is inside the picture and larger than a speck."""
    # Folding over the eight corners is an order of magnitude faster than reducing a short inner axis.
    corners = np.moveaxis(fills.pixels, 1, 0)
    low, high = reduce(np.minimum, corners), reduce(np.maximum, corners)
    size = high - low
    inside = (high[:, 0] > 0) & (low[:, 0] < camera.width) & (high[:, 1] > 0) & (low[:, 1] < camera.height)
    index = np.flatnonzero(keep & inside & (size[:, 0] * size[:, 1] > SPECK_PX2))
    return Fills(*(getattr(fills, name)[index] for name in Fills.__dataclass_fields__))


def _sorted(parts: list[Fills]) -> Fills:
    """All fills in drawing order; pixels become the fixed-point integers that the fills take."""
    joined = Fills(*(np.concatenate([getattr(p, name) for p in parts]) for name in Fills.__dataclass_fields__))
    index = np.lexsort((joined.order, -joined.depth, joined.layer, joined.frame))
    fills = Fills(*(getattr(joined, name)[index] for name in Fills.__dataclass_fields__))
    pixels = np.clip(fills.pixels - 0.5, -1500, 1500) * (1 << SUBPIXEL_BITS)
    colour = np.clip(fills.colour, 0, 255).round()
    return Fills(
        fills.frame, fills.layer, fills.depth, fills.order, pixels.round().astype(np.int32), fills.num_corners, colour
    )
