"""Ablation tables of folders that are not what a sweep leaves: other splits, other people's configurations."""
# pyright: reportOptionalSubscript=false, reportOptionalMemberAccess=false, reportArgumentType=false

import csv
from pathlib import Path

import pytest
from run_samples import reader, write_run

from autodrive.ablation.files import write_tables
from autodrive.ablation.table import AblationSummary
from autodrive.errors import InputError
from autodrive.runs.folder import find_runs


def table_of(folder: Path) -> AblationSummary:
    return write_tables(find_runs([folder]), folder)


def test_scores_of_another_split_are_its_own_and_beside_no_published_figure(tmp_path):
    for fps, skill in ((1, 0.4), (15, 0.9)):
        for seed in (0, 1, 2):
            config = {"split": "val", "ckpt": "runs/a"}
            write_run(tmp_path / f"{fps}-{seed}", [f"fps={fps}", f"seed={seed}"], reader(skill, seed), config=config)
    summary = table_of(tmp_path)
    assert (summary.table.id, summary.split) == ("autodrive/table3_fps", "val")
    row = next(row for row in summary.rows if row.values["fps"] == 15)
    assert row.scores["val/accuracy"].value > 0.8
    assert row.num_unread > 0
    assert row.scores.get("test/accuracy") is None
    assert summary.verdict.outcome == "not comparable"
    assert {(step.outcome, step.why, step.test) for step in summary.verdict.steps} == {
        ("not comparable", "ours is split=val", None)
    }
    assert any("ours is split=val" in reason for reason in summary.not_comparable)
    assert float(summary.comparisons[0].p_value) < 0.05  # among themselves our rows are compared
    assert "split val" in (tmp_path / "ablation.md").read_text().splitlines()[0]
    with (tmp_path / "ablation.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["split"] for line in lines} == {"val"}
    assert float(lines[1]["accuracy"]) == pytest.approx(row.scores["val/accuracy"].value)


def test_a_table_of_our_own_says_which_split_it_is(tmp_path):
    write_run(tmp_path / "0", ["batch_size=4"], reader(0.7, 0), config={"split": "val"})
    write_run(tmp_path / "1", ["batch_size=8"], reader(0.7, 0), config={"split": "val"})
    assert table_of(tmp_path).rows[0].scores["val/collision_f1"].value > 0.4
    assert (tmp_path / "ablation.md").read_text().splitlines()[0] == "# Sweep over batch_size, split val"


def test_runs_of_different_splits_share_no_table(tmp_path):
    write_run(tmp_path / "0", ["fps=1"], reader(0.5, 0))
    write_run(tmp_path / "1", ["fps=15"], reader(0.5, 0), config={"split": "val"})
    with pytest.raises(InputError, match=r"split=val, .*split=test; report runs of one split together"):
        table_of(tmp_path)


def test_tasks_that_cannot_be_made_are_one_line(tmp_path):
    path = write_run(tmp_path / "0", ["fps=1"], reader(0.5, 0)) / ".hydra" / "config.yaml"
    path.write_text(path.read_text().replace("tasks.choice.ChoiceTask", "tasks.choice.NoSuchTask"))
    with pytest.raises(InputError, match=r"config\.yaml: prompts\.tasks\.mcq\._target_: .*NoSuchTask"):
        table_of(tmp_path)


@pytest.mark.parametrize(
    "target",
    ["subprocess.run", "autodrive.journal.os.system", "autodrive.journal.Path", "autodrive.errors.InputErrors"],
)
def test_a_strangers_run_folder_cannot_name_what_is_called(target: str, tmp_path: Path):
    path = write_run(tmp_path / "0", ["fps=1"], reader(0.5, 0)) / ".hydra" / "config.yaml"
    path.write_text(path.read_text().replace("autodrive.tasks.choice.ChoiceTask", target))
    with pytest.raises(InputError, match=f"{target} is not named by any file below conf/; evaluate this run again"):
        table_of(tmp_path)
