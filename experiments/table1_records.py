r"""Writes records of the size of VLM-AutoDrive's Table 1, without a video: 53,000 clips and their annotations.

    python experiments/table1_records.py out=/tmp/table1 [share=1.0]
    python train.py mixture=table1 annotations=[annotated,av_reasoning] clips=/tmp/table1/clips.jsonl \\
        annotations.caption.path=/tmp/table1/rules.jsonl annotations.vlm_caption.path=/tmp/table1/models.jsonl \\
        annotations.av_reasoning.path=/tmp/table1/av.jsonl dry_run=true

Clips are spread over source videos of seven windows, as many of each class as the paper has; 198 clips each for
validation and test come on top. Texts are of the length that such texts have; what they say is of no account.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from autodrive.schema import ROAD, Annotation, Clip, Split, View, write_jsonl

CLIPS = {"normal": 43_000, "near_collision": 9_000, "collision": 1_000}
TEST_CLIPS_PER_CLASS = 66
WINDOW_S, STRIDE_S, WINDOWS_PER_VIDEO = 6.0, 34 / 6, 7
CAPTION = (
    "A grey van drives ahead in light rain; it brakes, the ego car closes in and stops about two metres behind it."
)
TRACE = (
    "From 0.4 s the van ahead brakes. At 1.9 s the gap is down to two metres and the ego car brakes hard. "
    "At 2.8 s both stand, and the picture does not shake. So nothing was touched, but it was close."
)


def clips_of(split: Split, counts: dict[str, int]) -> Iterator[Clip]:
    """So many clips of each class, seven windows of a video after each other."""
    labels = [label for label, count in counts.items() for _ in range(count)]
    for number, label in enumerate(labels):
        video, window = divmod(number, WINDOWS_PER_VIDEO)
        start_s = window * STRIDE_S
        name = f"{split}_{video:05d}"
        view = View(path=f"videos/{name}.mp4", content_hash=f"{video:032x}", native_fps=30.0, width=1280, height=720)
        event_s = None if label == "normal" else start_s + WINDOW_S / 2
        yield Clip(
            id=f"{name}#{window}",
            dataset="table1",
            source_video_id=name,
            views={ROAD: view},
            label=label,
            event_time_s=event_s,
            ego_involved=None if event_s is None else True,
            split=split,
            start_s=start_s,
            end_s=start_s + WINDOW_S,
            metadata={"weather": "rain", "light": "day"},
        )


def by_rules(clips: list[Clip], count: int) -> Iterator[Annotation]:
    """Captions of the first clips, of the classes in turn as they come."""
    for number, clip in enumerate(clips[:count]):
        text = f"{CAPTION} It is the clip of video {number}."
        yield Annotation.create(clip.id, "caption", "Describe the clip.", text, "rule/2")


def by_models(clips: list[Clip], share: float) -> Iterator[Annotation]:
    """Captions, free questions and traces of the number that Table 1 prints for models."""
    generator = "openai:model@0123456789ab"
    classes = tuple(CLIPS)
    for number in range(round(50_000 * share)):
        clip = clips[number % len(clips)]
        yield Annotation.create(clip.id, "caption", "Describe the clip.", f"{CAPTION} Seen {number}.", generator)
    for number in range(round(124_000 * share)):
        clip = clips[number % len(clips)]
        question = f"What does road user {number % 40} do?"
        yield Annotation.create(clip.id, "vqa", question, f"It brakes and stops behind the van, {number}.", generator)
    for number in range(round(12_000 * share)):
        clip, think = clips[-1 - number % len(clips)], f"{TRACE} {number}"
        question = "What happens in this clip?"
        yield Annotation.create(
            clip.id, "reasoning_mcq", question, str(clip.label), generator, options=classes, think=think
        )
    for number in range(round(10_000 * share)):
        clip, think = clips[-1 - number % len(clips)], f"{TRACE} {number}"
        yield Annotation.create(
            clip.id, "reasoning_vqa", "Who could have avoided it?", "The van.", generator, think=think
        )


def by_others(clips: list[Clip], share: float) -> Iterator[Annotation]:
    """Driving questions with traces, as those of Cosmos-Reason1."""
    for number in range(round(12_000 * share)):
        clip, think = clips[number % len(clips)], f"{TRACE} {number}"
        question = f"What should the driver do next? ({number})"
        yield Annotation.create(clip.id, "reasoning_vqa", question, "Keep a longer gap.", "source:av/1", think=think)


def write_records(out: Path, share: float = 1.0) -> None:
    """Write clips.jsonl, rules.jsonl, models.jsonl and av.jsonl into a folder, or a share of each."""
    out.mkdir(parents=True, exist_ok=True)
    train = list(clips_of("train", {label: round(count * share) for label, count in CLIPS.items()}))
    asked = dict.fromkeys(CLIPS, TEST_CLIPS_PER_CLASS)
    write_jsonl(out / "clips.jsonl", [*train, *clips_of("val", asked), *clips_of("test", asked)])
    write_jsonl(out / "rules.jsonl", by_rules(train, round(20_000 * share)))
    write_jsonl(out / "models.jsonl", by_models(train, share))
    write_jsonl(out / "av.jsonl", by_others(train, share))


if __name__ == "__main__":
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    write_records(Path(given["out"]), float(given.get("share", 1)))
