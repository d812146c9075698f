"""What a rendered world is made of; two data sets with equal settings hold identical videos."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from autodrive.errors import InputError

SCENARIOS = ("lead_brake", "cut_in", "crossing_vehicle", "pedestrian", "oncoming_drift")
CONDITIONS = ("day", "dusk", "night", "rain", "fog")
CLASSES = ("normal", "near_collision", "collision")
SensorQuality = Literal["clean", "rough"]
# Raised whenever rendering or physics changes, so that cached videos of an older world are not mixed with new ones.
RENDERER_VERSION = 10


@dataclass(frozen=True)
class WorldSettings:
    """Everything that decides what the videos look like, apart from how many there are.

    Attributes:
        seed: Root of all randomness; scene i of a split depends on (seed, split, i) only.
        duration_s: Length of every video. From 4 s on, a longer video of the same scene has the same event and more
            lead-in.
        event_anywhere: Place the event anywhere in the video instead of near its end (for long videos).
        fps: Frames per second of the videos, which a student's rate cannot exceed.
        width: Pixels of the picture, an even number.
        height: Pixels of the picture, an even number.
        scenarios: Hazards to draw from, in equal shares.
        conditions: Light and weather to draw from.
        witnessed_every: One scene in so many comes with a collision of two others, filmed by the ego; 0: none does.
        sensors: Clean sensors have noise only; rough ones are tilted, biased, on slopes, and their GPS is late.
    """

    seed: int
    duration_s: float
    event_anywhere: bool
    fps: int
    width: int
    height: int
    scenarios: tuple[str, ...]
    conditions: tuple[str, ...]
    sensors: SensorQuality
    witnessed_every: int = 0

    def __post_init__(self) -> None:
        _check_names("scenarios", self.scenarios, SCENARIOS)
        _check_names("conditions", self.conditions, CONDITIONS)
        if self.width % 2 or self.height % 2 or self.width < 32 or self.height < 16:
            raise InputError(f"dataset.width/height: {self.width}x{self.height} must be even and at least 32x16")
        if self.duration_s < 1 or self.fps < 5:
            raise InputError(f"dataset: needs duration_s >= 1 and native_fps >= 5, got {self.duration_s}, {self.fps}")

    @property
    def num_frames(self) -> int:
        """Frames of every video."""
        return max(1, round(self.duration_s * self.fps))

    def fingerprint(self) -> str:
        """A short hash of the settings and the renderer's version; names the folder that holds the videos."""
        key = json.dumps({"renderer": RENDERER_VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(key.encode()).hexdigest()[:12]


def _check_names(key: str, chosen: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        raise InputError(f"dataset.{key}: {unknown or 'empty'}; choose from {', '.join(known)}")
