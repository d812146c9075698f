"""Bystanders whose motion is fixed by the scene and who never meet anybody: oncoming cars, someone far ahead."""

import numpy as np

from autodrive.world.bodies import make_body
from autodrive.world.fills import Actor
from autodrive.world.lead_in import drive_up
from autodrive.world.motion import Play
from autodrive.world.scenario import LANE_WIDTH_M, ROAD_USERS, Scene
from autodrive.world.siblings import Family

# Bystanders who would come nearer to the ego or the other than this, centre to centre along and across, are left out.
ROOM_M = (8.0, 2.6)


def draw_traffic(family: Family, time_s: np.ndarray) -> list[Actor]:
    """Bystanders whom nobody meets in any of the outcomes, so that siblings have the same traffic."""

    def at(play: Play, values: np.ndarray) -> np.ndarray:
        return np.interp(time_s, play.time_s, values)

    def meets(actor: Actor, play: Play) -> bool:
        ways = ((play.ego_x_m, play.ego_y_m), (play.other_x_m, play.other_y_m))
        gaps = [(np.abs(actor.x_m - at(play, x)), np.abs(actor.y_m - at(play, y))) for x, y in ways]
        return any(((along < ROOM_M[0]) & (aside < ROOM_M[1])).any() for along, aside in gaps)

    return [
        actor
        for actor in _drawn(family.scene, time_s)
        if not any(meets(actor, sibling.play) for sibling in family.siblings)
    ]


def _drawn(scene: Scene, time_s: np.ndarray) -> list[Actor]:
    """Everybody who might pass by: up to three oncoming, and perhaps one far ahead."""
    rng = np.random.default_rng([scene.look_seed, 6])
    actors = []
    still, calm = np.zeros(len(time_s)), np.zeros(len(time_s), dtype=bool)
    oncoming = int(rng.integers(0, 4)) if scene.scenario in ("lead_brake", "cut_in") else 0
    lane_m = LANE_WIDTH_M * scene.oncoming_from_lane
    for _ in range(oncoming):
        user = ROAD_USERS[str(rng.choice(["car", "car", "van", "truck"]))]
        x = rng.uniform(-10, 110) - rng.uniform(10, 15) * time_s
        body = make_body(user, rng)
        actors.append(Actor(user.name, body, x, still + lane_m, still + np.pi, still, still, calm))
    if scene.scenario != "lead_brake" and rng.random() < 0.5:
        user, gap = ROAD_USERS["car"], rng.uniform(50, 75)
        # It drives as the ego does before the onset, and a little faster from then on.
        shift = drive_up(scene, float(time_s[0])).shift(time_s)
        x = gap + scene.ego_speed_mps * (time_s + 0.05 * np.maximum(time_s, 0.0)) + shift
        if scene.scenario in ("crossing_vehicle", "pedestrian", "oncoming_drift"):
            x = x + np.maximum(0.0, scene.start_xy_m[0] + 12.0 - gap)
        actors.append(Actor(user.name, make_body(user, rng), x, still, still, still, still, calm))
    return actors
