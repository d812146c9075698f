"""Draws sheets of rendered videos for people to look at: is the event seen where the truth says?

    python -m autodrive.prepare dataset=synthetic out=data/looked_at
    python experiments/contact_sheets.py data/synthetic_<fingerprint> --out sheets

A row is a video, a column a moment before or after the one it is about (red frame), as the file holds it, enlarged.
Sheets: `siblings_<hazard>` (the outcomes of a scene below each other), `event_<kind>` (ten random videos of each kind),
`light_<light>_<weather>`, `driving_<kind>` (what the driver does harshly), `turns` (the sharpest bends) and
`last_frames` (nothing but those, by class).
"""

import argparse
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw
from pydantic import TypeAdapter

from autodrive.schema import SourceVideo
from autodrive.world.casting import SOFT_MPS2
from autodrive.world.settings import CLASSES

OFFSETS_S = (-1.5, -0.7, -0.3, -0.1, 0.0, 0.1, 0.3, 0.7, 1.5)
ROWS, SCENES, SCALE = 10, 4, 2
MARGIN, LINE = 4, 12
_RECORDS = TypeAdapter(list[SourceVideo])


@dataclass(frozen=True)
class Row:
    """One row of a sheet: a video, the moment it is about, in seconds, and what is said of it."""

    video: SourceVideo
    moment_s: float
    said: str


def main() -> None:
    """Draw all sheets of a folder of rendered videos."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder synthetic_<fingerprint>")
    parser.add_argument("--out", type=Path, default=Path("sheets"), help="where the PNG files go")
    parser.add_argument("--only", default=".", help="draw sheets whose name this regular expression finds")
    parser.add_argument("--seed", type=int, default=0, help="which videos are drawn")
    parser.add_argument("--scale", type=int, default=SCALE, help="enlargement")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    scenes = [_RECORDS.validate_json(path.read_bytes()) for path in sorted((chosen.folder / "scenes").glob("*.json"))]
    for name, rows in sheets(chosen.folder, scenes, np.random.default_rng(chosen.seed)):
        if rows and re.search(chosen.only, name):
            offsets = () if name == "last_frames" else OFFSETS_S
            draw(chosen.folder, rows, offsets, chosen.scale).save(chosen.out / f"{name}.png")
            print(chosen.out / f"{name}.png")


def kind_of(video: SourceVideo) -> str:
    """The kind of event that a video shows."""
    facts = video.event_metadata
    if video.ego_involved is False:
        return "witnessed"
    if video.label == "collision":
        return f"collision_{facts['impact_side']}"
    if video.label == "near_collision":
        return "near_braking" if facts["peak_decel_mps2"] > SOFT_MPS2 else "near_steering"
    return str(video.label)


def sheets(
    folder: Path, scenes: Sequence[Sequence[SourceVideo]], rng: np.random.Generator
) -> Iterable[tuple[str, list[Row]]]:
    """Every sheet's name and rows."""
    families = [[video for video in scene if video.ego_involved] for scene in scenes]
    families = [sorted(families[i], key=lambda v: CLASSES.index(str(v.label))) for i in rng.permutation(len(scenes))]
    videos = [video for scene in scenes for video in scene]
    videos = [videos[i] for i in rng.permutation(len(videos))]
    found: dict[str, list[Row]] = defaultdict(list)
    for family in families:
        found[f"siblings_{family[0].event_metadata['scenario']}"] += [at_hazard(video) for video in family]
    for video in videos:
        found[f"event_{kind_of(video)}"].append(at_hazard(video))
        found[f"light_{video.metadata['light']}_{video.metadata['weather']}"].append(at_hazard(video))
        for event in video.driving_events:
            said = f"{event.kind} {event.start_s:.1f} to {event.end_s:.1f} s, {event.severity:.1f} m/s2"
            found[f"driving_{event.kind}"].append(Row(video, (event.start_s + event.end_s) / 2, said))
    for name, rows in found.items():
        yield name, rows[: len(CLASSES) * SCENES if name.startswith("siblings") else ROWS]
    one_a_scene = {video.source_video_id: video for video in videos}.values()
    bends = [(np.abs(_truth(folder, video)["road_curvature_per_m"]), video) for video in one_a_scene]
    bends.sort(key=lambda pair: -pair[0].max())
    sharpest = [(video, np.argmax(curvature), curvature.max()) for curvature, video in bends[:ROWS] if curvature.any()]
    yield (
        "turns",
        [Row(v, float(_truth(folder, v)["frame_time_s"][t]), f"radius {1 / k:.0f} m") for v, t, k in sharpest],
    )
    by_class = [[video for video in videos if video.label == name][:24] for name in CLASSES]
    yield "last_frames", [Row(video, np.inf, str(video.label)) for group in by_class for video in group]


def at_hazard(video: SourceVideo) -> Row:
    """A row about the hazard's moment."""
    assert video.hazard_time_s is not None
    facts = video.event_metadata
    return Row(video, video.hazard_time_s, f"{kind_of(video)} {facts['scenario']} {facts['other_road_user']}")


def draw(folder: Path, rows: Sequence[Row], offsets_s: Sequence[float], scale: int) -> Image.Image:
    """One line for each row with its facts above; without offsets the last frames alone, eight to a line."""
    flat = [tile for row in rows for tile in _tiles(folder, row, offsets_s)]
    across = len(offsets_s) + 1 if offsets_s else 8
    height, width = (size * scale for size in flat[0][0].shape[:2])
    lines = -(-len(flat) // across)
    sheet = Image.new("RGB", (across * (width + MARGIN), lines * (height + 2 * LINE + MARGIN)), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (pixels, caption, marked) in enumerate(flat):
        x, y = (i % across) * (width + MARGIN), (i // across) * (height + 2 * LINE + MARGIN)
        sheet.paste(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC), (x, y + 2 * LINE))
        pen.text((x + 2, y + 1), caption, fill="black", spacing=1)
        if marked:
            pen.rectangle((x, y + 2 * LINE, x + width - 1, y + 2 * LINE + height - 1), outline="red", width=3)
    return sheet


def _truth(folder: Path, video: SourceVideo) -> dict[str, np.ndarray]:
    return dict(np.load(folder / str(video.truth), allow_pickle=False))


def _tiles(folder: Path, row: Row, offsets_s: Sequence[float]) -> list[tuple[np.ndarray, str, bool]]:
    """Frames of a video with a caption each, and whether it is the moment's."""
    last_s = float(_truth(folder, row.video)["frame_time_s"][-1])
    at_s = np.array([*(row.moment_s + offset for offset in offsets_s), last_s])
    shown = (at_s >= 0) & (at_s <= last_s + 1e-6)
    frames = _decoded(folder / row.video.road.path, np.clip(at_s, 0, last_s))
    moments = [f"{offset:+.1f} s" for offset in offsets_s] + [f"last, {last_s - row.moment_s:+.1f} s"]
    captions = [f"\n{moment}" if seen else "" for moment, seen in zip(moments, shown, strict=True)]
    captions[0] = f"{row.video.id} {row.said}" + captions[0]
    if not offsets_s:
        captions = [f"\n{row.video.id} {row.said}"]
    pixels = [frame if seen else np.full_like(frame, 255) for frame, seen in zip(frames, shown, strict=True)]
    return list(zip(pixels, captions, [*(offset == 0 for offset in offsets_s), False], strict=True))


def _decoded(path: Path, at_s: np.ndarray) -> np.ndarray:
    """(T, height, width, 3) uint8: the frames on screen at the given seconds, in any order."""
    with av.open(str(path)) as container:
        frames = [(float(frame.time or 0.0), frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    index = np.searchsorted([time_s for time_s, _ in frames], at_s + 1e-4, side="right") - 1
    return np.stack([frames[i][1] for i in index])


if __name__ == "__main__":
    main()
