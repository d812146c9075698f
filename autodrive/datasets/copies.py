"""Videos with equal bytes under several names: one of them stays, so that nothing counts twice or leaks into a test."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from autodrive.schema import SetAside, SourceVideo

# What copies must not contradict each other in; what only one of them says does not.
FACTS = ("label", "split", "event_time_s", "alert_time_s", "ego_involved")


def find_copies(videos: Sequence[SourceVideo], content_hashes: Mapping[str, str]) -> dict[str, SetAside]:
    """What to set aside among videos whose road views hold the same bytes.

    Of copies that agree, the one that says most stays, and of those the first; the others are `repeated_content`. Of
    copies that contradict each other (`contradicting_copies`) none stays, since nobody can tell which is right.

    Args:
        videos: The usable videos of a source.
        content_hashes: Content hash of the road view by video id.

    Returns:
        The line of each video that is set aside, by its id.
    """
    groups: dict[str, list[SourceVideo]] = defaultdict(list)
    for video in videos:
        groups[content_hashes[video.id]].append(video)
    aside: dict[str, SetAside] = {}
    for copies in groups.values():
        said = {fact: {value for copy in copies if (value := getattr(copy, fact)) is not None} for fact in FACTS}
        contradictions = [fact for fact, values in said.items() if len(values) > 1]
        kept = (
            None if contradictions else max(copies, key=lambda copy: sum(getattr(copy, f) is not None for f in FACTS))
        )
        for copy in copies:
            if copy is kept:
                continue
            others = ", ".join(other.id for other in copies if other is not copy)
            if contradictions:
                fact = contradictions[0]
                detail = f"the same bytes as {others}, but {fact} is {getattr(copy, fact)!r} here; keep the right one"
                aside[copy.id] = SetAside(item=copy.id, reason="contradicting_copies", detail=detail)
            else:
                detail = f"the same bytes as {kept.id if kept else others}, which is used"
                aside[copy.id] = SetAside(item=copy.id, reason="repeated_content", detail=detail)
    return aside
