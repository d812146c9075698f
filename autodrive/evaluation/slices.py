"""Scores of parts of the clips, such as those at night: which parts there are follows from the clips' metadata."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from autodrive.errors import InputError
from autodrive.schema import Clip

UNKNOWN = "unknown"
MOST_VALUES = 20


def check_slices(keys: Sequence[str], clips: Sequence[Clip]) -> None:
    """Check that clips can be told apart by these keys of their metadata.

    Raises:
        InputError: No clip has such a key, it has too many values for scores of each to mean anything, or two of its
            values would go by one name.
    """
    for key in keys:
        known = sorted({name for clip in clips for name in clip.metadata})
        if key not in known:
            choose = f"choose from {', '.join(known)}" if known else "these clips have none"
            raise InputError(f"evaluation.slices=[{key}]: no such key in the metadata of the clips; {choose}")
        values = {str(value) for clip in clips if (value := clip.metadata.get(key)) is not None}
        if len(values) > MOST_VALUES:
            message = f"evaluation.slices=[{key}]: {len(values)} values in the metadata of the clips"
            raise InputError(f"{message}, at most {MOST_VALUES} can be told apart; choose another key")
        spelled: dict[str, str] = {}
        for value in sorted(values):
            other = spelled.setdefault(slice_of({key: value}, key), value)
            if other != value:
                message = f"evaluation.slices=[{key}]: {other!r} and {value!r} have the same letters and digits"
                raise InputError(f"{message}, which name a part's scores; spell them otherwise, or choose another key")


def slice_of(metadata: Mapping[str, Any], key: str) -> str:
    """The part that a clip with these metadata is in, as it stands in the names of metrics."""
    value = metadata.get(key)
    return UNKNOWN if value is None else re.sub(r"[\W_]+", "_", str(value).lower()).strip("_")


def by_slice(ids: Iterable[str], metadata: Mapping[str, Mapping[str, Any]], key: str) -> dict[str, list[int]]:
    """Places of items by the part that their clip is in.

    Args:
        ids: The clip of each item.
        metadata: Metadata by clip id.
        key: What the parts are told apart by.
    """
    places: dict[str, list[int]] = {}
    for place, id_ in enumerate(ids):
        places.setdefault(slice_of(metadata[id_], key), []).append(place)
    return dict(sorted(places.items()))
