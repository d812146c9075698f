"""Which clips of a manifest a run can use: class, frame rate and split checks, before any training starts."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from autodrive.errors import InputError
from autodrive.labels import LabelSet
from autodrive.schema import SPLITS, Clip, SetAside, Split
from autodrive.video.frame_grid import FrameGrid, highest_usable_fps


@dataclass(frozen=True)
class Selection:
    """Usable clips by split with their classes, and the ones that are not used, each with its reason."""

    clips: dict[Split, list[tuple[Clip, str]]]
    dropped: list[SetAside]
    fingerprint: str

    def counts(self) -> dict[str, dict[str, int]]:
        """Clips by split and class."""
        return {split: dict(Counter(label for _, label in members)) for split, members in self.clips.items()}


def select_clips(clips: Sequence[Clip], labels: LabelSet, grid: FrameGrid, needed: Sequence[Split]) -> Selection:
    """Sort clips into splits and set aside those this run cannot use.

    Args:
        clips: a manifest.
        labels: the run's label set.
        grid: Requested frame rate.
        needed: splits that must not be empty ("train" must also hold every class).

    Raises:
        InputError: nothing is left, a needed split is empty, or a class has no training clips.
    """
    chosen: dict[Split, list[tuple[Clip, str]]] = {split: [] for split in SPLITS}
    dropped: list[SetAside] = []
    for clip in clips:
        label = labels.class_of(clip.label) if clip.label is not None else None
        reason = _reason_to_drop(clip, label, grid, labels)
        if reason is not None:
            dropped.append(SetAside(item=clip.id, reason=reason[0], detail=reason[1]))
        elif label is not None and clip.split is not None:
            chosen[clip.split].append((clip, label))
    _check_frame_rate(clips, dropped, grid)
    _check_splits(chosen, dropped, labels, needed)
    return Selection(chosen, dropped, _fingerprint(chosen, labels))


def _reason_to_drop(clip: Clip, label: str | None, grid: FrameGrid, labels: LabelSet) -> tuple[str, str] | None:
    if clip.label is None:
        return "no_label", "the source gives no label; usable for prediction only"
    if label is None:
        return "label_not_in_label_set", f"label {clip.label!r} is not in labels={labels.name}"
    if clip.split is None:
        return "no_split", "the manifest assigns no split"
    if not grid.usable(clip.road.native_fps):
        return "frame_rate_too_high", f"fps {grid.fps:g} requested, the file has {clip.road.native_fps:.4g}"
    return None


def _check_frame_rate(clips: Sequence[Clip], dropped: Sequence[SetAside], grid: FrameGrid) -> None:
    if clips and sum(d.reason == "frame_rate_too_high" for d in dropped) == len(clips):
        highest = highest_usable_fps(max(clip.road.native_fps for clip in clips))
        raise InputError(f"fps={grid.fps:g}: no clip has that frame rate; the highest usable value is fps={highest:g}")


def _check_splits(
    chosen: dict[Split, list[tuple[Clip, str]]], dropped: Sequence[SetAside], labels: LabelSet, needed: Sequence[Split]
) -> None:
    reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(d.reason for d in dropped).most_common())
    why = f" (set aside: {reasons})" if reasons else ""
    for split in needed:
        if not chosen[split]:
            raise InputError(
                f"clips: the {split} split is empty{why}; add {split} clips to the manifest or mend the labels"
            )
    if "train" in needed:
        present = {label for _, label in chosen["train"]}
        missing = [name for name in labels.names if name not in present]
        if missing:
            mend = "add some, or choose another label set such as labels=event2"
            raise InputError(f"labels={labels.name}: no training clips of class {', '.join(missing)}{why}; {mend}")


def _fingerprint(chosen: dict[Split, list[tuple[Clip, str]]], labels: LabelSet) -> str:
    digest = hashlib.sha256(labels.name.encode())
    for split in SPLITS:
        for clip, label in sorted(chosen[split], key=lambda member: member[0].id):
            files = [*(view for _, view in sorted(clip.views.items())), *([clip.sensors] if clip.sensors else [])]
            hashes = " ".join(file.content_hash for file in files)
            digest.update(f"{split} {clip.id} {clip.start_s} {clip.end_s} {label} {hashes}\n".encode())
    return digest.hexdigest()[:16]
