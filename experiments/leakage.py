"""What can be guessed without watching: first frame, last frame and file size of the rendered clips.

python experiments/leakage.py data/synthetic-<hash>/clips.jsonl

Fits a softmax regression on the train split for each of them and reports test accuracy with a 95 % interval over
scenes.
Chance is 1/3; siblings share their first frame, so a first-frame reader must stay there.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import avg_pool2d, cross_entropy

from autodrive.datasets.manifest import load_clips
from autodrive.evaluation.intervals import cluster_index, resample_counts, score_interval
from autodrive.schema import Clip
from autodrive.video.decoder import PyAVDecoder

FRAME_INTERVAL_S = 1 / 30
RIDGE = 1e-2


def file_size(clip: Clip) -> list[float]:
    """Bytes and their square root, in units that a linear model likes."""
    size = Path(clip.road.path).stat().st_size / 1e5
    return [size, size**0.5, size**2]


def frame_at(time_s: Callable[[Clip], float]) -> Callable[[Clip], list[float]]:
    """Reads one frame as 28x14 colour cells."""

    def read(clip: Clip) -> list[float]:
        frames = PyAVDecoder().read(Path(clip.road.path), np.array([time_s(clip)]), (clip.road.height, clip.road.width))
        return (avg_pool2d(frames.frames_TCHW[0].float(), 4) / 60 - 2).flatten().tolist()

    return read


PROBES: dict[str, Callable[[Clip], list[float]]] = {
    "file size": file_size,
    "first frame": frame_at(lambda clip: clip.start_s),
    "last frame": frame_at(lambda clip: clip.end_s - FRAME_INTERVAL_S),
}


def fit_and_predict(train_NF: NDArray, train_y: NDArray, test_NF: NDArray) -> NDArray[np.int64]:
    """Ridge-penalised softmax regression on standardised features."""
    mean, std = train_NF.mean(0), train_NF.std(0) + 1e-6
    x = torch.tensor((train_NF - mean) / std, dtype=torch.float32)
    y = torch.tensor(train_y)
    weights = torch.zeros(x.shape[1] + 1, int(y.max()) + 1, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=200)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = cross_entropy(x @ weights[1:] + weights[0], y) + RIDGE * weights[1:].square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    z = torch.tensor((test_NF - mean) / std, dtype=torch.float32)
    return (z @ weights[1:] + weights[0]).argmax(1).numpy()


def main() -> None:
    """Run every probe on one manifest."""
    parser = argparse.ArgumentParser(description="What can be guessed without watching.")
    parser.add_argument("clips", type=Path)
    clips = load_clips(parser.parse_args().clips)
    names = sorted({str(clip.label) for clip in clips})
    train, test = ([c for c in clips if c.split == split] for split in ("train", "test"))
    truth = np.array([names.index(str(c.label)) for c in test])
    clusters = cluster_index([c.source_video_id for c in test])
    counts_BC = resample_counts(int(clusters.max()) + 1, np.random.default_rng(0))
    for name, read in PROBES.items():
        train_NF, test_NF = np.array([read(c) for c in train]), np.array([read(c) for c in test])
        predicted = fit_and_predict(train_NF, np.array([names.index(str(c.label)) for c in train]), test_NF)
        correct = (predicted == truth).astype(float)
        weights_BN = counts_BC[:, clusters]
        resampled_B = (weights_BN * correct).sum(1) / weights_BN.sum(1)
        interval = score_interval(correct.mean(), resampled_B, counts_BC.shape[1])
        print(f"{name:12} N={len(test)} accuracy {correct.mean():.3f} [{interval.low:.3f}, {interval.high:.3f}]")


if __name__ == "__main__":
    main()
