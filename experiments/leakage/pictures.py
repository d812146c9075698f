"""What a single frame says: a linear model on coarse colours, and a small convolutional network."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy

from autodrive.evaluation.intervals import cluster_index
from autodrive.world.settings import CLASSES
from experiments.leakage.examples import Example

# Of the mean cross entropy against the squared weights, as scikit-learn's C times the number of clips.
RIDGE_C = 50.0
EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 24, 64, 3e-3, 0.05
WIDTHS = (24, 48, 72, 96)
HELD_OUT_SHARE, PATIENCE = 0.15, 8


def coarse_guess(name: str, train: Sequence[Example], train_y: NDArray, test: Sequence[Example]) -> NDArray:
    """Ridge-penalised softmax regression on the frame in 28x14 colour cells."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=RIDGE_C / len(train), max_iter=300))
    train_NF, test_NF = (avg_pool2d(_pictures(name, part), 4).flatten(1).numpy() for part in (train, test))
    return model.fit(train_NF, train_y).predict(test_NF)


def network_guess(name: str, train: Sequence[Example], train_y: NDArray, test: Sequence[Example]) -> NDArray:
    """A small convolutional network, stopped early on scenes held out of the training ones, mirrored at random."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    pictures, labels = _pictures(name, train), torch.from_numpy(train_y)
    scene = torch.from_numpy(cluster_index([example.scene for example in train]))
    held_scenes = torch.randperm(int(scene.max()) + 1, generator=generator)[: int(HELD_OUT_SHARE * len(scene.unique()))]
    held = torch.isin(scene, held_scenes)
    fitted, kept = torch.nonzero(~held).flatten(), torch.nonzero(held).flatten()
    network = _network()
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = EPOCHS * -(-len(fitted) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.2)
    best_loss, best_state, waited = float("inf"), network.state_dict(), 0
    for _ in range(EPOCHS):
        network.train()
        for batch in fitted[torch.randperm(len(fitted), generator=generator)].split(BATCH):
            mirrored = torch.rand(len(batch), 1, 1, 1, generator=generator) < 0.5
            shown = torch.where(mirrored, pictures[batch].flip(3), pictures[batch])
            optimiser.zero_grad()
            cross_entropy(network(shown), labels[batch], label_smoothing=0.05).backward()
            optimiser.step()
            schedule.step()
        loss = float(cross_entropy(_logits(network, pictures[kept]), labels[kept]))
        if loss < best_loss:
            best_loss, waited = loss, 0
            best_state = {key: value.clone() for key, value in network.state_dict().items()}
        else:
            waited += 1
            if waited == PATIENCE:
                break
    network.load_state_dict(best_state)
    return _logits(network, _pictures(name, test)).argmax(1).numpy()


def _pictures(name: str, examples: Sequence[Example]) -> Tensor:
    pictures_NHWC = np.stack([example.frames_HWC[name] for example in examples])
    return torch.from_numpy(pictures_NHWC).permute(0, 3, 1, 2).float() / 60 - 2


def _network() -> nn.Sequential:
    layers, width = [], 3
    for wider in WIDTHS:
        layers += [nn.Conv2d(width, wider, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(wider), nn.ReLU()]
        width = wider
    # Where in the picture something is matters, so the last map is read cell by cell, not averaged.
    head = [nn.AdaptiveAvgPool2d((4, 7)), nn.Flatten(), nn.Dropout(0.3), nn.Linear(width * 28, len(CLASSES))]
    return nn.Sequential(*layers, *head)


@torch.no_grad()
def _logits(network: nn.Module, pictures: Tensor) -> Tensor:
    """Mean over the picture and its mirror image."""
    network.eval()
    return torch.cat([network(part) + network(part.flip(3)) for part in pictures.split(256)]) / 2
