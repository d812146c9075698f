"""The transcription of the published tables, and how sweeps find them."""

from pathlib import Path

import pytest
import yaml

from autodrive.errors import InputError
from autodrive.reporting.published import load_published

SHARED = Path(__file__).resolve().parents[2] / "shared" / "papers" / "published_results.yaml"
# Tables of the source whose rows hold more than axis values, and the names the two files give to them.
TABLES = {
    "table2_main": "table2_main",
    "table3_fps": "table3_fps",
    "table4_model_size": "table4_model_size",
    "table5_learning_rate": "table5_learning_rate",
    "table6_duration_resolution": "table6_duration_resolution",
    "table7_balancing": "table7_balancing",
    "table8_nvila_increment": "table8_data_increment",
    "table9_cot": "table9_reasoning",
}


@pytest.mark.parametrize("source_name", TABLES)
def test_every_number_is_transcribed(source_name):
    if not SHARED.is_file():
        pytest.skip("the source of the transcription is not beside this checkout")
    tables = {table["id"]: table for table in yaml.safe_load(SHARED.read_text(encoding="utf-8"))["tables"]}
    theirs = tables[f"autodrive/{source_name}"]["rows"]
    ours = load_published().table(f"autodrive/{TABLES[source_name]}").rows

    def numbers(row):
        is_score = ("accuracy", "_f1", "_precision", "_recall")
        return {key: value for key, value in row.items() if any(part in key for part in is_score)}

    key = str  # the order of rows may differ
    assert sorted(map(key, map(numbers, ours))) == sorted(map(key, map(numbers, theirs)))


def test_every_row_has_its_axis_and_every_mark_points_at_a_printed_cell():
    for table in load_published().tables:
        values = [tuple(row[key] for key in table.axis) for row in table.rows]
        assert len(set(values)) == len(values)
        for cell in table.unusable:
            row = table.row(cell.row)
            assert row is not None
            assert set(cell.columns) <= set(row)


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


def test_a_misspelt_key_in_the_file_is_refused(tmp_path):
    (tmp_path / "autodrive.yaml").write_text("paper: {title: x}\ntabels: []\n")
    with pytest.raises(InputError) as caught:
        load_published(folder=tmp_path)
    assert "\n" not in str(caught.value)
