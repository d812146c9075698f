"""An ablation table in words and cells, the same for Markdown, web page and terminal."""

from autodrive.ablation.published import ROW_NAME, TEST_SPLIT, Metric
from autodrive.ablation.rows import AblationRow, Score, axis_text
from autodrive.ablation.table import AblationSummary
from autodrive.ablation.verdict import Step, decimals, difference_text
from autodrive.counted import counted
from autodrive.evaluation.intervals import wilson_interval
from autodrive.reporting.terminal import DASH

RULE = (
    "A step of the published order is seen or contradicted only if a paired test over clips, which allows for source "
    "videos and for what another training seed would change (pooled over the table's rows), finds it at the 5 % level "
    "after Holm's correction for the number of steps; a trained row needs two seeds for that."
)
PAIR_HEADER = (
    "rows",
    "metric",
    "change",
    "clips where first / second is better",
    "p, corrected for the number of pairs",
    "smallest difference found with 80 % power",
)
STEP_HEADER = ("metric", "step of the published order", "published", "ours", "p, corrected", "verdict")


def caption(summary: AblationSummary) -> str:
    """The title, with how cells are to be read beside the paper's figures, and the split if ours is not test."""
    split = "" if summary.split == TEST_SPLIT else f", split {summary.split}"
    return f"{summary.title}{split}" if summary.table is None else f"{summary.title} (published | ours{split})"


def header(summary: AblationSummary) -> list[str]:
    """Column titles of the table."""
    titles = list(summary.axis)
    if _has_names(summary):
        titles.append("as printed")
    return [*titles, *(_title(summary, column) for column in summary.metrics), "N"]


def row_cells(summary: AblationSummary, row: AblationRow) -> list[str]:
    """One row of the table."""
    cells = [DASH if row.values.get(key) is None else axis_text(row, key) for key in summary.axis]
    if _has_names(summary):
        cells.append((row.published or {}).get(ROW_NAME, DASH))
    cells += [_figures(summary, row, column) for column in summary.metrics]
    if row.scores:
        seeds = counted(row.num_seeds, "seed")
        return [*cells, f"{row.num_clips * row.num_seeds} ({row.num_clips} x {seeds})"]
    return [*cells, f"failed ({row.errors[0]})" if row.errors else "not run"]


def step_cells(summary: AblationSummary) -> list[list[str]]:
    """The verdict on every step of the published order."""
    return [_step_cells(step) for step in (summary.verdict.steps if summary.verdict else ())]


def pair_cells(summary: AblationSummary) -> list[list[str]]:
    """Paired tests between all of our rows."""
    cells = []
    for pair in summary.comparisons:
        tested = pair.p_value is not None and pair.test.smallest_detectable is not None
        smallest = pair.metric.scale * (pair.test.smallest_detectable or 0)
        cells.append(
            [
                f"{pair.a} → {pair.b}",
                pair.metric.name,
                difference_text(pair.test, pair.metric),
                f"{pair.test.num_a_better} / {pair.test.num_b_better}",
                f"{pair.p_value:.2g}" if tested else f"untested ({pair.test.why_untested})",
                f"{smallest:.{decimals(pair.metric)}f}" if tested else DASH,
            ]
        )
    return cells


def remarks(summary: AblationSummary) -> list[str]:
    """What a reader must know before comparing: verdict, N, clips left out, failures, what is not comparable."""
    lines = [summary.verdict.sentence] if summary.verdict else []
    if summary.table is None:
        lines.append("No published table sweeps these keys; the rows are ours only.")
    else:
        lines.append(RULE)
    lines.append(_basis(summary))
    for reason, count in summary.left_out.items():
        lines.append(f"Left out of the comparison: {counted(count, 'clip')} ({reason}).")
    lines += summary.folded
    if summary.num_failed:
        lines.append(f"{summary.num_failed} of {summary.num_runs} jobs failed:")
        lines += [f"- {row.name}: {error}" for row in summary.rows for error in row.errors]
    if summary.not_comparable:
        lines.append("Not comparable with the published numbers:")
        lines += [f"- {reason}" for reason in summary.not_comparable]
    return lines + _published_remarks(summary)


def _has_names(summary: AblationSummary) -> bool:
    return any(ROW_NAME in (row.published or {}) for row in summary.rows)


def _title(summary: AblationSummary, column: str) -> str:
    metric = summary.metrics[column]
    if summary.table is None or column not in summary.table.metrics:
        return metric.title
    return metric.title if metric.ours else f"{metric.title} (published)"


def _figures(summary: AblationSummary, row: AblationRow, column: str) -> str:
    """The printed figure and ours; ours alone where no paper has the metric, the printed one where we have none."""
    metric = summary.metrics[column]
    score = (row.scores or {}).get(metric.ours or "")
    ours = DASH if score is None else _score_text(score, metric)
    if summary.table is None or column not in summary.table.metrics:
        return ours
    printed = DASH
    value = (row.published or {}).get(column)
    if row.published and value is not None:
        printed = f"{value:,.{metric.decimals}f}"
        printed += " *" if summary.table.why_unusable(row.published, column) else ""
    return f"{printed} | {ours}" if metric.ours else printed


def _score_text(score: Score, metric: Metric) -> str:
    digits, scale = decimals(metric), metric.scale
    low, high = scale * score.interval.low, scale * score.interval.high
    text = f"{scale * score.value:.{digits + 1}f} [{low:.{digits}f}, {high:.{digits}f}]"
    if metric.unit == "percent" and len(score.by_seed) > 1:
        text += f"; seeds {scale * min(score.by_seed):.{digits}f} to {scale * max(score.by_seed):.{digits}f}"
    return text


def _step_cells(step: Step) -> list[str]:
    printed = " → ".join(f"{value:.{step.metric.decimals}f}" for value in step.published)
    tested = step.test is not None and step.p_value is not None
    return [
        step.metric.name,
        (" → " if step.published else ", ").join(step.rows) or "all",
        printed or DASH,
        difference_text(step.test, step.metric) if step.test else DASH,
        f"{step.p_value:.2g}" if tested else DASH,
        step.judgement,
    ]


def _basis(summary: AblationSummary) -> str:
    text = "↑: higher is better, ↓: lower is better. "
    text += "Scores are means over seeds; N is clips times seeds; intervals are 95 %. Those of scores resample source "
    text += "videos and, where a row has several, seeds; those of changes are the paired test's, for one pair alone. "
    if summary.num_shared_clips:
        shared = counted(summary.num_shared_clips, "clip")
        return text + f"All rows are scored on the {shared} that every finished run answered."
    if summary.num_runs > summary.num_failed:
        return text + "The runs share no clips, so each row is scored on its own and there are no paired tests."
    return "No run finished, so there is nothing of ours to compare."


def _published_remarks(summary: AblationSummary) -> list[str]:
    table = summary.table
    if table is None:
        return []
    lines = []
    total = table.test_set.num_clips
    for column in table.judged if total else ():
        metric = table.metrics[column]
        printed = [float(value) for row in table.rows if (value := row.get(column)) is not None]
        if total and metric.name.startswith("accuracy"):
            interval = wilson_interval(sum(printed) / len(printed) / metric.scale * total, total)
            half = metric.scale * (interval.high - interval.low) / 2
            size = f"±{half:.0f} points" if metric.unit == "percent" else f"±{half:.2f}"
            lines.append(f"A published figure ({metric.name}) rests on {total} clips: its own 95 % interval is {size}.")
    for cells in table.unusable:
        reading = "" if cells.reading is None else f" (perhaps {cells.reading})"
        names = ", ".join(table.metrics[column].name for column in cells.columns)
        where = f"{', '.join(map(str, cells.row.values()))}: {names}"
        lines.append(f"* {where}: {cells.why}{reading}.")
    return lines + [f"About the published table: {note}" for note in table.notes]
