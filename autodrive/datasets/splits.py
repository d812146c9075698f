"""Which source videos are for training, validation and test: decided once, by source video, before anything else."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from autodrive.errors import InputError
from autodrive.schema import SPLITS, SourceVideo, Split


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Check that the shares of train, val and test are shares.

    Raises:
        InputError: A name is unknown, a share is negative, or they do not add up to 1.
    """
    unknown = [name for name in fractions if name not in SPLITS]
    total = sum(fractions.values())
    if unknown or any(share < 0 for share in fractions.values()) or abs(total - 1) > 1e-6:
        raise InputError(f"split_fractions={dict(fractions)}: give shares of {', '.join(SPLITS)} that add up to 1")


def assign_splits(videos: Sequence[SourceVideo], fractions: Mapping[str, float], seed: int) -> dict[str, Split]:
    """The split of every source video; all files that share a `source_video_id` are in one split.

    A split that the source gives is kept. Where it gives train and test but no val, val is taken out of train. Where it
    gives none, the seeded hash of the source video's id decides, so that adding videos moves no other one.

    Args:
        videos: Videos of the source.
        fractions: Shares of train, val and test that add up to 1.
        seed: Seed of the hash that decides.

    Returns:
        The split of each source video, by `source_video_id`.

    Raises:
        InputError: The fractions are wrong, or the source puts one source video into two splits.
    """
    check_fractions(fractions)
    given: dict[str, set[Split]] = defaultdict(set)
    for video in videos:
        given[video.source_video_id] |= {video.split} if video.split else set()
    for identity, splits in given.items():
        if len(splits) > 1:
            named = " and ".join(sorted(splits))
            raise InputError(f"source video {identity!r} is in {named}; give all of its files the same split")
    chosen: set[Split] = set().union(*given.values())
    carve = "train" in chosen and "test" in chosen and "val" not in chosen
    result: dict[str, Split] = {}
    for identity, splits in given.items():
        draw = split_draw(identity, seed)
        if not splits:
            result[identity] = _by_share(draw, fractions)
        elif carve and splits == {"train"} and draw < fractions.get("val", 0.0):
            result[identity] = "val"
        else:
            result[identity] = next(iter(splits))
    return result


def split_draw(source_video_id: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but the id and the seed."""
    digest = hashlib.sha256(f"{seed}:{source_video_id}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _by_share(draw: float, fractions: Mapping[str, float]) -> Split:
    reached = 0.0
    usable: list[Split] = [name for name in SPLITS if fractions.get(name, 0.0) > 0]
    for name in usable:
        reached += fractions[name]
        if draw < reached:
            return name
    return usable[-1]
