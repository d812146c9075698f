"""What of a run can be looked at: made from its folder, the same for a training and an evaluation."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from autodrive.evaluation.by_video import confusion_by_video
from autodrive.evaluation.timeline import Timeline
from autodrive.mixture.run_data import RunData
from autodrive.reporting import figures
from autodrive.reporting.run_page import FramesOf
from autodrive.runs.folder import RunFiles, read_run
from autodrive.schema import Prediction, iterate_jsonl
from autodrive.tracking.scores import headline, score_rows
from autodrive.tracking.tables import Rows, by_interest, clip_rows, confusion_rows, f1_rows
from autodrive.tracking.wandb_logger import Chart, Exhibits, Material


def run_exhibits(files: RunFiles, data: RunData, frames_of: FramesOf) -> Exhibits:
    """Scores, tables, charts and pictures of a run that has been evaluated, with what it used and made.

    Args:
        files: The run's folder, with its predictions and metrics.
        data: What the run knows of its clips.
        frames_of: Gives a clip's frames and times.
    """
    run, facts = read_run(files.folder), data.facts()
    metadata = {member.clip.id: member.clip.metadata for members in data.clips.values() for member in members}
    labels, predictions = run.labels(), run.predictions()
    asked = [p for p in predictions if p.task == run.headline_task()]
    modes = list(dict.fromkeys(p.mode for p in asked))
    shown = by_interest([p for p in asked if p.mode == modes[0]]) if modes else []
    charts: dict[str, Chart] = {}
    drawn: dict[str, Callable[[], Figure]] = {}
    for mode in modes:
        prefix = run.split() if mode == "direct" else f"{run.split()}_{mode}"
        of_mode = [p for p in asked if p.mode == mode]
        charts[f"{prefix}/confusion"] = Chart.confusion(confusion_rows(of_mode, labels), f"{prefix}: truth and reply")
        charts[f"{prefix}/f1"] = Chart.bars(f1_rows(run.metrics, labels, prefix), "class", "F1", f"{prefix}: F1")
        named = {name: labels[name].short for name in reversed(labels.names)}
        drawn[f"{prefix}/f1_intervals"] = partial(figures.f1_figure, run.metrics, named, prefix)
        counts, shorts = confusion_by_video(of_mode, labels).sum(axis=0), [labels[name].short for name in labels.names]
        drawn[f"{prefix}/confusion_shares"] = partial(figures.confusion_figure, counts, shorts)
    evaluated = run.config.get("ckpt")
    student = student_material(run.path if "ckpt" not in run.config else Path(evaluated) if evaluated else None)
    return Exhibits(
        scores=headline(run.metrics, labels.names, run.other_tasks()),
        tables={"scores": score_rows(run.metrics)},
        charts=charts,
        figures=drawn,
        clips=clip_rows(shown, labels, metadata) if shown else None,
        frames_of=frames_of,
        used=[data_material(facts), *([student] if evaluated and student else [])],
        made=[student] if student and not evaluated else [],
    )


def timeline_exhibits(
    timeline: Timeline, class_names: Sequence[str], draw: Callable[[], Figure], ckpt: Path
) -> Exhibits:
    """What of a watched video can be looked at; `draw` makes its picture."""
    shares = [[float(share) for share in row] for row in timeline.probabilities_WC]
    windows = [[float(start_s), float(end_s)] for start_s, end_s in timeline.windows_s]
    rows = [[*window, *row] for window, row in zip(windows, shares, strict=True)]
    lines = [
        [sum(window) / 2, short, share]
        for window, row in zip(windows, shares, strict=True)
        for short, share in zip(class_names, row, strict=True)
    ]
    student = student_material(ckpt)
    return Exhibits(
        scores={
            "windows": len(windows),
            "best_window/start_s": windows[timeline.best][0],
            "best_window/end_s": windows[timeline.best][1],
        },
        tables={"timeline": Rows(("start_s", "end_s", *(f"P({short})" for short in class_names)), rows)},
        charts={
            "timeline_curves": Chart.lines(
                Rows(("step", "lineKey", "lineVal"), lines), "seconds", "Probability of each class"
            )
        },
        figures={"timeline_picture": draw},
        used=[student] if student else [],
    )


def data_material(facts: Mapping[str, Any]) -> Material:
    """The clips of a run, known by their fingerprint; never sent."""
    counts = facts["clips_by_split_and_class"]
    return Material("clips", "dataset", facts["data_fingerprint"], {"clips.jsonl": Path()}, {"clips": counts})


def student_material(run: Path | None) -> Material | None:
    """The student that a training left in its folder, known by the digest of its weights; None if there is none."""
    if run is None:
        return None
    files = RunFiles(run)
    first = next(iterate_jsonl(files.predictions, Prediction), None) if files.predictions.is_file() else None
    if first is None or not files.student.is_dir():
        return None
    inside = [file for file in files.student.rglob("*") if file.is_file()]
    members = {file.relative_to(files.student).as_posix(): file for file in inside}
    facts = {"adapter": first.adapter, "bytes": {name: file.stat().st_size for name, file in members.items()}}
    return Material(first.model, "model", first.weights_digest, members, facts)
