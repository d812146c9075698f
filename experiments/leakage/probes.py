"""All probes in order, their bounds, and the table of what they reach."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from autodrive.world.settings import CLASSES
from experiments.leakage import ceiling, pictures, telemetry
from experiments.leakage.examples import CRITICAL, FIXED_TIMES, Example
from experiments.leakage.scoring import Limit, Result, score

RATES = {1: Limit(most=0.70), 5: None, 15: Limit(least=0.95), 30: None}
SHOWN = "boxes and shake, 15 fps"
COARSE = {"first": None, "last": Limit(most=0.50)}
CHANCE = 1 / len(CLASSES)
FACTS = ("scenario", "impact_side")


@dataclass(frozen=True)
class Task:
    """Train and held-out examples with their classes as numbers (the order of `CLASSES`)."""

    train: list[Example]
    train_y: NDArray
    held: list[Example]
    held_y: NDArray

    @property
    def scenes(self) -> list[str]:
        """Scene of each held-out example."""
        return [example.scene for example in self.held]

    def with_frame(self, name: str) -> "Task":
        """Only the examples that have a frame of this name."""
        return make_task(*([e for e in part if name in e.frames_HWC] for part in (self.train, self.held)))


@dataclass(frozen=True)
class Guess:
    """What one probe calls every held-out example of a task, and the accuracy it should have."""

    probe: str
    predicted: NDArray
    task: Task
    limit: Limit | None


@dataclass(frozen=True)
class Report:
    """What the probes reached.

    Attributes:
        results: One for each probe, in order.
        confusion: Rows are classes, columns what the ceiling at `SHOWN` called them.
        breakdown: Of the same, clips and accuracy by a fact of the clip.
    """

    results: list[Result]
    confusion: list[list[int]]
    breakdown: dict[str, dict[str, dict[str, float]]]

    def table(self) -> str:
        """For people."""
        lines = [f"{'probe':42} {'N':>5} accuracy {'95 % interval':16} {'bound':12}"]
        for r in self.results:
            verdict = {None: "", True: "met", False: "NOT MET"}[r.met]
            interval = f"[{r.low:.3f}, {r.high:.3f}]"
            lines.append(f"{r.probe:42} {r.num:5} {r.accuracy:8.3f} {interval:16} {r.limit:12} {verdict}".rstrip())
        if self.confusion:
            lines += ["", f"{SHOWN}: class, and what it is called ({', '.join(CLASSES)})"]
            lines += [f"{name:16} {row}" for name, row in zip(CLASSES, self.confusion, strict=True)]
        for fact, values in self.breakdown.items():
            lines += ["", f"{SHOWN} by {fact}"]
            lines += [f"{value:40} N={v['num']:.0f} {v['accuracy']:.3f}" for value, v in sorted(values.items())]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "results": [asdict(result) for result in self.results]}


def make_task(train: Sequence[Example], held: Sequence[Example]) -> Task:
    """Examples with their classes as numbers."""
    train_y, held_y = (np.array([CLASSES.index(example.label) for example in part]) for part in (train, held))
    return Task(list(train), train_y, list(held), held_y)


def run_probes(train: Sequence[Example], held: Sequence[Example], kinds: Sequence[str]) -> Report:
    """Fit the probes of these kinds on one part, and score them on the other."""
    results, pair_results, confusion, breakdown = [], [], [], {}
    for kind in kinds:
        for guess in PROBES[kind](make_task(train, held)):
            task = guess.task
            results.append(score(guess.probe, guess.predicted, task.held_y, task.scenes, guess.limit))
            if guess.probe == SHOWN:
                pair_results = list(_two_classes(guess))
                confusion = confusion_matrix(task.held_y, guess.predicted, labels=range(len(CLASSES))).tolist()
                breakdown = {fact: _by(fact, guess) for fact in FACTS}
    return Report(results + pair_results, confusion, breakdown)


def _two_classes(guess: Guess) -> Iterator[Result]:
    """How well the three-class guesses part two kinds of clips."""
    predicted, truth, scenes = guess.predicted, guess.task.held_y, np.array(guess.task.scenes)
    yield score(f"{guess.probe}: normal or not", predicted == 0, truth == 0, scenes.tolist())
    for name, kept in (
        ("near or collision", truth > 0),
        ("normal or near", truth < 2),
        ("normal or collision", truth != 1),
    ):
        yield score(f"{guess.probe}: {name}", predicted[kept], truth[kept], scenes[kept].tolist())


def _by(fact: str, guess: Guess) -> dict[str, dict[str, float]]:
    """Clips and accuracy for each value of a fact and class."""
    right = defaultdict(list)
    for example, truth, predicted in zip(guess.task.held, guess.task.held_y, guess.predicted, strict=True):
        right[f"{example.facts.get(fact)}, {example.label}"].append(truth == predicted)
    return {value: {"num": len(hits), "accuracy": float(np.mean(hits))} for value, hits in right.items()}


def _ceiling(task: Task) -> Iterator[Guess]:
    for fps, limit in RATES.items():
        predicted = ceiling.ceiling_guess(task.train, task.train_y, task.held, fps)
        yield Guess(f"boxes and shake, {fps} fps", predicted, task, limit)


def _coarse(task: Task) -> Iterator[Guess]:
    for name, limit in COARSE.items():
        yield Guess(
            f"{name} frame, 28x14 cells", pictures.coarse_guess(name, task.train, task.train_y, task.held), task, limit
        )


def _network(task: Task) -> Iterator[Guess]:
    for name in (*FIXED_TIMES, CRITICAL):
        part = task.with_frame(name)
        predicted = pictures.network_guess(name, part.train, part.train_y, part.held)
        yield Guess(f"{name} frame, small network", predicted, part, None if name == CRITICAL else Limit(most=0.60))


def _telemetry(task: Task) -> Iterator[Guess]:
    for name, value, limit in (
        ("lowest acceleration, two thresholds", telemetry.lowest_acceleration_mps2, Limit(0.55, 0.75)),
        ("strongest turn of gyroscope, two thresholds", telemetry.strongest_turn_radps, None),
        ("strongest shake of camera, two thresholds", telemetry.strongest_shake_rad, None),
    ):
        yield Guess(name, telemetry.threshold_guess(value, task.train, task.train_y, task.held), task, limit)
    best, predicted = telemetry.gps_guess(task.train, task.train_y, task.held)
    yield Guess(f"GPS speed, {best}", predicted, task, Limit(most=0.60))


def _file_size(task: Task) -> Iterator[Guess]:
    predicted = telemetry.file_size_guess(task.train, task.train_y, task.held)
    yield Guess("file size, trees", predicted, task, Limit(most=CHANCE, within_interval=True))


PROBES = {
    "ceiling": _ceiling,
    "coarse": _coarse,
    "network": _network,
    "telemetry": _telemetry,
    "file_size": _file_size,
}
