"""Turns everything that is drawn as polygons into pixels: one sorted list of fills for a whole video."""

from dataclasses import dataclass
from functools import reduce

import numpy as np

from autodrive.world import bodies
from autodrive.world.bodies import Body
from autodrive.world.flying import Flying
from autodrive.world.projection import CAMERA_HEIGHT_M, Camera
from autodrive.world.roadside import MAX_VERTICES, Polygons
from autodrive.world.scenery import Light, Look

SUBPIXEL_BITS = 4
SEE_FAR_M, ACTOR_FAR_M = 80.0, 150.0
# Polygons whose bounding box is smaller than this are left out.
SPECK_PX2 = 0.8
# Drawing layers: flat paint first, then upright things from far to near, then what flies about.
GROUND_LAYER, UPRIGHT_LAYER, FLYING_LAYER = 0, 1, 2
# How fast the air lifts and drops what it carries, and how fast wings beat: about once and four times a second.
SWAY_RADPS, FLAP_RADPS = 5.0, 26.0
# What flies nearer to the lens than this is a blur that nobody sees.
SPECK_NEAR_M = 1.3


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
class Fills:
    """Polygons ready to be drawn, M of them over all frames."""

    frame: np.ndarray
    layer: np.ndarray
    depth: np.ndarray
    order: np.ndarray
    pixels: np.ndarray
    num_corners: np.ndarray
    colour: np.ndarray


def make_fills(look: Look, camera: Camera, actors: list[Actor], flying: Flying | None) -> Fills:
    """Project everything and bring it into drawing order (by frame, layer, then from far to near)."""
    parts = [_static_fills(look.ground, look.light, camera, GROUND_LAYER)]
    parts.append(_static_fills(look.objects, look.light, camera, UPRIGHT_LAYER))
    parts += [_actor_fills(actor, look.light, camera) for actor in actors]
    if flying is not None:
        parts.append(_flying_fills(flying, look.light, camera))
    return _sorted(parts)


def _static_fills(polygons: Polygons, light: Light, camera: Camera, layer: int) -> Fills:
    num = len(polygons.num_corners)
    anchor = polygons.anchor_m[None, :, 0] - camera.x_m[:, None]
    frame, index = np.nonzero((anchor > -6.0) & (anchor < SEE_FAR_M)) if num else (np.zeros((2, 0), dtype=int))
    pixels, depth = camera.project_laid(frame, camera.road.lay(polygons.corners_m)[index])
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
    # A shadow stays on the ground.
    lift = actor.lift_m[:, None, None] * (actor.body.kind != bodies.SHADOW)[:, None]
    x, z = local[..., 0] + local[..., 2] * sin_t, local[..., 2] * cos_t + lift
    heading = actor.heading_rad if actor.name != "pedestrian" else actor.heading_rad * 0
    cos, sin = np.cos(heading)[:, None, None], np.sin(heading)[:, None, None]
    y = local[..., 1]
    return np.stack([actor.x_m[:, None, None] + x * cos - y * sin, actor.y_m[:, None, None] + x * sin + y * cos, z], -1)


def _actor_fills(actor: Actor, light: Light, camera: Camera) -> Fills:
    corners = camera.road.lay(actor_corners(actor))
    num_frames, num_faces = corners.shape[:2]
    frames = np.repeat(np.arange(num_frames), num_faces)
    faces = np.tile(np.arange(num_faces), num_frames)
    pixels, depth = camera.project_laid(frames, corners.reshape(-1, 4, 3))
    at, left = camera.relative(np.arange(num_frames), actor.x_m, actor.y_m)
    facing = _faces_camera(actor, camera, corners).reshape(-1)
    keep = facing & (depth.max(axis=1) > 0.5) & (np.abs(at) < ACTOR_FAR_M).repeat(num_faces)
    colour = _actor_colours(actor, light, depth.reshape(num_frames, num_faces, 4).mean(axis=2), left)
    padded = np.concatenate([pixels, np.repeat(pixels[:, -1:], MAX_VERTICES - 4, axis=1)], axis=1)
    layer = np.full(len(frames), UPRIGHT_LAYER)
    fills = Fills(frames, layer, at.repeat(num_faces), faces, padded, np.full(len(frames), 4), colour.reshape(-1, 3))
    return _seen(fills, keep, camera)


def _flying_fills(flying: Flying, light: Light, camera: Camera) -> Fills:
    """Specks on their ways while they last, each a quadrilateral that turns in the picture's plane."""
    specks, age = flying.specks, flying.time_s[:, None] - flying.specks.start_s
    frame, index = np.nonzero((age >= 0) & (age < specks.lasts_s))
    since, half_g = age[frame, index], specks.fall_mps2[index] / 2
    at = specks.origin_m[index] + specks.velocity_mps[index] * since[:, None]
    at[:, 2] += specks.sway_m[index] * np.sin(SWAY_RADPS * since) - half_g * since**2
    at[:, 2] = np.maximum(at[:, 2], 0.03)
    pixels, depth = camera.project(frame, at[:, None])
    seen, depth = depth[:, 0] > SPECK_NEAR_M, np.maximum(depth[:, 0], 0.5)
    angle = specks.angle_rad[index] + specks.spin_radps[index] * since
    angle = angle + specks.flap_rad[index] * np.sin(FLAP_RADPS * since)
    along = (
        np.stack([np.cos(angle), np.sin(angle)], axis=-1) * (camera.focal_px * specks.size_m[index] / depth)[:, None]
    )
    across = along[:, ::-1] * (-1, 1) * specks.slimness[index, None]
    centre = pixels[:, 0] + along * specks.is_wing[index, None]
    corners = np.stack([centre - along, centre - across, centre + along, centre + across], axis=1)
    padded = np.concatenate([corners, np.repeat(corners[:, -1:], MAX_VERTICES - 4, axis=1)], axis=1)
    _, left = camera.relative(frame, at[:, 0], at[:, 1])
    colour = light.shade(specks.colour[index], depth, left)
    layer, four = np.full(len(frame), FLYING_LAYER), np.full(len(frame), 4)
    fills = Fills(frame, layer, depth, index, padded, four, colour)
    return _seen(fills, seen, camera)


def _faces_camera(actor: Actor, camera: Camera, corners: np.ndarray) -> np.ndarray:
    """Whether a face looks towards the camera, shape (T, F); corners are laid out in the plane."""
    normal = actor.body.normal
    heading = actor.heading_rad + camera.road.heading(actor.x_m)
    cos, sin = np.cos(heading)[:, None], np.sin(heading)[:, None]
    nx, ny = normal[:, 0] * cos - normal[:, 1] * sin, normal[:, 0] * sin + normal[:, 1] * cos
    centre = corners.mean(axis=2)
    x, y = camera.plane_xy_m
    to_camera = nx * (x[:, None] - centre[..., 0]) + ny * (y[:, None] - centre[..., 1])
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
