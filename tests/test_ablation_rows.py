"""Rows of an ablation table: seeds as replicates, source videos as what is resampled, scores that do not exist."""
# pyright: reportOptionalSubscript=false, reportOptionalMemberAccess=false, reportArgumentType=false
# pyright: reportOperatorIssue=false

import csv

import numpy as np
import pytest
import yaml
from run_samples import LABELS_FILE, prediction, reader, write_run

from autodrive.ablation.answers import RunAnswers
from autodrive.ablation.axes import group_rows
from autodrive.ablation.files import write_tables
from autodrive.ablation.published import load_published
from autodrive.ablation.rows import score_row
from autodrive.ablation.table import summarise
from autodrive.ablation.wording import remarks
from autodrive.runs.folder import find_runs, read_run


def test_a_sweep_over_seeds_alone_is_one_row_with_their_mean(tmp_path):
    for seed in (0, 1, 2):
        write_run(tmp_path / f"seed-{seed}", [f"seed={seed}"], reader(0.8, seed))
    summary = write_tables(find_runs([tmp_path]), tmp_path)
    (row,) = summary.rows
    assert (row.num_clips, row.num_seeds) == (198, 3)
    metrics = [run.metrics["test/accuracy"] for run in find_runs([tmp_path])]
    assert len(set(metrics)) == 3
    assert row.scores["test/accuracy"].value == pytest.approx(np.mean(metrics))
    assert summary.comparisons == ()
    text = (tmp_path / "ablation.md").read_text()
    assert text.startswith("# Sweep over seeds")
    assert "594 (198 x 3 seeds)" in text


def test_clips_of_one_video_that_agree_are_no_more_evidence_in_a_paired_test(tmp_path):
    """Rows differ on 11 of 22 videos, in all nine clips of each, or on 99 of 198 videos of one clip."""
    tests = {}
    for name, clips_of_video in (("together", 9), ("apart", 1)):
        for fps in (15, 30):
            right = [fps == 30 or clip // 9 % 2 == 0 for clip in range(198)]
            found = [
                prediction(
                    c, "normal" if ok else "collision", answer="normal", source_video_id=f"v{c // clips_of_video}"
                )
                for c, ok in enumerate(right)
            ]
            write_run(tmp_path / name / str(fps), [f"fps={fps}"], found, config={"ckpt": None})
        runs = find_runs([tmp_path / name])
        (comparison,) = summarise(runs, load_published(), None, np.random.default_rng(0)).comparisons
        tests[name] = comparison.test
    together, apart = ((test.low, test.difference, test.high) for test in (tests["together"], tests["apart"]))
    assert together[1] == apart[1] == pytest.approx(0.5)
    assert together[2] - together[0] == pytest.approx(3 * (apart[2] - apart[0]), rel=0.1)


def test_intervals_of_a_row_count_source_videos(tmp_path):
    """Scores of the classes and means over replies, with all nine clips of a video right or wrong together."""
    widths = {}
    for name, clips_of_video in (("together", 9), ("apart", 1)):
        found = []
        for c in range(198):
            video, right = {"source_video_id": f"v{c // clips_of_video}"}, c // 9 % 2 == 0
            closed = {"task": "closed_qa", "options": ("yes", "no"), "answer": "yes"}
            found.append(prediction(c, "normal" if right else "collision", answer="normal", **video))
            found.append(prediction(c, "yes" if right else "no", **closed, **video))
        run = read_run(write_run(tmp_path / name, ["fps=15"], found))
        (group,), answers = group_rows([run], ["fps"]), RunAnswers.read(run)
        keys = ["test/closed_qa_accuracy"]
        row = score_row(group, {run.path: answers}, answers.labels, keys, np.random.default_rng(0))
        widths[name] = [
            row.scores[key].interval.high - row.scores[key].interval.low
            for key in (*keys, "test/accuracy", "test/normal_f1")
        ]
    assert widths["together"] == pytest.approx([3 * width for width in widths["apart"]], rel=0.2)


def test_a_score_that_one_seed_does_not_have_is_a_dash(tmp_path):
    always_normal = [prediction(c, "normal") for c in range(198)]
    write_run(tmp_path / "0", ["fps=15", "seed=0"], reader(0.8, 0))
    write_run(tmp_path / "1", ["fps=15", "seed=1"], always_normal)
    write_run(tmp_path / "2", ["fps=30", "seed=0"], [p for p in reader(0.8, 0) if p.answer == p.parsed == "normal"])
    rows = {row.values["fps"]: row for row in write_tables(find_runs([tmp_path]), tmp_path).rows}
    assert "test/collision_precision" not in rows[15].scores  # the mean over seeds would be that of one
    assert rows[15].scores["test/normal_precision"].value > 0.3
    assert "test/collision_f1" not in rows[30].scores
    lines = (tmp_path / "ablation.md").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("| 30 |") and "x 1 seed" in line]
    assert "\\| –" in line  # noqa: RUF001 - beside the published F1
    with (tmp_path / "ablation.csv").open() as file:
        cells = {row["fps"]: row for row in csv.DictReader(file)}
    assert cells["30"]["collision_f1"] == cells["15"]["collision_precision"] == ""


def test_a_run_whose_replies_were_folded_says_so(tmp_path):
    labels = yaml.safe_load(LABELS_FILE.read_text(encoding="utf-8"))
    config = {"labels": {**labels, "shown": labels}, "ckpt": "runs/a"}
    write_run(tmp_path / "own", ["fps=15"], reader(0.8, 0))
    write_run(tmp_path / "folded", ["fps=30"], reader(0.8, 1), config=config)
    summary = summarise(find_runs([tmp_path]), load_published(), None, np.random.default_rng(0))
    (said,) = [line for line in remarks(summary) if "Asked in the student's own classes" in line]
    assert said.startswith("folded: ")
