"""Draws the picture of the README: one rendered scene with its three outcomes, the question and the answers.

python docs/images/outcomes.py [FILE]     FILE defaults to docs/images/outcomes.png
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from hydra.utils import instantiate
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from PIL import Image

from autodrive.annotation.rules import ClassQuestion
from autodrive.labels import LabelSet
from autodrive.schema import SourceVideo
from autodrive.tasks.choice import LETTERS
from autodrive.video.decoder import PyAVDecoder
from autodrive.world.film import SPLIT_CODES, film_scene
from autodrive.world.physics import FRONT
from autodrive.world.settings import CLASSES, CONDITIONS, SCENARIOS, WorldSettings
from autodrive.world.siblings import draw_family

HERE = Path(__file__).resolve().parent
HEIGHT, WIDTH = 224, 448  # four times the training size, so that people see what happens
OFFSETS_S = (-1.5, -0.7, -0.35, 0.05, 0.4)  # from the contact, the same moments in every row
DPI, COLOURS = 120, 256


def draw_outcomes(target: Path) -> None:
    """Render the scene and write the picture: a row for each outcome, the same moments in all rows."""
    settings = WorldSettings(
        seed=0,
        duration_s=4.0,
        event_anywhere=False,
        fps=30,
        width=WIDTH,
        height=HEIGHT,
        scenarios=SCENARIOS,
        conditions=CONDITIONS,
        sensors="clean",
    )
    scene = _clear_scene(settings)
    with tempfile.TemporaryDirectory() as folder:
        for part in ("videos", "sensors", "truth"):
            (Path(folder) / part).mkdir()
        videos = {str(video.label): video for video in film_scene(settings, "train", scene, Path(folder))}
        contact_s = videos["collision"].event_time_s
        assert contact_s is not None
        times_s = contact_s + np.array(OFFSETS_S)
        rows = {name: _frames(Path(folder), videos[name], times_s) for name in CLASSES}
    figure = _figure(rows, times_s)
    figure.savefig(target, dpi=DPI)
    Image.open(target).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)


def _clear_scene(settings: WorldSettings) -> int:
    """The first training scene by clear day in which someone drifts over the centre line and meets the ego's front."""
    for index in range(SCENARIOS.index("oncoming_drift"), 1000, len(SCENARIOS)):
        family = draw_family(settings, SPLIT_CODES["train"], index)
        (hit,) = (sibling for sibling in family.siblings if sibling.label == "collision")
        by_clear_day = (family.scene.light, family.scene.weather) == ("day", "clear")
        seconds_shown = hit.event_s + OFFSETS_S[0] - family.window.start_s, family.window.end_s - hit.event_s
        if by_clear_day and hit.contact and hit.contact.side == FRONT and min(seconds_shown) > OFFSETS_S[-1]:
            return index
    raise RuntimeError("no such scene among the first thousand")


def _frames(folder: Path, video: SourceVideo, times_s: np.ndarray) -> np.ndarray:
    """(T, height, width, 3) uint8 frames at the given seconds of a video."""
    decoded = PyAVDecoder(num_threads=1).read(folder / video.road.path, times_s, (HEIGHT, WIDTH))
    return decoded.frames_TCHW.permute(0, 2, 3, 1).numpy()


def _figure(rows: dict[str, np.ndarray], times_s: np.ndarray) -> Figure:
    labels: LabelSet = instantiate(OmegaConf.load(HERE.parents[1] / "conf" / "labels" / "event3.yaml"))
    figure = Figure(figsize=(11.4, 4.1))
    axes = figure.subplots(
        len(rows), len(times_s), gridspec_kw={"left": 0.115, "right": 0.995, "top": 0.79, "bottom": 0.01}
    )
    figure.subplots_adjust(wspace=0.02, hspace=0.04)
    options = "      ".join(f"{LETTERS[i]}. {labels[name].option}" for i, name in enumerate(rows))
    figure.text(0.005, 0.935, f"Q: {ClassQuestion.question}", fontsize=11, weight="bold")
    figure.text(0.005, 0.87, options, fontsize=9)
    for i, (name, frames) in enumerate(rows.items()):
        for j, frame in enumerate(frames):
            axes[i, j].imshow(frame)
            axes[i, j].set_axis_off()
            if i == 0:
                axes[i, j].set_title(f"{times_s[j]:.2f} s", fontsize=8, pad=2)
        middle = axes[i, 0].get_position()
        height = (middle.y0 + middle.y1) / 2
        figure.text(0.005, height + 0.01, f"A: {LETTERS[i]}", fontsize=12, weight="bold")
        figure.text(0.005, height - 0.06, name.replace("_", "-"), fontsize=9)
    return figure


if __name__ == "__main__":
    draw_outcomes(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "outcomes.png")
