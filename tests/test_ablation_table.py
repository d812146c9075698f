"""Ablation tables: from run folders to a judgement."""
# pyright: reportOptionalSubscript=false, reportOptionalMemberAccess=false, reportArgumentType=false

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from run_samples import addresses, prediction, reader, write_run

from autodrive.ablation.answers import RunAnswers
from autodrive.ablation.axes import group_rows
from autodrive.ablation.files import print_ablation, write_tables
from autodrive.ablation.published import PUBLISHED_FOLDER, load_published
from autodrive.ablation.rows import AblationRow, score_row
from autodrive.ablation.table import AblationSummary, summarise
from autodrive.ablation.wording import remarks
from autodrive.errors import InputError
from autodrive.runs.folder import find_runs
from autodrive.schema import SetAside


def table_of(sweep: Path, table: str | None = None) -> AblationSummary:
    """The table of a folder of runs, written beside them as a sweep does."""
    return write_tables(find_runs([sweep]), sweep, table)


def by_value(summary, key) -> dict[object, AblationRow]:
    return {row.values[key]: row for row in summary.rows}


@pytest.fixture(scope="module")
def fps_sweep(tmp_path_factory):
    """1 fps is far worse, 15 and 30 fps are alike: two seeds each, and one job that failed."""
    folder = tmp_path_factory.mktemp("sweep")
    for fps, skill in ((1, 0.4), (15, 0.8), (30, 0.81)):
        for seed in (0, 1):
            write_run(folder / f"fps-{fps}_seed-{seed}", [f"fps={fps}", f"seed={seed}"], reader(skill, 10 * fps + seed))
    write_run(folder / "fps-60_seed-0", ["fps=60", "seed=0"], None, error="no clip has\n60 fps")
    return folder


@pytest.fixture(scope="module")
def fps_summary(fps_sweep):
    return table_of(fps_sweep)


def test_a_sweep_finds_its_published_table_and_stands_beside_it(fps_summary):
    assert fps_summary.table.id == "autodrive/table3_fps"
    assert fps_summary.axis == ("fps",)
    rows = by_value(fps_summary, "fps")
    assert list(rows) == [1, 15, 30, 60]
    assert rows[15].published["accuracy"] == 65.66
    assert rows[60].published is None


def test_seeds_are_replicates_of_a_row(fps_summary):
    row = by_value(fps_summary, "fps")[15]
    accuracy = row.scores["test/accuracy"]
    assert (row.num_clips, row.num_seeds, len(accuracy.by_seed)) == (198, 2, 2)
    assert accuracy.value == pytest.approx(np.mean(accuracy.by_seed))
    assert accuracy.interval.low < 0.8 < accuracy.interval.high


def test_the_judgement_separates_what_is_seen_from_what_is_not(fps_summary):
    assert fps_summary.verdict.outcome == "unresolved"
    assert [(step.rows, step.outcome) for step in fps_summary.verdict.steps] == [
        (("1", "15"), "seen"),
        (("15", "30"), "unresolved"),
    ]
    sentence = fps_summary.verdict.sentence
    assert "1 to 15" in sentence
    assert "15 to 30" in sentence
    assert "smallest difference" in sentence


def test_a_failed_job_is_a_row_with_its_error_on_one_line(fps_summary, fps_sweep):
    assert (fps_summary.num_runs, fps_summary.num_failed) == (7, 1)
    assert by_value(fps_summary, "fps")[60].errors == ("fps-60_seed-0: RuntimeError: no clip has 60 fps",)
    markdown = (fps_sweep / "ablation.md").read_text()
    assert "| 60 |" in markdown
    assert "no clip has 60 fps" in markdown


def test_what_cannot_be_compared_is_said(fps_summary):
    text = " ".join(remarks(fps_summary))
    for part in ("student=tiny_qwen2_5_vl", "dataset=synthetic", "scale=tiny", "198 clips", "±7 points"):
        assert part in text


def test_the_csv_holds_plain_numbers(fps_summary, fps_sweep):
    with (fps_sweep / "ablation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["done", "done", "done", "failed"]
    assert float(rows[0]["accuracy"]) == pytest.approx(by_value(fps_summary, "fps")[1].scores["test/accuracy"].value)
    assert rows[2]["published_accuracy"] == "76.26"
    assert rows[0]["n"] == "396"


def test_the_page_is_whole_and_loads_nothing(fps_summary, fps_sweep):
    page = (fps_sweep / "ablation.html").read_text()

    links = addresses(page)
    assert links
    assert all(link.startswith("data:") for link in links)
    assert "prefers-color-scheme: dark" in page


def test_the_terminal_shows_the_same_table(fps_summary):
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_ablation(fps_summary, console)
    text = console.export_text()
    assert "76.26" in text
    assert "published order" in text


def test_rows_are_compared_on_the_clips_they_share(tmp_path):
    replies = reader(0.8, 0)
    write_run(tmp_path / "a", ["fps=15"], replies)
    dropped = [SetAside(item="video0#0", reason="frame_rate_unavailable")]
    write_run(
        tmp_path / "b", ["fps=30"], [p for p in replies if p.clip_id not in ("video0#0", "video1#0")], dropped=dropped
    )
    summary = table_of(tmp_path)
    assert summary.num_shared_clips == 196
    assert summary.left_out == {"frame_rate_unavailable": 1, "not answered by every run": 1}
    assert {row.num_clips for row in summary.rows if row.scores} == {196}
    assert summary.comparisons[0].test.difference == 0


def test_runs_without_common_clips_are_not_tested_against_each_other(tmp_path):
    write_run(tmp_path / "a", ["fps=15"], [prediction(c, "normal") for c in range(30)])
    write_run(tmp_path / "b", ["fps=30"], [prediction(c, "normal") for c in range(30, 60)])
    summary = table_of(tmp_path)
    assert summary.comparisons == ()
    assert {row.num_clips for row in summary.rows if row.scores} == {30}
    assert "share no clips" in " ".join(remarks(summary))


def test_a_published_order_can_be_seen_and_contradicted(tmp_path):
    for folder, (unbalanced, balanced) in {"as": (0.5, 0.9), "against": (0.9, 0.5)}.items():
        write_seeds(tmp_path / folder, "mixture=unbalanced", unbalanced)
        write_seeds(tmp_path / folder, "mixture=balanced", balanced)
    seen, contradicted = table_of(tmp_path / "as"), table_of(tmp_path / "against")
    assert seen.table.id == contradicted.table.id == "autodrive/table7_balancing"
    assert (seen.verdict.outcome, contradicted.verdict.outcome) == ("seen", "contradicted")


def write_seeds(folder, override, skill, seeds=(0, 1, 2), **changes):
    for seed in seeds:
        name = f"{override}-{seed}".replace("=", "-")
        write_run(folder / name, [override, f"seed={seed}"], reader(skill, seed), **changes)


@pytest.mark.parametrize("seeds", [(0,), (0, 0)])
def test_one_seed_never_decides(tmp_path, seeds):
    """Also not if the same seed was run twice."""
    write_seeds(tmp_path, "mixture=balanced", 0.95)
    for index, seed in enumerate(seeds):
        write_run(tmp_path / str(index), ["mixture=unbalanced", f"seed={seed}"], reader(0.3, 7))
    (step,) = table_of(tmp_path).verdict.steps
    assert (step.outcome, step.why, step.p_value) == ("unresolved", "one seed", None)
    assert "unresolved (one seed)" in (tmp_path / "ablation.md").read_text()


def test_a_released_model_needs_no_seed(tmp_path):
    """Nobody trained it, so that another seed would change nothing; the trained row still needs two."""
    write_run(tmp_path / "zero", ["student=cosmos_reason1_7b"], reader(0.4, 9), config={"ckpt": None})
    write_seeds(tmp_path, "student=cosmos_reason1_7b", 0.9)
    summary = table_of(tmp_path, "autodrive/table2_main")
    assert [step.outcome for step in summary.verdict.steps] == ["not run", "seen"]
    assert [row.num_seeds for row in summary.rows] == [1, 3, 0, 0]


def test_the_judgement_does_not_depend_on_the_order_of_the_jobs(tmp_path):
    write_seeds(tmp_path, "mixture=balanced", 0.9)
    write_seeds(tmp_path, "mixture=unbalanced", 0.5)
    assert table_of(tmp_path).verdict.outcome == "seen"


def test_steps_are_corrected_for_their_number(tmp_path):
    for lr, skill in (("1e-6", 0.75), ("1e-5", 0.9), ("2e-5", 0.82)):
        write_seeds(tmp_path, f"lr={lr}", skill)
    steps = table_of(tmp_path).verdict.steps
    alone = sorted(float(step.test.p_value) for step in steps)
    assert sorted(float(step.p_value) for step in steps) == pytest.approx([2 * alone[0], max(alone[1], 2 * alone[0])])


def test_the_values_that_tests_rest_on_are_kept(fps_summary, fps_sweep):
    path = fps_sweep / "ablation_items.csv"
    assert path.stat().st_size < 20_000
    with path.open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 198
    columns = [f"{fps}; seed {seed}" for fps in (1, 15, 30) for seed in (0, 1)]
    assert list(lines[0]) == ["metric", "clip", "source_video", *columns]
    means = {column: np.mean([float(line[column]) for line in lines]) for column in columns}
    difference = (means["15; seed 0"] + means["15; seed 1"] - means["1; seed 0"] - means["1; seed 1"]) / 2
    assert fps_summary.verdict.steps[0].test.difference == pytest.approx(difference)


def test_both_inference_modes_stand_in_the_reasoning_table(tmp_path):
    for mixture, skill in (("mcq_caption_vqa", 0.6), ("mcq_caption_vqa_reasoning_x2", 0.9)):
        for seed in (0, 1):
            direct = reader(skill, seed)
            trace = {"mode": "reasoning", "reply": "<think>a car</think>\n\n<answer>A</answer>"}
            changed = [p.model_copy(update=trace | {"annotation_id": f"{p.annotation_id}r"}) for p in direct]
            write_run(tmp_path / f"{mixture}-{seed}", [f"mixture={mixture}", f"seed={seed}"], direct + changed)
    summary = table_of(tmp_path)
    assert summary.table.id == "autodrive/table9_reasoning"
    row = by_value(summary, "mixture")["mcq_caption_vqa_reasoning_x2"]
    assert row.scores["test_reasoning/accuracy"].value == row.scores["test/accuracy"].value > 0.8
    assert row.scores["test_reasoning/trace_emission_rate"].value == 1
    assert {step.metric.ours for step in summary.verdict.steps if step.test} == {"test/accuracy"}  # one is not printed
    markdown = (tmp_path / "ablation.md").read_text()
    assert "replies with a trace" in markdown
    assert "61.11 \\|" in markdown


@pytest.fixture(scope="module")
def two_small_runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    for fps in (1, 15):
        write_run(folder / str(fps), [f"fps={fps}"], reader(0.8, fps, num_clips=12))
    return find_runs([folder])


@pytest.mark.parametrize("table", [table.id for table in load_published().tables])
def test_every_published_table_can_be_told(tmp_path, two_small_runs, table):
    """Beside runs that have nothing to do with it, a table shows what is printed and says why nothing is compared."""
    summary = write_tables(two_small_runs, tmp_path, table)
    markdown = (tmp_path / "ablation.md").read_text()
    printed = [row for row in summary.rows if row.published]
    assert len(printed) == len(load_published().table(table).rows)
    if table != "autodrive/table3_fps":
        assert (
            {step.outcome for step in summary.verdict.steps if summary.verdict}
            <= {
                "not run",
                "not comparable",
            }
            if summary.verdict
            else table == "autodrive/table1_data_mixture"
        )
    for metric in summary.table.metrics.values():
        assert metric.title in markdown
        assert metric.why_not is None or metric.why_not in markdown


def test_a_metric_of_another_task_is_paired_and_judged(tmp_path):
    for student, skill in (("qwen2_5_vl_7b", 0.5), ("minicpm_v_4_5_8b", 0.9)):
        asked = reader(skill, 0)
        closed = [p.model_copy(update={"task": "closed_qa", "annotation_id": f"{p.annotation_id}c"}) for p in asked]
        write_run(tmp_path / student, [f"student={student}"], asked + closed, config={"ckpt": None})
    summary = table_of(tmp_path, "trinci/table1_private_main")
    outcomes = {step.metric.name: step.outcome for step in summary.verdict.steps if step.test}
    assert outcomes == {"closed questions": "seen", "accuracy, three classes": "seen"}


def test_a_metric_that_only_metrics_json_has_is_shown_with_its_interval(tmp_path):
    write_run(tmp_path / "0", ["fps=15"], reader(0.8, 0))
    (run,) = find_runs([tmp_path])
    (group,), answers, key = group_rows([run], ["fps"]), RunAnswers.read(run), "test/average_precision"
    row = score_row(group, {run.path: answers}, answers.labels, [key], np.random.default_rng(0))
    score = row.scores[key]
    assert score.value == run.metrics[key]
    assert score.interval.low < score.value < score.interval.high


def test_a_small_gain_inside_the_noise_is_not_called_seen(tmp_path):
    for seed in (0, 1):
        worse = reader(0.8, seed)
        right = [p for p in worse if p.parsed == p.answer][:2]
        better = [prediction(c, p.parsed) for c, p in enumerate(worse)]
        worse = [p.model_copy(update={"parsed": None}) if p in right else p for p in worse]
        write_run(tmp_path / f"unbalanced-{seed}", ["mixture=unbalanced", f"seed={seed}"], worse)
        write_run(tmp_path / f"balanced-{seed}", ["mixture=balanced", f"seed={seed}"], better)
    summary = table_of(tmp_path)
    assert summary.comparisons[0].test.difference == pytest.approx(-2 / 198)
    assert summary.verdict.outcome == "unresolved"


def test_values_that_stand_for_the_papers_find_their_rows(tmp_path):
    config = {"axes": {"lr": {1e-6: 1e-4, 1e-5: 1e-3, 2e-5: 2e-3}}}
    for index, lr in enumerate(("1e-4", "1e-3", "2e-3")):
        write_run(tmp_path / str(index), [f"lr={lr}"], reader(0.7, index), config=config)
    summary = table_of(tmp_path)
    assert summary.table.id == "autodrive/table5_learning_rate"
    assert [(r.values["lr"], r.paper_values["lr"]) for r in summary.rows] == [(1e-4, 1e-6), (1e-3, 1e-5), (2e-3, 2e-5)]
    assert "0.0001 (paper 1e-06)" in (tmp_path / "ablation.md").read_text()


def test_a_key_of_the_table_that_is_not_swept_comes_from_the_configuration(tmp_path):
    for index, resolution in enumerate(("32x4", "128x32")):
        write_run(tmp_path / str(index), [f"resolution={resolution}"], reader(0.7, index), config={"duration_s": 6.0})
    summary = table_of(tmp_path)
    assert summary.table.id == "autodrive/table6_duration_resolution"
    ours = [row for row in summary.rows if row.scores]
    assert [row.published["accuracy"] for row in ours] == [70.20, 76.26]
    assert sum(row.scores is None for row in summary.rows) == 2  # printed, not run


def test_a_sweep_without_a_published_table_still_gets_one_of_its_own(tmp_path):
    write_run(tmp_path / "1", ["batch_size=8"], reader(0.7, 0))
    write_run(tmp_path / "0", ["batch_size=4"], reader(0.7, 0))
    summary = table_of(tmp_path)
    assert summary.table is None
    assert [row.values["batch_size"] for row in summary.rows] == [4, 8]
    assert "ours only" in (tmp_path / "ablation.md").read_text()


def test_a_single_run_is_a_table_of_one_row(tmp_path):
    write_run(tmp_path / "run", ["fps=15"], reader(0.7, 0))
    summary = table_of(tmp_path / "run")
    assert len(summary.rows) == 1
    assert summary.verdict is None


def test_a_sweep_in_which_every_job_failed_still_gets_its_table(tmp_path):
    write_run(tmp_path / "0", ["fps=15"], None, error="out of memory")
    write_run(tmp_path / "1", ["fps=30"], None)
    summary = table_of(tmp_path)
    assert summary.num_failed == 2
    text = (tmp_path / "ablation.md").read_text()
    assert "out of memory" in text
    assert "did not finish" in text


def test_the_verdict_says_what_was_not_run(tmp_path):
    for fps, skill in ((1, 0.4), (15, 0.9)):
        write_seeds(tmp_path, f"fps={fps}", skill)
    assert table_of(tmp_path).verdict.sentence.endswith(" Not run: 30.")


@pytest.mark.parametrize("case", ["missing", "empty", "table", "classes", "json"])
def test_wrong_input_is_one_line(tmp_path, case, fps_sweep):
    folder, table = tmp_path, None
    if case == "missing":
        folder = tmp_path / "nowhere"
    elif case == "table":
        folder, table = fps_sweep, "autodrive/table33"
    elif case == "classes":
        event2 = {"name": "event2", "classes": [_label("normal"), _label("event")]}
        write_run(tmp_path / "0", ["fps=1"], reader(0.5, 0))
        write_run(tmp_path / "1", ["fps=2"], reader(0.5, 0), config={"labels": event2})
    elif case == "json":
        shutil.copytree(fps_sweep / "fps-1_seed-0", tmp_path / "0")
        (tmp_path / "0" / "metrics.json").write_text("{")
    with pytest.raises(InputError) as caught:
        table_of(folder, table)
    assert "\n" not in str(caught.value)


def _label(name: str) -> dict:
    return {"name": name, "option": name, "sources": [name], "anomalous": name != "normal", "short": name}


def test_captions_are_paired_by_how_close_each_reply_is(tmp_path):
    """A metric that is no share of right answers: ROUGE-L of every reply, with the closest of its references."""
    for student, reply in (("internvl_3_5_8b", "a dog sleeps"), ("molmo_2_8b", "a van brakes hard before us")):
        said = {"task": "caption", "options": (), "reply": reply, "other_answers": ("the road is clear",)}
        captions = [prediction(clip, reply, answer="a van brakes hard", **said) for clip in range(30)]
        write_run(tmp_path / "runs" / student, [f"student={student}"], captions, config={"ckpt": None})
    judged = (
        (PUBLISHED_FOLDER / "trinci.yaml").read_text().replace("judged: [closed_qa, sce_3class]", "judged: [rouge_l]")
    )
    (tmp_path / "trinci.yaml").write_text(judged)
    runs, published = find_runs([tmp_path / "runs"]), load_published(tmp_path)
    summary = summarise(runs, published, "trinci/table1_private_main", np.random.default_rng(0))
    (step,) = [step for step in summary.verdict.steps if step.test]
    assert step.outcome == "seen"
    assert step.test.difference == pytest.approx(0.8 - 2 / 7)
