"""A run's page, its pictures, the terminal tables, and the W&B table."""

import html
import json
import shlex
import subprocess

import cv2
import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from rich.console import Console
from run_samples import NAMES, addresses, label_set, prediction, reader, task_book, write_run
from running import run
from wandb_files import offline_runs, read_offline

from autodrive.ablation.files import write_tables
from autodrive.ablation.wandb_table import ABLATIONS, log_ablation
from autodrive.evaluation.by_video import confusion_by_video
from autodrive.evaluation.timeline import Timeline
from autodrive.reporting import figures, terminal
from autodrive.reporting.run_page import choose_cases, loss_curves, write_run_page
from autodrive.reporting.timeline import timeline_figure
from autodrive.runs.folder import find_runs
from autodrive.schema import SetAside
from autodrive.tasks.scorecard import scorecard
from autodrive.video.decoder import DecodedFrames


@pytest.fixture
def run_dir(tmp_path):
    replies = reader(0.8, 0)
    replies[0] = prediction(0, None, reply="<script>alert(1)</script>", failure="not_an_option")
    dropped = [SetAside(item="x", reason="frame_rate_unavailable")]
    folder = write_run(tmp_path / "run", ["fps=15", "dataset.source=my folder"], replies, dropped=dropped)
    (folder / "metrics.csv").write_text("epoch,step,train/loss,val/accuracy\n0,0,1.1,\n0,9,0.7,\n0,9,,0.6\n")
    facts = {"git_commit": "abc123", "mixture": {"visits_per_epoch": {"normal": 100}}}
    (folder / "provenance.json").write_text(json.dumps(facts))
    return folder


def frames_of(clip_id: str) -> tuple[np.ndarray, np.ndarray] | None:
    gone = clip_id == "video1#0"
    return None if gone else (np.full((30, 56, 112, 3), 90, dtype=np.uint8), 2.0 + np.arange(30) / 10)


def test_the_page_shows_what_went_wrong_with_pictures_and_loads_nothing(run_dir):
    page = write_run_page(run_dir, frames_of, num_strips=3).read_text()
    links = addresses(page)
    assert all(link.startswith("data:image/") for link in links)
    assert sum(link.startswith("data:image/jpeg") for link in links) in (16, 24)  # 8 frames a clip
    assert sum(link.startswith("data:image/png") for link in links) == 3
    for part in ("abc123", "visits_per_epoch / normal", "frame_rate_unavailable", "'dataset.source=my folder'"):
        assert part.replace("'", "&#39;") in page
    assert "prefers-color-scheme: dark" in page
    assert "2.00 s" in page
    assert "4.90 s" in page


def test_a_reply_cannot_become_markup(run_dir):
    page = write_run_page(run_dir).read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_page_shows_the_scores_of_metrics_json(run_dir):
    page = write_run_page(run_dir).read_text()
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert f"{metrics['test/collision_f1']:.3f}" in page
    assert f"{100 * metrics['test/accuracy']:.1f} %" in page


@pytest.mark.parametrize("verb", ["train", "eval"])
def test_the_command_on_the_page_is_the_one_that_was_typed(tmp_path, verb):
    """Pasted into a shell and parsed by Hydra, it gives the same overrides, whatever their quotes."""
    typed = ["fps=15", "lr=1e-3", "evaluation.modes=[direct]", 'clips="my clips/a=1 (b)$HOME.jsonl"', "labels=event2"]
    typed += [r"""+source='it\'s "q" é.mp4'""", "+mixture.parts.file={repeat:2}", "++x=null", "~logger"]
    config = {"ckpt": "runs/a"} if verb == "eval" else {}
    write_run(tmp_path / "run", typed, reader(0.8, 0), config=config)
    page = write_run_page(tmp_path / "run").read_text(encoding="utf-8")
    command = html.unescape(page.partition("<h2>How to reproduce</h2>\n<pre>")[2].partition("</pre>")[0])
    assert subprocess.run(["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True).stdout.split(
        "\n"
    ) == ["python", f"{verb}.py", *typed, ""]
    parsed, wanted = (OverridesParser.create().parse_overrides(o) for o in (shlex.split(command)[2:], typed))
    assert [(o.key_or_group, o.type, o.value()) for o in parsed] == [
        (o.key_or_group, o.type, o.value()) for o in wanted
    ]


def test_scores_that_do_not_exist_are_dashes(tmp_path):
    normal = [p for p in reader(0.8, 0) if p.answer == p.parsed == "normal"]
    page = write_run_page(write_run(tmp_path / "run", ["fps=15"], normal)).read_text(encoding="utf-8")
    assert page.count("<td>–</td>") == 7  # noqa: RUF001 - six scores of two classes and the average precision
    assert "0.000" not in page
    with (tmp_path / "out").open("w") as file:
        console = Console(width=100, record=True, file=file)
        terminal.print_scores(json.loads((tmp_path / "run" / "metrics.json").read_text()), label_set(), console)
    text = console.export_text()
    assert text.count("–") == 7  # noqa: RUF001
    assert "0.000" not in text


def test_the_timeline_s_legend_covers_no_point(tmp_path):
    """The curves of a timeline whose first windows are certain, drawn with a legend and without."""
    windows_s = np.array([(t, t + 4) for t in range(20)], dtype=np.float64)
    curve = np.linspace(1, 0, 20)
    shown = DecodedFrames(torch.zeros(2, 3, 56, 112, dtype=torch.uint8), torch.tensor([0.0, 1.0]))
    timeline = Timeline(("normal", "collision"), windows_s, np.stack([curve, 1 - curve], axis=1), best=19)
    figure = timeline_figure("drive.mp4", timeline, ("normal", "collision"), shown)
    figure.canvas.draw()
    legend = figure.legends[0].get_window_extent()
    (curves,) = [axes for axes in figure.axes if axes.get_ylabel() == "probability"]
    assert not legend.overlaps(curves.get_window_extent())
    assert not legend.overlaps(curves.xaxis.label.get_window_extent())
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"P(normal)", "P(collision)", "shown above"}


def test_shown_mistakes_are_of_every_kind():
    many = [prediction(3 * i + 1, "normal") for i in range(20)]
    wrong = [*many, prediction(2, "near_collision"), prediction(0, None)]
    kinds = {(p.answer, p.parsed) for p in choose_cases(wrong, 4)}
    assert kinds == {("near_collision", "normal"), ("collision", "near_collision"), ("normal", None)}
    assert len(choose_cases(wrong, 4)) == 4
    assert choose_cases([], 4) == []


def test_loss_curves_skip_rows_without_a_loss(run_dir):
    assert loss_curves(run_dir / "metrics.csv") == {"train/loss": ([0.0, 9.0], [1.1, 0.7])}
    assert loss_curves(run_dir / "nothing.csv") == {}


def test_figures_are_pictures_with_ink():
    metrics = scorecard(reader(0.8, 0), task_book(), label_set())
    confusion = confusion_by_video(reader(0.8, 0), label_set()).sum(axis=0)
    drawn = [
        figures.confusion_figure(confusion, NAMES),
        figures.f1_figure(metrics, {name: name for name in NAMES}),
        figures.loss_figure({"train/loss": (range(100), np.linspace(1, 0, 100).tolist())}),
        figures.metric_figure(["a", "b"], [(50, 40, 60), None], [40.9, None], "accuracy, %", "percent"),
    ]
    for figure in drawn:
        picture = cv2.imdecode(np.frombuffer(figures.to_png(figure), np.uint8), cv2.IMREAD_GRAYSCALE)
        assert picture is not None
        assert 0.005 < (picture < 200).mean() < 0.6


def test_the_metric_figure_explains_its_marks_whichever_row_has_them():
    figure = figures.metric_figure(["a", "b"], [None, (0.5, 0.4, 0.6)], [None, 0.409], "F1", "fraction")
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"ours, 95 % interval", "published"}
    assert figures.metric_figure(["a"], [None], [None], "F1", "fraction").legends == []


def test_the_column_of_unread_replies_appears_only_if_there_are_any():
    confusion = np.eye(3, 4)
    assert len(figures.confusion_figure(confusion, NAMES).axes[0].get_xticks()) == 3
    confusion[0, 3] = 1
    assert len(figures.confusion_figure(confusion, NAMES).axes[0].get_xticks()) == 4


def test_the_terminal_leads_with_incidents_and_says_n(tmp_path):
    replies = [prediction(clip, None if clip == 0 else NAMES[clip % 3]) for clip in range(30)]
    with (tmp_path / "out").open("w") as file:
        console = Console(width=100, record=True, file=file)
        terminal.print_scores(scorecard(replies, task_book(), label_set()), label_set(), console)
        terminal.print_confusion(confusion_by_video(replies, label_set()).sum(axis=0), label_set(), console)
    text = console.export_text()
    assert text.index("collision") < text.index("normal")
    assert "30 clips of 10 source videos" in text
    assert "1 of 30, counted as wrong" in text
    assert "96.7 %" in text


def test_report_verb_writes_tables_and_refuses_wrong_input_with_one_line(run_dir, capsys):
    out = run_dir.parent / "out"
    assert run("report", f"runs={run_dir}", f"out={out}") == 0
    assert {path.name for path in out.iterdir()} == {"ablation.md", "ablation.csv", "ablation.html"}
    capsys.readouterr()
    for arguments in ([f"out={out}"], [f"runs={out}", f"out={out}"]):
        assert run("report", *arguments) == 2
        refused = capsys.readouterr().err
        assert refused.startswith("error: ")
        assert refused.count("\n") == 1


def test_the_table_is_logged_without_account_or_network(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    write_run(tmp_path / "0", ["mixture=unbalanced"], reader(0.5, 0))
    write_run(tmp_path / "1", ["mixture=balanced"], None, error="/data/me/clips.jsonl: no such manifest")
    runs = find_runs([tmp_path])
    log_ablation(write_tables(runs, tmp_path), runs, tmp_path, "balancing")
    logged = read_offline(tmp_path)
    rows = logged.table("ablation")
    assert [row["status"] for row in rows] == ["done", "failed"]
    assert rows[0]["published_accuracy"] == 56.57
    assert rows[1]["error"] == "1: RuntimeError: …/clips.jsonl: no such manifest"
    bars = {row["row"]: row["accuracy"] for row in logged.table("ablation/accuracy_table")}
    assert bars["unbalanced: published"] == 56.57
    assert bars["unbalanced: ours"] == pytest.approx(100 * rows[0]["accuracy"])


def test_tables_of_several_sweeps_stand_side_by_side_in_a_project(tmp_path):
    """`report … wandb=<project>`: the same columns whatever was swept, and a table that is logged again stays one."""
    write_run(tmp_path / "a" / "0", ["fps=1"], reader(0.5, 0), config={"fps": 1})
    write_run(tmp_path / "a" / "1", ["fps=15"], reader(0.7, 0))
    write_run(tmp_path / "b" / "0", ["lr=1e-3", "labels=event3"], reader(0.6, 1))
    write_run(tmp_path / "b" / "1", ["lr=2e-3", "labels=event3"], reader(0.6, 2), config={"lr": 2e-3})
    logged = {}
    for name in ("a", "b"):
        arguments = [f"runs={tmp_path / name}", f"out={tmp_path / 'tables' / name}", "wandb=papers"]
        assert run("report", *arguments, wandb="offline") == 0
        logged[name] = read_offline(tmp_path / "tables" / name)
    rows = {name: found.table("ablations") for name, found in logged.items()}
    assert {tuple(row) for found in rows.values() for row in found} == {ABLATIONS}
    assert {name: {row["sweep"] for row in found} for name, found in rows.items()} == {"a": {"a"}, "b": {"b"}}
    assert {found.run.project for found in logged.values()} == {"papers"}
    assert logged["a"].run.run_group == "a"  # the group of the sweep's own runs
    folder = tmp_path / "tables" / "a"
    assert run("report", f"runs={tmp_path / 'a'}", f"out={folder}", "wandb=papers", wandb="offline") == 0
    again = [path.stem.removeprefix("run-") for path in offline_runs(folder)]
    assert again == [logged["a"].run.run_id] * 2
