"""Whether a student looks, and how steady it is, in words and rows: the same on a run's page and in the terminal."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

from autodrive.evaluation.paired_test import LEVEL
from autodrive.reporting.terminal import with_interval
from autodrive.schema import ProbeName

SHOWN: Mapping[ProbeName, str] = {
    "blind": "without the video",
    "shuffled": "with another clip's video",
    "frozen": "with one frame of the video",
    "noise": "with noise over the video",
}
NEEDS_NO_VIDEO: tuple[ProbeName, ...] = ("blind", "shuffled")
HEADER = ("shown", "accuracy", "accuracy lost", "")


class Loss(NamedTuple):
    """What a probe takes away.

    Attributes:
        probe: The probe.
        prefix: First part of its keys.
        found: What the paired test finds: a loss, a gain, or no difference beyond noise; None where there is no test.
    """

    probe: ProbeName
    prefix: str
    found: Literal["lost", "gained", "within noise"] | None


def losses(metrics: Mapping[str, float], split: str) -> list[Loss]:
    """The probes that a run was asked under, with the headline task."""
    found: list[Loss] = []
    for name in get_args(ProbeName):
        for prefix in (f"{split}_{name}", f"{split}_{name}_reasoning"):
            if f"{prefix}/accuracy_lost" in metrics:
                p_value = metrics.get(f"{prefix}/accuracy_lost_p_value")
                test = None
                if p_value is not None:
                    direction = "lost" if metrics[f"{prefix}/accuracy_lost"] > 0 else "gained"
                    test = direction if p_value < LEVEL else "within noise"
                found.append(Loss(name, prefix, test))
    return found


def blindness(metrics: Mapping[str, float], split: str) -> str | None:
    """The sentence about a student that does as well without its clip's video; None if it does not, or nobody asked."""
    for probe, prefix, found in losses(metrics, split):
        if probe in NEEDS_NO_VIDEO and found in ("within noise", "gained"):
            own = metrics[f"{prefix}/accuracy"] + metrics[f"{prefix}/accuracy_lost"]
            detectable = 100 * metrics[f"{prefix}/accuracy_lost_detectable"]
            scores = f"{100 * metrics[f'{prefix}/accuracy']:.1f} % {SHOWN[probe]}, {100 * own:.1f} % with its own"
            how = "within noise" if found == "within noise" else "no loss"
            return (
                f"It is not shown that this student looks: accuracy is {scores}, which is {how} "
                f"({_points(metrics, prefix)}; from {detectable:.1f} points on a loss would mostly be found)."
            )
    return None


def probe_rows(metrics: Mapping[str, float], split: str) -> list[tuple[str, str, str, str]]:
    """For each probe what was shown, the accuracy, what is lost, and what the paired test says; see `HEADER`."""
    return [
        (
            SHOWN[probe],
            with_interval(metrics, f"{prefix}/accuracy", percent=True),
            _points(metrics, prefix),
            found or "one source video: not tested",
        )
        for probe, prefix, found in losses(metrics, split)
    ]


def sampled_rows(metrics: Mapping[str, float], split: str) -> list[tuple[str, str]]:
    """How steady drawn replies to the headline task are, mode by mode; empty where none were drawn."""
    rows: list[tuple[str, str]] = []
    for prefix, mode in ((split, "direct"), (f"{split}_reasoning", "reasoning")):
        if f"{prefix}/sampled_accuracy" in metrics:
            accuracy = with_interval(metrics, f"{prefix}/sampled_accuracy", percent=True)
            spread = 100 * metrics[f"{prefix}/sampled_accuracy_spread"]
            agreement = with_interval(metrics, f"{prefix}/agreement", percent=True)
            rows.append((f"pairs of drawn replies that agree, {mode}", agreement))
            rows.append((f"accuracy of drawn replies, {mode}", f"{accuracy}, from draw to draw ± {spread:.1f} points"))
    return rows


def _points(metrics: Mapping[str, float], prefix: str) -> str:
    """A loss in points, with its interval and p value where it was tested."""
    key = f"{prefix}/accuracy_lost"
    text = f"{100 * metrics[key]:+.1f} points"
    if f"{key}_p_value" not in metrics:
        return text
    low, high = (100 * metrics[f"{key}_ci_{end}"] for end in ("low", "high"))
    return f"{text} [{low:+.1f}, {high:+.1f}], p = {metrics[f'{key}_p_value']:.2g}"
