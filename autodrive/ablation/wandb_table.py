"""An ablation table in Weights & Biases: one run per sweep, and rows of one schema that stand beside other sweeps'."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from autodrive.ablation.files import csv_rows, drawn_metrics
from autodrive.ablation.published import Metric
from autodrive.ablation.rows import AblationRow, Score
from autodrive.ablation.table import AblationSummary
from autodrive.runs.folder import RunFolder
from autodrive.tracking.record import Identity, RunRecord, Scalar, flat, without_places
from autodrive.tracking.tables import Rows
from autodrive.tracking.tracker import Tracker, UnfailingLogger
from autodrive.tracking.wandb_logger import Chart, Exhibits, WandbRunLogger

log = logging.getLogger(__name__)

ABLATIONS = (
    "sweep",
    "paper_table",
    "axis",
    "row",
    "paper_row",
    "metric",
    "unit",
    "ours",
    "ours_low",
    "ours_high",
    "published",
    "n",
    "num_clips",
    "num_seeds",
    "status",
    "verdict",
    "split",
    "student",
    "dataset",
    "labels",
    "scale",
)
"""Columns of the table `ablations`: the same for every sweep, whatever it varies; W&B lays runs' tables of one schema
on top of each other, so that they may only grow at the end."""


def log_ablation(
    summary: AblationSummary, runs: Sequence[RunFolder], folder: Path, name: str, project: str = "vlm-autodrive"
) -> None:
    """Log a table as one run of kind `table`; logged again from the same folder, it takes the place of the earlier one.

    Args:
        summary: The table to log.
        runs: The runs that it was made of.
        folder: The sweep's or the report's folder; W&B keeps its own files there.
        name: Name of the sweep, whose runs are the group that the table belongs to.
        project: Name of the W&B project.

    Raises:
        InputError: W&B's mode or key is wrong.
    """
    earlier = Identity.of(folder)
    if earlier is not None and earlier.project != project:
        earlier = None
    seen = {key: ",".join(dict.fromkeys(run.choices.get(key, "") for run in runs)) for key in ("student", "dataset")}
    config: dict[str, Scalar] = flat(
        {
            "run": {"name": f"{name} table", "group": name, "job_type": "table"},
            "table": summary.table.id if summary.table else "",
            "axis": ",".join(summary.axis),
            "split": summary.split,
            "labels": summary.labels.name if summary.labels else "",
            **seen,
        }
    )
    tags = tuple(f"{key}:{config[key]}" for key in ("table", *seen) if config.get(key))
    record = RunRecord(f"{name} table", "table", name, tags, config, earlier)
    logger = WandbRunLogger(project, "none", upload_student=False, save_dir=str(folder))
    with Tracker([UnfailingLogger(logger)], record) as tracker:
        tracker.finish(lambda: table_exhibits(summary, runs, name))


def table_exhibits(summary: AblationSummary, runs: Sequence[RunFolder], sweep: str) -> Exhibits:
    """The table as it is printed, its rows of the project-wide schema, and a chart for each metric that is judged."""
    printed = [{key: _cell(value) for key, value in row.items()} for row in csv_rows(summary)]
    wide = Rows(tuple(printed[0]), [list(row.values()) for row in printed])
    charts: dict[str, Chart] = {}
    pictures: dict[str, Callable[[], Figure]] = {}
    for metric, figure in drawn_metrics(summary):
        charts[f"ablation/{metric.name}"] = metric_chart(summary, metric)
        pictures[f"ablation/{metric.name}_intervals"] = lambda figure=figure: figure
    said: dict[str, str | float] = {"failed_jobs": summary.num_failed}
    if summary.verdict:
        said |= {"verdict": summary.verdict.outcome, "verdict_sentence": summary.verdict.sentence}
    return Exhibits(
        scores={},
        tables={"ablation": wide, "ablations": ablations_rows(summary, runs, sweep)},
        charts=charts,
        figures=pictures,
        summary=said,
    )


def ablations_rows(summary: AblationSummary, runs: Sequence[RunFolder], sweep: str) -> Rows:
    """One row per setting and metric, in the metric's printed unit, under the columns of `ABLATIONS`."""

    def chosen(key: str) -> str:
        return " / ".join(dict.fromkeys(run.choices.get(key, "not recorded") for run in runs))

    about = {
        "sweep": sweep,
        "paper_table": summary.table.id if summary.table else None,
        "axis": ", ".join(summary.axis),
        "verdict": summary.verdict.outcome if summary.verdict else None,
        "split": summary.split,
        "student": chosen("student"),
        "dataset": chosen("dataset"),
        "labels": summary.labels.name if summary.labels else None,
        "scale": chosen("scale"),
    }
    lines = []
    for row in summary.rows:
        status = "done" if row.scores else "failed" if row.errors else "not run"
        counts = {"n": row.num_clips * row.num_seeds, "num_clips": row.num_clips, "num_seeds": row.num_seeds}
        papers = [str(value) for value in row.paper_values.values() if value is not None]
        named = {"row": row.name, "paper_row": ", ".join(papers) or None, "status": status}
        for column, metric in summary.metrics.items():
            ours, low, high = _scaled((row.scores or {}).get(metric.ours or ""), metric)
            figures = {"metric": metric.name, "unit": metric.unit, "ours": ours, "ours_low": low, "ours_high": high}
            line = about | named | counts | figures | {"published": _number((row.published or {}).get(column))}
            lines.append([line[name] for name in ABLATIONS])
    return Rows(ABLATIONS, lines)


def metric_chart(summary: AblationSummary, metric: Metric) -> Chart:
    """Ours with the ends of its interval, and the published figures, over the axis; bars where it is no number.

    Rows stand at the paper's values, for which those of a smaller scale stand in, so that both lie over each other.
    """
    column = next(name for name, found in summary.metrics.items() if found is metric)
    points: list[tuple[AblationRow, Mapping[str, float | None]]] = []
    for row in summary.rows:
        ours, low, high = _scaled((row.scores or {}).get(metric.ours or ""), metric)
        published = _number((row.published or {}).get(column))
        points.append((row, {"ours": ours, "95 % low": low, "95 % high": high, "published": published}))
    title = f"{metric.title}, ours and published"
    places = [_number(row.paper_values.get(summary.axis[0])) for row, _ in points]
    if len(summary.axis) == 1 and None not in places:
        cells = [
            [place, series, value]
            for place, (_, values) in sorted(zip(places, points, strict=True), key=lambda pair: pair[0] or 0.0)
            for series, value in values.items()
            if value is not None
        ]
        return Chart.lines(Rows(("step", "lineKey", "lineVal"), cells), summary.axis[0], title)
    cells = [
        [f"{row.name}: {series}", value]
        for row, values in points
        for series, value in values.items()
        if value is not None
    ]
    return Chart.bars(Rows(("row", metric.name), cells), "row", metric.name, title)


def _scaled(score: Score | None, metric: Metric) -> tuple[float | None, float | None, float | None]:
    if score is None:
        return None, None, None
    return metric.scale * score.value, metric.scale * score.interval.low, metric.scale * score.interval.high


def _number(value: Any) -> float | None:
    try:
        return None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _cell(value: object) -> str | float | None:
    """W&B wants one type a column: numbers stay numbers, everything else becomes text, without places."""
    return value if value is None or isinstance(value, int | float) else without_places(str(value))
