"""What a single number says: lowest acceleration, GPS speed, strongest jolt, size of the file."""

from collections.abc import Callable, Sequence
from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from autodrive.world.settings import CLASSES
from experiments.leakage.examples import Example

BLOCK_S = 0.33
# Places where a threshold may lie, as quantiles of the training values.
NUM_THRESHOLDS = 300


def lowest_acceleration_mps2(example: Example) -> float:
    """The lowest mean of longitudinal acceleration over consecutive blocks of 0.33 s."""
    time_s, accel = example.sensors["imu_time_s"], example.sensors["imu_accel_mps2"][:, 0]
    block = np.floor((time_s + 1e-4) / BLOCK_S).astype(int)
    counts = np.bincount(block)
    means = np.bincount(block, weights=accel) / counts
    return float(means[counts >= counts.max() // 2].min())


def strongest_turn_radps(example: Example) -> float:
    """The gyroscope's largest reading about any axis."""
    return float(np.linalg.norm(example.sensors["imu_gyro_radps"], axis=1).max())


def strongest_shake_rad(example: Example) -> float:
    """The largest change of the camera's pitch or roll from one frame to the next."""
    pitch_rad, roll_rad, _ = example.truth["lens_angles_rad"]
    angles = (example.truth["camera_pitch_rad"] - pitch_rad, example.truth["camera_roll_rad"] - roll_rad)
    return float(max(np.abs(np.diff(angle)).max() for angle in angles))


def gps_features(example: Example) -> NDArray[np.float64]:
    """Speeds of the window's GPS fixes, their differences and extremes."""
    speed = example.sensors["gps_speed_mps"].astype(float)
    change = np.diff(speed)
    return np.concatenate([speed, change, np.diff(change), [speed.min(), speed.max(), change.min(), change.max()]])


def gps_guess(train: Sequence[Example], train_y: NDArray, test: Sequence[Example]) -> tuple[str, NDArray]:
    """The better of two classifiers by cross-validation on the training scenes, and its guesses."""
    shortest = min(len(e.sensors["gps_speed_mps"]) for e in (*train, *test))
    train_NF, test_NF = (np.array([gps_features(_shortened(e, shortest)) for e in part]) for part in (train, test))
    models = {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "trees": HistGradientBoostingClassifier(max_iter=100, learning_rate=0.05, max_leaf_nodes=8, random_state=0),
    }
    groups = np.array([e.scene for e in train])
    scores = {
        name: cross_val_score(model, train_NF, train_y, groups=groups, cv=GroupKFold(5)).mean()
        for name, model in models.items()
    }
    best = max(scores, key=lambda name: scores[name])
    return best, models[best].fit(train_NF, train_y).predict(test_NF)


def file_size_guess(train: Sequence[Example], train_y: NDArray, test: Sequence[Example]) -> NDArray:
    """Boosted trees on the bytes of the file."""
    model = HistGradientBoostingClassifier(max_iter=50, learning_rate=0.05, max_leaf_nodes=4, random_state=0)
    train_NF, test_NF = (np.array([[float(e.num_bytes or 0)] for e in part]) for part in (train, test))
    return model.fit(train_NF, train_y).predict(test_NF)


def threshold_guess(
    value: Callable[[Example], float], train: Sequence[Example], train_y: NDArray, test: Sequence[Example]
) -> NDArray:
    """Two thresholds on one number, and an order of the classes, that name the most training clips rightly."""
    train_N, test_N = (np.array([value(example) for example in part]) for part in (train, test))
    cuts_K = np.unique(np.quantile(train_N, np.linspace(0, 1, NUM_THRESHOLDS)))
    below_KC = np.array([[(train_N[train_y == c] < cut).sum() for c in range(len(CLASSES))] for cut in cuts_K])
    total_C = np.bincount(train_y, minlength=len(CLASSES))
    best, chosen = -1, ((0, 1, 2), 0.0, 0.0)
    for order in permutations(range(len(CLASSES))):
        low, middle, high = order
        # right[i, j]: clips named rightly with thresholds cuts[i] <= cuts[j].
        left, right = below_KC[:, low] - below_KC[:, middle], below_KC[:, middle] - below_KC[:, high]
        score_KK = np.where(cuts_K[:, None] <= cuts_K[None], left[:, None] + right[None], -1) + total_C[high]
        i, j = np.unravel_index(score_KK.argmax(), score_KK.shape)
        if score_KK[i, j] > best:
            best, chosen = score_KK[i, j], (order, cuts_K[i], cuts_K[j])
    order, lower, upper = chosen
    return np.array(order)[(test_N >= lower).astype(int) + (test_N >= upper)]


def _shortened(example: Example, num: int) -> Example:
    """With the last `num` GPS fixes: windows differ by one at their edges."""
    return Example(
        **{**vars(example), "sensors": {**example.sensors, "gps_speed_mps": example.sensors["gps_speed_mps"][-num:]}}
    )
