"""Which clips of a manifest a run can use: class, annotation, frame rate and split checks, before training starts."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autodrive.annotation.supply import AnnotatedClip
from autodrive.counted import counted
from autodrive.errors import InputError
from autodrive.labels import LabelSet
from autodrive.mixture.set_aside import lines_about_clips
from autodrive.schema import SPLITS, Clip, SetAside, Split
from autodrive.video.frame_grid import FrameChoice, FrameGrid, highest_usable_fps


@dataclass(frozen=True)
class Selection:
    """Which clips a run uses.

    Attributes:
        clips: Usable clips by split, with their annotations.
        dropped: The clips that are not used, each with its reason.
        lines: How many of the wanted splits those are, why, and what would use them.
        fingerprint: Identifies clips, files, classes, splits and annotations.
    """

    clips: dict[Split, list[AnnotatedClip]]
    dropped: list[SetAside]
    lines: list[str]
    fingerprint: str

    def counts(self) -> dict[str, dict[str, int]]:
        """Clips by split and class; clips without a class are counted under `no_class`."""
        return {split: dict(Counter(c.label or "no_class" for c in members)) for split, members in self.clips.items()}


@dataclass(frozen=True)
class Wanted:
    """What a run needs clips for.

    Attributes:
        splits: Splits that must not be empty.
        trains: Whether the train split is taught: then it must also hold every class, if it holds any.
        label_sets: The label sets that the run could have chosen, for hints.
    """

    splits: Sequence[Split]
    trains: bool
    label_sets: Sequence[LabelSet] = ()


def select_clips(
    clips: Sequence[Clip],
    annotated: Mapping[str, AnnotatedClip],
    labels: LabelSet,
    grid: FrameChoice,
    wanted: Wanted,
) -> Selection:
    """Sort clips into splits and set aside those this run cannot use.

    A clip without a class is used where a source has annotations for it.

    Args:
        clips: The clips of a manifest.
        annotated: Clips with their annotations, by id; those that have a split.
        labels: The run's label set.
        grid: When clips are looked at; those of files that do not serve a frame rate are set aside.
        wanted: What the run needs.

    Raises:
        InputError: Nothing is left, a split is empty, or a class has no training clips.
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
    if isinstance(grid, FrameGrid):
        _check_frame_rate(clips, dropped, grid)
    _check_splits(chosen, lines_about_clips(clips, dropped, SPLITS, wanted.label_sets), labels, wanted)
    lines = lines_about_clips(clips, dropped, wanted.splits, wanted.label_sets)
    return Selection(chosen, dropped, lines, _fingerprint(chosen, labels))


def _reason_to_drop(
    clip: Clip, annotated: AnnotatedClip | None, grid: FrameChoice, labels: LabelSet
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
    if isinstance(grid, FrameGrid) and not grid.usable(clip.road.native_fps):
        return "frame_rate_too_high", f"fps {grid.fps:g} requested, the file has {clip.road.native_fps:.4g}"
    return None


def _check_frame_rate(clips: Sequence[Clip], dropped: Sequence[SetAside], grid: FrameGrid) -> None:
    too_slow = {d.item for d in dropped if d.reason == "frame_rate_too_high"}
    if too_slow and len(dropped) == len(clips):
        rates = [clip.road.native_fps for clip in clips if clip.id in too_slow]
        highest, lowest = highest_usable_fps(max(rates)), highest_usable_fps(min(rates))
        keeps = f", and fps={lowest:g} keeps all" if lowest < highest else ""
        message = f"fps={grid.fps:g}: no clip has that frame rate; the highest usable value is fps={highest:g}"
        raise InputError(f"{message}{keeps}")


def _check_splits(
    chosen: dict[Split, list[AnnotatedClip]], lines: Sequence[str], labels: LabelSet, wanted: Wanted
) -> None:
    why = "".join(f"; {line}" for line in lines)
    for split in wanted.splits:
        if not chosen[split]:
            name = "{}" if wanted.trains else "split={}"  # an evaluation could take another one
            held = [
                f"{name.format(other)} holds {counted(len(members), 'clip')}"
                for other, members in chosen.items()
                if members
            ]
            there = f" ({', '.join(held)})" if held else ""
            raise InputError(f"clips: the {split} split is empty{there}{why}; add {split} clips to the manifest")
    if wanted.trains:
        present = {member.label for member in chosen["train"]} - {None}
        missing = [name for name in labels.names if name not in present]
        if present and missing:  # clips without any class can be taught what their sources say of them
            fix = "add some, or choose another label set such as labels=event2"
            raise InputError(f"labels={labels.name}: no training clips of class {', '.join(missing)}{why}; {fix}")


def _fingerprint(chosen: dict[Split, list[AnnotatedClip]], labels: LabelSet) -> str:
    """Identifies clips, files, classes, splits and annotations, these by what they say, not by their ids."""
    digest = hashlib.sha256(labels.name.encode())
    for split in SPLITS:
        for member in sorted(chosen[split], key=lambda member: member.clip.id):
            clip, label = member.clip, member.label
            seen = [f"{name} {view.content_hash} {view.offset_s}" for name, view in sorted(clip.views.items())]
            hashes = " ".join([*seen, clip.sensors.content_hash if clip.sensors else "-"])
            digest.update(f"{split} {clip.id} {clip.start_s} {clip.end_s} {label} {hashes}\n".encode())
            digest.update(" ".join(sorted(annotation.content for annotation in member.annotations)).encode())
    return digest.hexdigest()[:16]
