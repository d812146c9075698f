"""Which clips of a manifest a run can use: class, annotation, frame rate and split checks, before training starts."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autodrive.annotation.supply import AnnotatedClip
from autodrive.errors import InputError
from autodrive.labels import LabelSet
from autodrive.schema import SPLITS, Clip, SetAside, Split
from autodrive.video.frame_grid import FrameGrid, highest_usable_fps


@dataclass(frozen=True)
class Selection:
    """Usable clips by split with their annotations, and the ones that are not used, each with its reason."""

    clips: dict[Split, list[AnnotatedClip]]
    dropped: list[SetAside]
    fingerprint: str

    def counts(self) -> dict[str, dict[str, int]]:
        """Clips by split and class; clips without a class are counted under `no_class`."""
        return {split: dict(Counter(c.label or "no_class" for c in members)) for split, members in self.clips.items()}


def select_clips(
    clips: Sequence[Clip],
    annotated: Mapping[str, AnnotatedClip],
    labels: LabelSet,
    grid: FrameGrid,
    needed: Sequence[Split],
) -> Selection:
    """Sort clips into splits and set aside those this run cannot use.

    A clip without a class is used where a source has annotations for it.

    Args:
        clips: The clips of a manifest.
        annotated: Clips with their annotations, by id; those that have a split.
        labels: The run's label set.
        grid: Requested frame rate.
        needed: Splits that must not be empty ("train" must also hold every class, if it holds any).

    Raises:
        InputError: Nothing is left, a needed split is empty, or a class has no training clips.
    """
    chosen: dict[Split, list[AnnotatedClip]] = {split: [] for split in SPLITS}
    dropped: list[SetAside] = []
    for clip in clips:
        member = annotated.get(clip.id)
        reason = _reason_to_drop(clip, member, grid, labels)
        if reason is not None:
            dropped.append(SetAside(item=clip.id, reason=reason[0], detail=reason[1]))
        elif member is not None and clip.split is not None:
            chosen[clip.split].append(member)
    _check_frame_rate(clips, dropped, grid)
    _check_splits(chosen, dropped, labels, needed)
    return Selection(chosen, dropped, _fingerprint(chosen, labels))


def _reason_to_drop(
    clip: Clip, annotated: AnnotatedClip | None, grid: FrameGrid, labels: LabelSet
) -> tuple[str, str] | None:
    has_annotations = annotated is not None and bool(annotated.by_source)
    if clip.label is None and not has_annotations:
        return "no_label", "the source gives no label, and no annotation source knows it; usable for prediction only"
    if clip.label is not None and labels.class_of(clip.label) is None:
        return "label_not_in_label_set", f"label {clip.label!r} is not in labels={labels.name}"
    if clip.split is None:
        return "no_split", "the manifest assigns no split"
    if not has_annotations:
        return "no_annotations", "no annotation source knows it"
    if not grid.usable(clip.road.native_fps):
        return "frame_rate_too_high", f"fps {grid.fps:g} requested, the file has {clip.road.native_fps:.4g}"
    return None


def _check_frame_rate(clips: Sequence[Clip], dropped: Sequence[SetAside], grid: FrameGrid) -> None:
    too_slow = {d.item for d in dropped if d.reason == "frame_rate_too_high"}
    if too_slow and len(dropped) == len(clips):
        highest = highest_usable_fps(max(clip.road.native_fps for clip in clips if clip.id in too_slow))
        raise InputError(f"fps={grid.fps:g}: no clip has that frame rate; the highest usable value is fps={highest:g}")


def _check_splits(
    chosen: dict[Split, list[AnnotatedClip]], dropped: Sequence[SetAside], labels: LabelSet, needed: Sequence[Split]
) -> None:
    reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(d.reason for d in dropped).most_common())
    why = f" (set aside: {reasons})" if reasons else ""
    for split in needed:
        if not chosen[split]:
            raise InputError(
                f"clips: the {split} split is empty{why}; add {split} clips to the manifest or fix the labels"
            )
    if "train" in needed:
        present = {member.label for member in chosen["train"]} - {None}
        missing = [name for name in labels.names if name not in present]
        if present and missing:  # clips without any class can be taught what their sources say of them
            fix = "add some, or choose another label set such as labels=event2"
            raise InputError(f"labels={labels.name}: no training clips of class {', '.join(missing)}{why}; {fix}")


def _fingerprint(chosen: dict[Split, list[AnnotatedClip]], labels: LabelSet) -> str:
    """Identifies clips, files, classes, splits and annotations; an annotation's id covers all that it says."""
    digest = hashlib.sha256(labels.name.encode())
    for split in SPLITS:
        for member in sorted(chosen[split], key=lambda member: member.clip.id):
            clip, label = member.clip, member.label
            seen = [f"{name} {view.content_hash} {view.offset_s}" for name, view in sorted(clip.views.items())]
            hashes = " ".join([*seen, clip.sensors.content_hash if clip.sensors else "-"])
            digest.update(f"{split} {clip.id} {clip.start_s} {clip.end_s} {label} {hashes}\n".encode())
            digest.update(" ".join(sorted(annotation.id for annotation in member.annotations)).encode())
    return digest.hexdigest()[:16]
