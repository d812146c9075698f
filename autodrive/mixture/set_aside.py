"""What a run leaves out, in lines for people: how much of what, why, and what would use it."""

from collections import Counter
from collections.abc import Sequence

from autodrive.counted import counted
from autodrive.labels import LabelSet
from autodrive.schema import Clip, SetAside, Split
from autodrive.video.frame_grid import highest_usable_fps

MAX_LABELS = 5
HINTS = {
    "no_label": "a label, or annotations of them, would use them",
    "no_split": "a split in the manifest would use them",
    "no_annotations": "an annotation source that knows them would use them",
}


def lines_about_clips(
    clips: Sequence[Clip], dropped: Sequence[SetAside], splits: Sequence[Split], label_sets: Sequence[LabelSet]
) -> list[str]:
    """One line for each of these splits that lost clips, and one for the clips of no split.

    Args:
        clips: All clips of a manifest.
        dropped: What is set aside of them.
        splits: The splits that matter to the run.
        label_sets: The label sets that a run can choose from.
    """
    reasons = {item.item: item.reason for item in dropped}
    lines = []
    for split in (*splits, None):
        members = [clip for clip in clips if clip.split == split]
        lost = [clip for clip in members if clip.id in reasons]
        if not lost:
            continue
        parts = []
        for reason, count in Counter(reasons[clip.id] for clip in lost).most_common():
            hint = _hint(reason, [clip for clip in lost if reasons[clip.id] == reason], label_sets)
            parts.append(f"{count} {reason}" + (f" ({hint})" if hint else ""))
        what = f"{split} clip" if split else "clip"
        without = "" if split else " without a split"
        lines.append(f"{len(lost)} of {counted(len(members), what)}{without} set aside: {', '.join(parts)}")
    return lines


def line_about_annotations(set_aside: Sequence[SetAside]) -> list[str]:
    """One line if annotations are set aside."""
    if not set_aside:
        return []
    reasons = Counter(item.reason for item in set_aside).most_common()
    counts = ", ".join(f"{count} {reason}" for reason, count in reasons)
    return [f"{counted(len(set_aside), 'annotation')} set aside: {counts}; dropped.jsonl names each"]


def _hint(reason: str, clips: Sequence[Clip], label_sets: Sequence[LabelSet]) -> str:
    """What would use these clips, which are set aside for one reason."""
    if reason == "frame_rate_too_high":
        return f"fps={highest_usable_fps(min(clip.road.native_fps for clip in clips)):g} would use all"
    if reason != "label_not_in_label_set":
        return HINTS.get(reason, "")
    labels = Counter(str(clip.label) for clip in clips)
    shown = [f"{label!r} {count}" for label, count in labels.most_common(MAX_LABELS)]
    text = ", ".join(shown) + (", …" if len(labels) > MAX_LABELS else "")
    known = {s.name: sum(n for label, n in labels.items() if s.class_of(label) is not None) for s in label_sets}
    best = max(known, key=lambda name: known[name], default=None)
    if best is None or not known[best]:
        return text
    return f"{text}; labels={best} would use {'all' if known[best] == len(clips) else known[best]}"
