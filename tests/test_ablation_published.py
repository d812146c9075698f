"""The transcription of the published tables, and how sweeps find them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from autodrive.ablation.published import PUBLISHED_FOLDER, load_published, same_value
from autodrive.errors import InputError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "papers" / "published_results.yaml"
# Tables that the source names otherwise, and figures that it nests or names otherwise.
OTHER_IDS = {
    "autodrive/table8_nvila_increment": "autodrive/table8_data_increment",
    "autodrive/table9_cot": "autodrive/table9_reasoning",
}
OTHER_NAMES = {"approx_count": "annotations"} | {
    name: f"{name}_annotations" for name in ("collision", "near_collision", "normal")
}
TABLES = {table.id: table for table in load_published().tables}


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def source_tables() -> dict[str, dict[str, Any]]:
    if not SHARED.is_file():
        pytest.skip("the source of the transcription is not beside this checkout")
    tables = yaml.safe_load(SHARED.read_text(encoding="utf-8"))["tables"]
    return {OTHER_IDS.get(table["id"]) or table["id"]: table for table in tables}


def test_every_published_table_is_here():
    assert len(TABLES) == 20
    assert set(source_tables()) == set(TABLES)


@pytest.mark.parametrize("table_id", TABLES)
def test_every_number_is_transcribed(table_id):
    source, ours = source_tables()[table_id], TABLES[table_id]
    scored = {column["name"] for column in source["columns"] if column.get("better") or column["unit"] == "count"}

    def figures(row: dict[str, Any]) -> dict[str, float]:
        flat = {key: row.get(key) for key in scored} | row.get("class_counts", {})
        named = {OTHER_NAMES.get(key) or key: value for key, value in flat.items()}
        return {key: float(value) for key, value in named.items() if is_number(value)}

    theirs = [figures(row) for row in source["rows"]]
    mine = [{key: float(row[key]) for key in ours.metrics if is_number(row.get(key))} for row in ours.rows]
    assert sorted(map(sorted_items, mine)) == sorted(map(sorted_items, theirs))  # the order of rows may differ
    for column in source["columns"]:
        if column.get("better"):
            metric = ours.metrics[column["name"]]
            assert metric.better == {"up": "higher", "down": "lower"}[column["better"]]
            assert metric.unit.replace(" ", "_") == column["unit"]
            assert metric.decimals == column["decimals"]


def sorted_items(row: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(row.items())


@pytest.mark.parametrize("table_id", [i for i in TABLES if i.partition("/")[0] in ("trinci", "ltvad")])
def test_rows_carry_the_printed_names(table_id):
    for source, ours in zip(source_tables()[table_id]["rows"], TABLES[table_id].rows, strict=True):
        if "rank" in source:
            assert (source["rank"], source["size"].lower()) == (ours["rank"], ours["student"].rpartition("_")[2])
        else:
            printed = source.get("method") or " ".join(filter(None, (source["model"], source["size"])))
            assert ours["name"] == printed
            assert same_value(source.get("dataset"), ours.get("dataset"))


def test_statements_are_those_of_the_source():
    if not SHARED.is_file():
        pytest.skip("the source of the transcription is not beside this checkout")
    source = yaml.safe_load(SHARED.read_text(encoding="utf-8"))
    theirs = {entry["value"] for entry in source["prose_results"] if is_number(entry["value"])}
    theirs |= {value for r in source["tables"] for item in r.get("ranges", []) for value in item.values()}
    theirs.add(source["prose_results"][11]["value"]["hours"])
    stated = {s.value for paper in load_published().papers.values() for s in paper.statements}
    assert stated <= theirs


@pytest.mark.parametrize("table_id", TABLES)
def test_rows_are_told_apart_and_every_mark_points_at_a_printed_cell(table_id):
    table = TABLES[table_id]
    values = [tuple(str(row.get(key)) for key in table.axis) for row in table.rows]
    assert len(set(values)) == len(values)
    for row in table.rows:
        assert table.row(row) == row
    for cells in table.unusable:
        (row,) = [r for r in table.rows if all(same_value(r.get(key), value) for key, value in cells.row.items())]
        assert all(is_number(row[column]) for column in cells.columns)
        assert table.why_unusable(row, cells.columns[0]) == cells.why


def test_known_contradictions_are_marked_and_explained():
    """Each cell that the source calls impossible, misprinted, wrong in sign or unattainable."""
    marked = {(table.id, column) for table in TABLES.values() for cells in table.unusable for column in cells.columns}
    assert marked >= {
        ("autodrive/table2_main", "near_collision_recall"),
        ("autodrive/table2_main", "near_collision_precision"),
        ("autodrive/table9_reasoning", "accuracy_reasoning_on"),
        ("trinci/table2_binary_sce", "precision_pos"),
        ("trinci/table5_no_imu", "sce_2class_delta"),
    }
    assert all(table.notes for table in TABLES.values())


@pytest.mark.parametrize(
    ("swept", "found"),
    [
        ({"fps": [1, 15, 30]}, "autodrive/table3_fps"),
        ({"fps": [2.0, 8]}, "autodrive/table3_fps"),
        ({"lr": [1e-6, 2e-5]}, "autodrive/table5_learning_rate"),
        ({"duration_s": [4.0, 6.0]}, "autodrive/table6_duration_resolution"),
        ({"resolution": ["32x4"], "duration_s": [6]}, "autodrive/table6_duration_resolution"),
        ({"mixture": ["unbalanced", "uniform"]}, "autodrive/table7_balancing"),
        ({"mixture": ["mcq", "mcq_caption"]}, "autodrive/table8_data_increment"),
        ({"rank": [8, 16]}, "trinci/table4_dora_rank"),
        ({"mixture": ["mine", "yours"]}, None),
        ({"fps": [1], "lr": [1e-5]}, None),
        ({}, None),
    ],
)
def test_a_sweep_finds_its_table(swept, found):
    table = load_published().match(swept)
    assert (table.id if table else None) == found


def test_an_unknown_table_is_named_with_the_known_ones():
    with pytest.raises(InputError, match="autodrive/table3_fps"):
        load_published().table("table3")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("tables:", "tabels:", "tabels"),
        ("fps: 1, collision_f1: 0.341", "fps: 1, colision_f1: 0.341", "colision_f1"),
        ("judged: [accuracy]", "judged: [acuracy]", "acuracy"),
        ("why_not: ", "why_nod: ", "why_nod"),
        ("better: higher, ", "", "better"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_that_names_it(tmp_path, old, new, told):
    text = (PUBLISHED_FOLDER / "autodrive.yaml").read_text()
    assert old in text
    (tmp_path / "autodrive.yaml").write_text(text.replace(old, new))
    with pytest.raises(InputError) as caught:
        load_published(tmp_path)
    assert "\n" not in str(caught.value)
    assert told in str(caught.value)


def test_a_folder_without_tables_is_refused(tmp_path):
    with pytest.raises(InputError, match="full checkout"):
        load_published(tmp_path)


@pytest.mark.parametrize("table_id", TABLES)
def test_the_documents_say_what_can_be_run_today(table_id):
    """The line of docs/reproducing.md follows from the table's `today`; a failure shows the line to put there."""
    table = TABLES[table_id]
    command = f"`{table.today.command}`" if table.today.command else ""
    said = table.today.comparable or f"not yet: {table.today.missing}"
    line = f"| {table.id}: {table.title} |{f' {command}' if command else ''} | {said} |"
    document = PUBLISHED_FOLDER.parents[1] / "docs" / "reproducing.md"
    assert line in document.read_text(encoding="utf-8").splitlines()
