"""What is said of some clips, beside their frames: a page to look at before anything is trained on it."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from autodrive.annotation.stages import Item
from autodrive.reporting import pages
from autodrive.reporting.run_page import FramesOf, strip
from autodrive.schema import Annotation, Clip
from autodrive.seeding import generator_for
from autodrive.video.container import UnusableVideo
from autodrive.video.decoder import Decoder
from autodrive.video.frame_grid import NATIVE_FPS_RATIO, FrameGrid
from autodrive.whole_files import whole

WIDTH_PIXELS = 224
FRAMES = 8


def choose_clips(items: Sequence[Item], annotations: Iterable[Annotation], num: int, seed: int) -> list[Item]:
    """Clips to show, with their annotations: of every class in turn, drawn by a seed, in their own order.

    Args:
        items: The clips.
        annotations: What is kept about them.
        num: Most clips to show.
        seed: Seed of the draw.
    """
    about: dict[str, list[Annotation]] = {}
    for annotation in annotations:
        about.setdefault(annotation.clip_id, []).append(annotation)
    by_class: dict[str | None, list[int]] = {}
    for index in generator_for(seed, "page").permutation(len(items)):
        if items[index].clip.id in about:
            by_class.setdefault(items[index].label, []).append(int(index))
    most = max(map(len, by_class.values()), default=0)
    in_turn = [members[turn] for turn in range(most) for members in by_class.values() if turn < len(members)]
    shown = sorted(in_turn[:num])
    return [Item(items[i].clip, items[i].facts, items[i].label, tuple(about[items[i].clip.id])) for i in shown]


def frames_with(decoder: Decoder, clips: Iterable[Clip]) -> FramesOf:
    """Gives a few frames of a clip by its id; None where its video cannot be read."""
    by_id = {clip.id: clip for clip in clips}

    def frames_of(clip_id: str):
        clip = by_id[clip_id]
        view = clip.road
        # Below the native rate: there the grid would take every frame.
        fps = min(FRAMES / (clip.end_s - clip.start_s), NATIVE_FPS_RATIO * view.native_fps * 0.999)
        requested_s = FrameGrid(fps).timestamps(clip.start_s, clip.end_s, view.native_fps, phase=0.5)
        size = max(2, round(WIDTH_PIXELS * view.height / view.width / 2) * 2), WIDTH_PIXELS
        try:
            decoded = decoder.read(Path(view.path), requested_s, size)
        except UnusableVideo:
            return None
        return decoded.frames_TCHW.permute(0, 2, 3, 1).numpy(), decoded.timestamps_s.numpy() - clip.start_s

    return frames_of


def write_annotation_page(path: Path, items: Sequence[Item], frames_of: FramesOf, remark: str) -> None:
    """Write the page.

    Args:
        path: The HTML file.
        items: The clips to show, with their annotations.
        frames_of: Gives a clip's frames, and their times in seconds from its start.
        remark: A sentence below the title.
    """
    cases = []
    for item in items:
        frames = frames_of(item.clip.id)
        rows = [
            {
                "task": annotation.task,
                "question": annotation.question,
                "options": ", ".join(option.replace("_", " ") for option in annotation.options),
                "answer": annotation.answer.replace("_", " ") if annotation.options else annotation.answer,
                "trace": annotation.think or "",
                "generator": annotation.generator,
            }
            for annotation in item.annotations
        ]
        cases.append(
            {
                "clip": item.clip.id,
                "label": (item.label or "no class").replace("_", " "),
                "split": item.clip.split or "no split",
                "strip": [] if frames is None else strip(np.asarray(frames[0]), frames[1]),
                "rows": rows,
            }
        )
    page = pages.render("annotation_page.html.j2", title="Annotations", remark=remark, cases=cases)
    with whole(path) as partial:
        partial.write_text(page, encoding="utf-8")
