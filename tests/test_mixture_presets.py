"""The recipes that ship: they compose, carry the names of the papers' tables, and teach what these say."""

import re
from pathlib import Path

import pytest
import yaml
from hydra.utils import instantiate
from run_samples import task_book
from running import composed, run

from autodrive.ablation.published import load_published
from autodrive.entry_point import CONFIG_FOLDER
from autodrive.mixture.mixture import Mixture
from autodrive.reporting.terminal import DASH
from experiments.table1_records import CLIPS, write_records

PRESETS = sorted(path.stem for path in (CONFIG_FOLDER / "mixture").glob("*.yaml"))
SWEPT = ("autodrive/table7_balancing", "autodrive/table8_data_increment", "autodrive/table9_reasoning")
SHARED = Path(__file__).resolve().parents[2] / "shared" / "papers" / "published_results.yaml"
SHARE = 0.02  # of Table 1's 349,000 annotations


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records in the proportions of Table 1, of which no video exists."""
    folder = tmp_path_factory.mktemp("records")
    write_records(folder, SHARE)
    return folder


def of_records(folder: Path, *more: str) -> list[str]:
    return [
        "annotations=[annotated,av_reasoning]",
        f"clips={folder / 'clips.jsonl'}",
        f"annotations.caption.path={folder / 'rules.jsonl'}",
        f"annotations.vlm_caption.path={folder / 'models.jsonl'}",
        f"annotations.av_reasoning.path={folder / 'av.jsonl'}",
        "dry_run=true",
        *more,
    ]


def dry_run(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, list[int]]:
    """Counts of every class and of all by the source of each row of a dry run's first table."""
    assert run("train", *of_records(folder, *more)) == 0
    rows = {}
    for line in capsys.readouterr().out.partition("beside the paper's")[0].splitlines():
        cells = [cell.strip() for cell in line.strip().strip("│").split("│")]
        if len(cells) == 6:
            rows[cells[0]] = [0 if cell == DASH else int(cell.replace(",", "")) for cell in cells[2:]]
    return rows


def test_every_preset_is_a_mixture_of_sources_that_are_there():
    sources = set(composed("train", ["annotations=[annotated,av_reasoning,rules]"]).annotations)
    for name in PRESETS:
        mixture: Mixture = instantiate(composed("train", [f"mixture={name}"]).mixture)
        assert set(mixture.parts) <= sources, name
        assert set(mixture.leave_out) <= sources, name


def test_presets_are_named_as_the_rows_of_the_tables():
    for table in SWEPT:
        names = {row["mixture"] for row in load_published().table(table).rows}
        assert names <= set(PRESETS), table
    for overlay in ("table8_data_increment", "table9_reasoning"):
        swept = composed("train", [f"experiment=autodrive/{overlay}"], with_hydra=True).hydra.sweeper.params.mixture
        rows = [row["mixture"] for row in load_published().table(f"autodrive/{overlay}").rows]
        assert swept.split(",") == rows


def test_parts_follow_the_marks_of_the_printed_tables():
    if not SHARED.is_file():
        pytest.skip("the source of the transcription is not beside this checkout")
    printed = {table["id"]: table for table in yaml.safe_load(SHARED.read_text(encoding="utf-8"))["tables"]}
    for theirs, ours in zip(("autodrive/table8_nvila_increment", "autodrive/table9_cot"), SWEPT[1:], strict=True):
        for marks, row in zip(printed[theirs]["rows"], load_published().table(ours).rows, strict=True):
            mixture: Mixture = instantiate(composed("train", [f"mixture={row['mixture']}"]).mixture)
            for source in ("mcq", "caption", "vqa", "reasoning_mcq", "reasoning_vqa"):
                assert (source in mixture.parts) == marks.get(source, False), (row["mixture"], source)
                assert (source in mixture.leave_out) == (not marks.get(source, False)), (row["mixture"], source)
            twice = "reasoning_mcq" in mixture.parts and mixture.parts["reasoning_mcq"].repeat == 2
            assert twice == marks.get("reasoning_mcq_x2", False), row["mixture"]


def test_table_1_is_taught_as_printed_without_a_video(records: Path, capsys, tmp_path: Path):
    """What is taught is counted from the stream of visits elsewhere (test_mixture_epoch.py); here it is the printed."""
    capsys.readouterr()
    assert run("train", *of_records(records, "mixture=table1", f"hydra.run.dir={tmp_path / 'run'}")) == 0
    said = capsys.readouterr().out
    table = load_published().table("autodrive/table1_data_mixture")
    total = sum(row["annotations"] for row in table.rows)
    assert f"{round(total * SHARE):,}" in said
    assert "counts the multiple-choice questions twice" in " ".join(said.split())
    assert not (tmp_path / "run").exists()
    assert not list(records.glob("**/*.mp4"))
    found = dry_run(records, capsys, "mixture=table1")
    unbalanced, upsampled = table.rows[:2]
    for place, name in enumerate(reversed(list(CLIPS))):
        printed = unbalanced[f"{name}_annotations"] + upsampled[f"{name}_annotations"]
        assert found["mcq"][place] == round(printed * SHARE)
    assert found["all"][-1] == round(total * SHARE)


def test_the_best_recipe_asks_once_and_takes_fewer_captions(records: Path, capsys):
    every = dry_run(records, capsys, "mixture=best")
    fewer = dry_run(records, capsys, "mixture=best", "mixture.parts.vlm_caption.limit=200")
    assert every["mcq"][-1] == round(68_000 * SHARE)
    assert every["vlm_caption"][-1] == 50_000 * SHARE
    assert fewer["vlm_caption"][-1] == 200
    assert {name: row for name, row in fewer.items() if name not in ("all", "vlm_caption")} == {
        name: row for name, row in every.items() if name not in ("all", "vlm_caption")
    }


def test_each_row_of_table_9_adds_its_traces_and_nothing_else(records: Path, capsys):
    names = [row["mixture"] for row in load_published().table(SWEPT[2]).rows]
    base, once, twice, every = (dry_run(records, capsys, f"mixture={name}") for name in names)
    traces = 12_000 * SHARE
    assert "reasoning_mcq" not in base
    assert (once["reasoning_mcq"][-1], twice["reasoning_mcq"][-1]) == (traces, 2 * traces)
    assert every["reasoning_vqa"][-1] == 10_000 * SHARE
    for row in (once, twice, every):
        for source in ("caption", "vlm_caption", "vqa"):
            assert row[source] == base[source]


def test_samples_of_a_class_are_as_many_as_the_preset_says(records: Path, capsys):
    found = dry_run(records, capsys, "mixture=mcq_1000_per_class")
    assert found["mcq"] == [1000, 1000, 1000, 3000]


def test_a_source_that_is_missing_is_said(records: Path, capsys):
    arguments = [a for a in of_records(records, "mixture=table1") if "av_reasoning" not in a]
    assert run("train", "annotations=annotated", *arguments) == 0
    assert "mixture.parts.av_reasoning: there is no such annotation source" in " ".join(capsys.readouterr().out.split())


def test_a_file_alone_is_taught_by_the_default_and_its_variants(records: Path, capsys):
    """`annotations=file` needs no other key: what the recipe has no source for is said and done without."""
    sources = ["annotations=[file]", f"annotations.file.path={records / 'models.jsonl'}"]
    for mixture in ("uniform", "balanced"):
        assert run("train", *sources, f"clips={records / 'clips.jsonl'}", f"mixture={mixture}", "dry_run=true") == 0
        said = " ".join(capsys.readouterr().out.split())
        assert re.search(rf"│ file │ caption │.* {50_000 * SHARE:,.0f} │", said)
        assert all(f"mixture.parts.{name}: there is no such annotation source" in said for name in ("mcq", "closed_qa"))
    assert run("train", *sources, f"clips={records / 'clips.jsonl'}", "mixture=mcq", "dry_run=true") == 2
    assert "leave the part out with ~mixture.parts.mcq" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mixture=best_of_all"], "best_of_all"),
        (["mixture=mcq_caption", "annotations=rules"], "mixture.parts.caption: no such annotation source"),
        (["mixture=mcq", "mixture.leave_out=[mcq]"], "mixture.leave_out: mcq is also in mixture.parts"),
        (["mixture=table1", "mixture.parts.vqa.limit=0"], "mixture.parts.vqa.limit"),
        (["mixture=mcq_1000_per_class", "mixture.balance.equal=true"], "not several"),
        (["annotations=annotated"], "annotations.caption.path"),
        (["annotations.vqa.tasks=[vqa,vqa]"], "annotations.vqa.tasks"),
        (["annotations.vqa.tasks=[closed_qa]"], "no row fits tasks=[closed_qa]; it holds caption by openai:"),
    ],
)
def test_a_wrong_recipe_is_one_line(arguments: list[str], said: str, records: Path, capsys):
    given = of_records(records, "mixture=table1")
    if any(argument.startswith(("annotations=", "mixture=mcq_caption")) for argument in arguments):
        given = [f"clips={records / 'clips.jsonl'}", "dry_run=true"]
    keys = {argument.partition("=")[0] for argument in arguments}
    assert run("train", *(a for a in given if a.partition("=")[0] not in keys), *arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert re.match(r"error: ", lines[0])
    assert said in lines[0]


def test_a_dry_run_prepares_nothing(tmp_path: Path, capsys):
    arguments = [f"paths.data_dir={tmp_path / 'data'}", f"hydra.run.dir={tmp_path / 'run'}", "dry_run=true"]
    assert run("train", *arguments) == 2
    assert "is not there yet" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_the_default_trains_on_as_little_as_before_and_its_reasoning_preset_on_all_kinds():
    default, reasoning = (
        instantiate(composed("train", [f"mixture={name}"]).mixture) for name in ("uniform", "uniform_reasoning")
    )
    sources = set(composed("train").annotations)
    assert set(default.taught(sources)) == {"mcq", "closed_qa"}
    assert set(reasoning.taught(sources)) == set(reasoning.parts) == sources
    taught = set(task_book().tasks) & set(reasoning.parts)
    assert taught == set(task_book().tasks)
