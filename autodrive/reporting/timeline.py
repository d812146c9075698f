"""The picture of a whole video: class probabilities over time and frames of the window that stands out."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from autodrive.evaluation.timeline import Timeline
from autodrive.video.decoder import DecodedFrames

mpl.use("Agg")

# Okabe-Ito: distinct for colour-blind readers, in the label sets' order (normal first).
COLOURS = ("#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")


def timeline_figure(
    title: str, timeline: Timeline, class_names: Sequence[str], frames: DecodedFrames, num_frames: int = 6
) -> Figure:
    """Draw frames of the best window above the probability curves.

    Args:
        title: Title of the figure.
        timeline: Class probabilities of every window; the best one is shaded.
        class_names: Short name of each class, in the timeline's order.
        frames: Frames of the best window.
        num_frames: How many frames are shown at most, evenly spread.
    """
    frames_THWC, times_s = frames.frames_TCHW.permute(0, 2, 3, 1).numpy(), frames.timestamps_s.numpy()
    windows_s, best = timeline.windows_s, timeline.best
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
        curve = timeline.probabilities_WC[:, index]
        axes.plot(centres_s, curve, marker="o", markersize=3, color=colour, label=f"P({name})")
    axes.set(xlim=(windows_s.min(), windows_s.max()), ylim=(-0.02, 1.02), ylabel="probability")
    axes.set_xlabel("centre of the window (s from the video's first frame)")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=len(class_names) + 1, fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    return figure
