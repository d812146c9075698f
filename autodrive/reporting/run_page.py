"""One run as one web page: scores, pictures, the clips it got wrong, and where it came from."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from autodrive.counted import counted
from autodrive.entry_point import shell_line
from autodrive.errors import InputError
from autodrive.evaluation.by_video import confusion_by_video
from autodrive.labels import LabelSet
from autodrive.reporting import figures, looking, pages
from autodrive.reporting.terminal import task_rows, with_interval
from autodrive.runs.folder import RunFolder, read_run
from autodrive.schema import Prediction
from autodrive.whole_files import whole

STRIP_FRAMES = 8
STRIP_WIDTH_PIXELS = 224


# clip id -> RGB uint8 frames (T, H, W, 3) and their times (T,) in seconds; None where the video is gone
FramesOf = Callable[[str], tuple[NDArray[np.uint8], NDArray[np.float64]] | None]


def write_run_page(run_dir: Path, frames_of: FramesOf | None = None, num_strips: int = 12) -> Path:
    """Write `report.html` into a finished run folder and return its path.

    Args:
        run_dir: Run folder; `metrics.csv` and `provenance.json` may be missing.
        frames_of: Gives a clip's frames and times; without it there are no strips.
        num_strips: How many misclassified clips are shown at most.

    Raises:
        InputError: The folder's files are missing or broken.
    """
    run = read_run(run_dir)
    labels = run.labels()
    asked = [p for p in run.predictions() if p.task == run.headline_task()]
    direct = [p for p in asked if p.mode == "direct"]
    wrong = [p for p in direct if p.parsed != p.answer]
    split = run.split()
    modes = [prefix for prefix in (split, f"{split}_reasoning") if f"{prefix}/n" in run.metrics]
    page = pages.render(
        "run_page.html.j2",
        title=f"Run {run_dir.resolve().name}",
        blindness=looking.blindness(run.metrics, split),
        headline=_headline(run.metrics, modes[0]) if modes else "This run has no scores.",
        folded=labels.remark,
        tables=[_score_table(run.metrics, labels, prefix, reasoning=prefix != split) for prefix in modes],
        others=[(f"Task {name}", rows) for name in run.other_tasks() if (rows := _task(run, name))],
        parts=[(f"By {key.replace('_', ' ')}", _slices(run.metrics, split, key)) for key in run.slices()],
        probes=looking.probe_rows(run.metrics, split),
        sampled=looking.sampled_rows(run.metrics, split),
        retention=_retention(run.metrics),
        pictures=_pictures(run, labels, direct),
        num_wrong=len(wrong),
        num_asked=len(direct),
        cases=[_case(p, labels, frames_of) for p in choose_cases(wrong, num_strips)],
        dropped=_count(item.reason for item in run.dropped()),
        mixture=_flat(run.provenance().get("mixture", {})),
        provenance=_flat({k: v for k, v in run.provenance().items() if k != "mixture"}),
        command=_command(run),
    )
    with whole(run.files.page) as partial:
        partial.write_text(page, encoding="utf-8")
    return run.files.page


def choose_cases(wrong: Sequence[Prediction], limit: int) -> list[Prediction]:
    """Misclassified clips to show: the kinds of mistake in turn, so that none crowds out another."""
    kinds: dict[tuple[str, str | None], list[Prediction]] = {}
    for prediction in sorted(wrong, key=lambda p: p.clip_id):
        kinds.setdefault((prediction.answer, prediction.parsed), []).append(prediction)
    chosen: list[Prediction] = []
    for turn in range(max(map(len, kinds.values()), default=0)):
        chosen += [kind[turn] for kind in kinds.values() if turn < len(kind)]
    return chosen[:limit]


def loss_curves(path: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Loss columns of a CSV log as (steps, losses); empty if there is no log.

    Raises:
        InputError: The file is no such log.
    """
    if not path.is_file():
        return {}
    curves: dict[str, tuple[list[float], list[float]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for column, cell in row.items():
                    if column and "loss" in column and cell and row.get("step"):
                        steps, losses = curves.setdefault(column, ([], []))
                        steps.append(float(row["step"]))
                        losses.append(float(cell))
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path}: no log of losses ({error}); remove it, or run again") from None
    return curves


def _headline(metrics: Mapping[str, float], prefix: str) -> str:
    clips = counted(metrics[f"{prefix}/n"], f"{prefix.partition('_')[0]} clip")
    return (
        f"Accuracy {with_interval(metrics, f'{prefix}/accuracy', percent=True)}, "
        f"incident or not {with_interval(metrics, f'{prefix}/binary_accuracy', percent=True)}, "
        f"on {clips} of {counted(metrics[f'{prefix}/num_source_videos'], 'source video')}."
    )


def _score_table(metrics: Mapping[str, float], labels: LabelSet, prefix: str, *, reasoning: bool) -> dict[str, Any]:
    rows = []
    for name in reversed(labels.names):
        scores = (with_interval(metrics, f"{prefix}/{name}_{score}") for score in ("precision", "recall", "f1"))
        rows.append([labels[name].short, *scores, f"{100 * metrics[f'{prefix}/predicted_{name}']:.0f} %"])
    facts = [
        ("Accuracy", with_interval(metrics, f"{prefix}/accuracy", percent=True)),
        ("Binary accuracy (collapsed)", with_interval(metrics, f"{prefix}/binary_accuracy", percent=True)),
        ("Unread replies, counted as wrong", f"{metrics[f'{prefix}/parse_failure_count']:.0f}"),
        ("Average precision of P(incident)", with_interval(metrics, f"{prefix}/average_precision")),
    ]
    if f"{prefix}/trace_emission_rate" in metrics:
        rate = with_interval(metrics, f"{prefix}/trace_emission_rate", percent=True)
        facts.append(("Replies with a well-formed trace", rate))
    title = "Reasoning, then answer" if reasoning else "Direct answers"
    return {"title": f"{title}, N = {metrics[f'{prefix}/n']:.0f}", "rows": rows, "facts": facts}


def _task(run: RunFolder, name: str) -> list[tuple[str, str]]:
    """The scores of a task other than the headline's, in both modes."""
    direct, reasoning = (task_rows(run.metrics, f"{run.split()}{mode}/{name}_") for mode in ("", "_reasoning"))
    return [*direct, *((f"{score}, reasoning", value) for score, value in reasoning)]


def _slices(metrics: Mapping[str, float], split: str, key: str) -> list[tuple[str, str]]:
    """Direct accuracy of the parts of the clips that have each value of a key of their metadata."""
    start, end = f"{split}/{key}_", "_accuracy"
    values = [name.removeprefix(start).removesuffix("_n") for name in metrics if re.fullmatch(f"{start}.*_n", name)]
    return [
        (f"{value.replace('_', ' ')}, N = {metrics[f'{start}{value}_n']:.0f}", with_interval(metrics, score, True))
        for value in sorted(values)
        if (score := f"{start}{value}{end}") in metrics
    ]


def _retention(metrics: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Score, value before the training (a dash where nobody was asked) and value after it."""
    rows = []
    for mode in ("", "_reasoning"):
        start = f"retention{mode}/"
        for name in sorted(key for key in metrics if key.startswith(start) and f"{key}_ci_low" in metrics):
            before = f"retention_before{mode}/{name.removeprefix(start)}"
            title = name.removeprefix(start).replace("_", " ") + (", reasoning" if mode else "")
            rows.append((title, with_interval(metrics, before, True), with_interval(metrics, name, True)))
    return rows


def _pictures(run: RunFolder, labels: LabelSet, direct: Sequence[Prediction]) -> list[tuple[str, str]]:
    shorts = [labels[name].short for name in labels.names]
    drawn = []
    if direct:
        confusion = confusion_by_video(direct, labels).sum(axis=0)
        drawn.append(("Confusion matrix, direct answers", figures.confusion_figure(confusion, shorts)))
    if f"{run.split()}/n" in run.metrics:
        named = dict(zip(reversed(labels.names), reversed(shorts), strict=True))
        drawn.append(("F1 of each class with 95 % intervals", figures.f1_figure(run.metrics, named, run.split())))
    curves = loss_curves(run.files.losses)
    if curves:
        drawn.append(("Training loss", figures.loss_figure(curves)))
    return [(caption, pages.inline_png(figures.to_png(figure))) for caption, figure in drawn]


def _case(prediction: Prediction, labels: LabelSet, frames_of: FramesOf | None) -> dict[str, Any]:
    frames = frames_of(prediction.clip_id) if frames_of else None
    read = labels[prediction.parsed].short if prediction.parsed in labels.names else f"unread ({prediction.failure})"
    return {
        "clip": prediction.clip_id,
        "question": prediction.question,
        "truth": labels[prediction.answer].short,
        "read": read,
        "reply": prediction.reply,
        "probabilities": _probability_text(prediction, labels),
        "strip": [] if frames is None else strip(*frames),
    }


def _probability_text(prediction: Prediction, labels: LabelSet) -> str:
    if not prediction.option_log_probs:
        return ""
    exponentials = np.exp(np.array(prediction.option_log_probs) - max(prediction.option_log_probs))
    pairs = zip(prediction.options, exponentials / exponentials.sum(), strict=True)
    return ", ".join(f"P({labels.shown[name].short}) {share:.2f}" for name, share in pairs)


def strip(frames_THWC: NDArray[np.uint8], times_s: NDArray[np.float64]) -> list[tuple[str, str]]:
    """Evenly spread frames, the first and the last among them, as (caption, picture address)."""
    total, height, width = frames_THWC.shape[:3]
    size = (STRIP_WIDTH_PIXELS, max(1, round(height * STRIP_WIDTH_PIXELS / width)))
    strip = []
    for index in np.unique(np.linspace(0, total - 1, STRIP_FRAMES).round().astype(int)):
        shown = cv2.resize(frames_THWC[index], size, interpolation=cv2.INTER_AREA)
        strip.append((f"{times_s[index]:.2f} s", pages.inline_jpeg(np.asarray(shown, dtype=np.uint8))))
    return strip


def _flat(facts: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in facts.items():
        name = f"{above}{key}"
        rows += _flat(value, f"{name} / ") if isinstance(value, Mapping) else [(name, str(value))]
    return rows


def _count(reasons: Iterable[str]) -> list[tuple[str, int]]:
    return sorted(Counter(reasons).items())


def _command(run: RunFolder) -> str:
    """The run's command as a line for a shell; Hydra's own quotes are in the overrides already."""
    return shell_line("eval" if "ckpt" in run.config else "train", run.command_line())
