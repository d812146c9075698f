"""The picture of a whole video: class probabilities over time and frames of the window that stands out."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

mpl.use("Agg")

# Okabe-Ito: distinct for colour-blind readers, in the label sets' order (normal first).
COLOURS = ("#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")


def draw_timeline(
    path: Path,
    title: str,
    class_names: Sequence[str],
    windows_s: NDArray[np.float64],
    probabilities_WC: NDArray[np.float64],
    best: int,
    frames_THWC: NDArray[np.uint8],
    times_s: NDArray[np.float64],
    num_frames: int = 6,
) -> None:
    """Draw frames of the best window above the probability curves and save a PNG.

    Args:
        path: the PNG.
        title: of the figure.
        class_names: one per column of the probabilities.
        windows_s: (W, 2) start and end of every window.
        probabilities_WC: (W, classes).
        best: index of the window whose frames are shown and which is shaded.
        frames_THWC: uint8 RGB frames of that window.
        times_s: (T,) their times in the video.
        num_frames: most frames shown, evenly spread.
    """
    shown = np.unique(np.linspace(0, len(frames_THWC) - 1, num_frames).round().astype(int))
    figure = Figure(figsize=(11, 4.6), dpi=110, layout="constrained")
    grid = figure.add_gridspec(2, len(shown), height_ratios=[1, 1.6])
    for column, index in enumerate(shown):
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(frames_THWC[index])
        axes.set_title(f"{times_s[index]:.2f} s", fontsize=9)
        axes.set_axis_off()
    axes = figure.add_subplot(grid[1, :])
    centres_s = windows_s.mean(axis=1)
    axes.axvspan(*windows_s[best], color="0.5", alpha=0.18, label="shown above")
    for index, name in enumerate(class_names):
        colour = COLOURS[index % len(COLOURS)]
        axes.plot(centres_s, probabilities_WC[:, index], marker="o", markersize=3, color=colour, label=f"P({name})")
    axes.set(xlim=(windows_s.min(), windows_s.max()), ylim=(-0.02, 1.02), ylabel="probability")
    axes.set_xlabel("centre of the window (s from the video's first frame)")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", fontsize=8, framealpha=0.9)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path)
