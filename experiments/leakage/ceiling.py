"""What the film shows, as numbers for boosted trees: boxes of road users and the camera's shake at a frame rate.

The same function serves every rate and sees nothing but the sampled frames. Tracks of the road users (`tracks.py`) give
gap, closing speed and time to collision in each frame; the camera's angles give jolts, dives and turns. Features
describe these at the moments that decide a class: closest approach, greatest danger, abruptest change, strongest jolt,
and the end. Trees then decide; they are told nothing of the hazard.

Letters in shapes: T sampled frames, O road users.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from autodrive.video.frame_grid import FrameGrid
from autodrive.video.sampler import choose_frames
from autodrive.world.projection import Lens
from autodrive.world.scenario import ROAD_USERS
from experiments.leakage.examples import Example
from experiments.leakage.tracks import FAR_M, NEVER_S, Tracks, read_tracks

Floats = NDArray[np.float64]

PHASES = (0.0, 0.25, 0.5, 0.75)  # grids of the training clips, as shares of a sampled frame
NUM_OBJECTS, NUM_BLOCKS = 3, 6
VIEW = ("camera_pitch_rad", "camera_roll_rad", "camera_yaw_rad", "road_curvature_per_m")
# Boxes and angles are known to this part of a pixel.
VISIBLE_PX = 0.25
NEAR_M = (0.4, 1.0, 2.5, 5.0)
AROUND_S, SHIFT_S = 0.2, 0.5
# Times to arrival within which a predicted miss counts.
SOON_S = (0.7, 1.0, 1.5, 1.9)
# Slower contact would do no harm: queues creep that close.
HARMLESS_MPS = 3.0


def film_features(example: Example, fps: float, phase: float = 0.0) -> Floats:
    """All features of one clip at one frame rate."""
    truth = example.truth
    wanted_s = FrameGrid(fps).timestamps(0.0, example.duration_s, example.native_fps, phase)
    index = choose_frames(truth["frame_time_s"].astype(float), wanted_s)
    view_T4 = np.stack([truth[name][index].astype(float) for name in VIEW], axis=1)
    lens = Lens(*truth["lens_half_view_rad"].tolist(), *truth["lens_angles_rad"].tolist())
    view_T4[:, :3] = _visible(view_T4[:, :3], VISIBLE_PX / example.size_px[1] * 2 * lens.half_view_rad)
    # Some road users that are never in view, so that there are always enough to describe.
    boxes_TO4 = np.pad(truth["object_boxes_px"][index], ((0, 0), (0, NUM_OBJECTS), (0, 0)), constant_values=np.nan)
    classes = [*truth["object_class"].tolist(), *["car"] * NUM_OBJECTS]
    tracks = read_tracks(
        _visible(boxes_TO4.astype(float), VISIBLE_PX), classes, view_T4, lens, example.size_px, 1 / fps
    )
    return describe(tracks, classes, view_T4[:, :3], 1 / fps)


def _visible(values: Floats, finest: float) -> Floats:
    """Rounded to what a picture of that size can tell apart."""
    return np.round(values / finest) * finest


class Shake:
    """The camera's own motion; arrays have shape (T, 3): pitch, roll, yaw.

    Attributes:
        angle: Radians.
        turn: Change of the rate of turn at a frame, radians per frame.
        kick: Size of it.
    """

    def __init__(self, angles_T3: Floats, step_s: float) -> None:
        self.angle = angles_T3
        self.turn = np.zeros_like(angles_T3)
        self.turn[1:-1] = angles_T3[2:] - 2 * angles_T3[1:-1] + angles_T3[:-2]
        self.kick = np.abs(self.turn)
        self.around, self.shift = max(1, round(AROUND_S / step_s)), max(1, round(SHIFT_S / step_s))

    def at(self, t: int) -> list[float]:
        """Jolts around a frame, and by how much the angles differ before and after it."""
        part = slice(max(t - self.around, 0), t + self.around + 1)
        before, after = self.angle[max(t - self.shift, 0) : t + 1], self.angle[t : t + self.shift + 1]
        lasting = after[-1] - before[0]
        return [*self.kick[part].max(0), *np.ptp(self.angle[part], axis=0), *lasting, *np.ptp(after, axis=0)]

    def course(self, t: int) -> list[float]:
        """Pitch and roll in the frames about a blow, against where they stood before it."""
        index = np.clip(t + np.arange(-1, 6), 0, len(self.angle) - 1)
        return (self.angle[index, :2] - self.angle[max(t - 2, 0), :2]).flatten().tolist()


def describe(tracks: Tracks, classes: Sequence[str], angles_T3: Floats, step_s: float) -> Floats:
    """Features of the road users that came closest, of the strongest jolts, and of the window part by part."""
    shake = Shake(angles_T3, step_s)
    soonest_TO = np.minimum(tracks.ttc_s, tracks.flank_s)
    order = np.argsort(tracks.gap_m.min(0) + soonest_TO.min(0))[:NUM_OBJECTS]
    approaches = [_approach(tracks, int(o), classes[int(o)], shake, step_s) for o in order]
    return np.concatenate([*approaches, _jolts(tracks, shake, step_s), _course(tracks, shake)])


def _approach(tracks: Tracks, o: int, name: str, shake: Shake, step_s: float) -> list[float]:
    """One road user: its moments of closest approach, greatest danger and abruptest change, extremes, and the end."""
    gap, ahead, aside = (values[:, o] for values in (tracks.gap_m, tracks.ahead_m, tracks.aside_m))
    closing, inward, need = (values[:, o] for values in (tracks.closing_mps, tracks.inward_mps, tracks.need_mps2))
    fast = np.where(closing > HARMLESS_MPS, tracks.ttc_s[:, o], NEVER_S)
    ttc = np.minimum(fast, tracks.flank_s[:, o])
    change = np.zeros_like(gap)
    change[1:] = np.abs(np.diff(closing)) * np.exp(-gap[:-1] / 2)
    kick = shake.kick.max(1)
    closest, urgent, abrupt = int(np.argmax(gap < gap.min() + 0.05)), int(ttc.argmin()), int(change.argmax())
    plain = int(np.where(tracks.shown[:, o], ttc, FAR_M).argmin())
    hit = int((kick * np.exp(-gap)).argmax())
    features = [
        ROAD_USERS[name].height_m,
        gap.min(),
        ttc.min(),
        fast.min(),
        tracks.flank_s[:, o].min(),
        tracks.ttc_s[:, o].min(),
        need.max(),
        change.max(),
        float(tracks.shown[:, o].mean()),
    ]
    shown = tracks.shown[:, o]
    visible = [np.where(shown, values, FAR_M).min() for values in (gap, fast, tracks.flank_s[:, o])]
    features += [*visible, float(np.where(shown, need, 0).max())]
    in_path = np.where(aside < 0, ahead, FAR_M)
    beside = np.where(ahead < 0, aside, FAR_M)
    features += [in_path.min(), beside.min(), (kick * np.exp(-gap)).max()]
    for soon_s in SOON_S:
        features.append(float(np.where(tracks.enter_s[:, o] < soon_s, tracks.miss_m[:, o], FAR_M).min()))
        features.append(
            float(
                np.where(
                    (tracks.enter_s[:, o] < soon_s) & tracks.shown[:, o] & (ahead > 1), tracks.miss_m[:, o], FAR_M
                ).min()
            )
        )
    features += [tracks.inner[:, o].min(), tracks.inner_per_s[:, o].min(), tracks.inner_per_s[:, o].max()]
    for t in (closest, urgent, plain, int(tracks.inner_per_s[:, o].argmin()), abrupt, hit, len(gap) - 1):
        features += [*_state(tracks, o, t, step_s), *shake.at(t)]
    for near_m in NEAR_M:
        near = gap < near_m
        features += [
            float(np.where(near, closing, -40).max()),
            float(np.where(near, inward, -40).max()),
            float(np.where(near, kick, 0).max()),
            float(np.where(near, change, 0).max()),
            float(near.mean()),
        ]
    return features


def _state(tracks: Tracks, o: int, t: int, step_s: float) -> list[float]:
    """Where a road user is at a frame and how it moves before, at and after it."""
    last = len(tracks.gap_m) - 1
    soon = max(1, round(0.3 / step_s))
    speeds = [tracks.closing_mps[min(max(t + d, 0), last), o] for d in (-soon, -1, 0, 1, soon)]
    sideways = [tracks.inward_mps[min(max(t + d, 0), last), o] for d in (-1, 0, 1, soon)]
    later = min(t + soon, last)
    return [
        (last - t) * step_s,
        tracks.ahead_m[t, o],
        tracks.aside_m[t, o],
        tracks.centre_m[t, o],
        tracks.gap_m[t, o],
        tracks.ttc_s[t, o],
        tracks.flank_s[t, o],
        tracks.need_mps2[t, o],
        tracks.enter_s[t, o],
        tracks.miss_m[t, o],
        tracks.inner[t, o],
        tracks.inner_per_s[t, o],
        tracks.gap_m[later, o],
        float(tracks.shown[later, o]),
        *speeds,
        *sideways,
    ]


def _jolts(tracks: Tracks, shake: Shake, step_s: float) -> list[float]:
    """The strongest jolts, nose up, nose down, to a side, in yaw and of all: what the camera does, and who is near."""
    features: list[float] = []
    kicks = [shake.turn[:, 0], -shake.turn[:, 0], shake.kick[:, 1], shake.kick[:, 2], shake.kick.max(1)]
    for kick in kicks:
        t = int(kick.argmax())
        features += [kick[t], (len(kick) - 1 - t) * step_s, *shake.at(t), *shake.course(t)]
        features += _state(tracks, int(tracks.gap_m[t].argmin()), t, step_s)
    return features


def _course(tracks: Tracks, shake: Shake) -> list[float]:
    """Extremes in each of a few equal parts of the window."""
    features: list[float] = []
    # At low rates parts share frames, so that none is empty.
    edges = np.linspace(0, len(shake.angle), NUM_BLOCKS + 1)
    for start, end in zip(np.floor(edges[:-1]).astype(int), np.ceil(edges[1:]).astype(int), strict=True):
        part = slice(start, end)
        features += [tracks.gap_m[part].min(), tracks.ttc_s[part].min(), tracks.need_mps2[part].max()]
        for values in (shake.angle[part], shake.turn[part]):
            features += [*values.max(0), *values.min(0)]
    return features


def ceiling_guess(train: Sequence[Example], train_y: NDArray, test: Sequence[Example], fps: float) -> NDArray:
    """Boosted trees on the film's features, trained on several grids of each clip."""
    native = train[0].native_fps
    phases = PHASES if fps < 0.95 * native else PHASES[:1]
    train_NF = np.concatenate([[film_features(e, fps, phase) for e in train] for phase in phases])
    test_NF = np.array([film_features(e, fps) for e in test])
    model = HistGradientBoostingClassifier(
        max_iter=250,
        learning_rate=0.07,
        max_leaf_nodes=12,
        min_samples_leaf=15,
        l2_regularization=1.0,
        max_features=0.3,
        random_state=0,
    )
    return model.fit(train_NF, np.tile(train_y, len(phases))).predict(test_NF)
