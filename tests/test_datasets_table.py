import os
from pathlib import Path

import pytest

from autodrive.datasets.table import read_table
from autodrive.errors import InputError

NEEDED, OPTIONAL = ("file", "label"), ("split",)
ROWS = [
    (2, {"file": "Größe.mp4", "label": "normal", "split": ""}),
    (3, {"file": "b.mp4", "label": "", "split": "test"}),
]


def read(path: Path, content: bytes) -> list:
    path.write_bytes(content)
    return list(read_table(path, NEEDED, OPTIONAL))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_marks_and_line_ends_of_spreadsheets(tmp_path: Path, separator: str, mark: bytes, end: str):
    lines = ["file,label, split", "Größe.mp4, normal", '"b.mp4",,test', ""]
    text = end.join(lines).replace(",", separator)
    assert read(tmp_path / "labels.csv", mark + text.encode()) == ROWS


TEXT = "file,label\na.mp4,normal\nGröße.mp4,normal\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (TEXT.encode("cp1252"), "labels.csv:3: not UTF-8 (byte 0xf6); save it as CSV UTF-8"),
        (TEXT.encode("utf-16"), "labels.csv: UTF-16, not UTF-8; save it as CSV UTF-8"),
        (TEXT.encode("utf-16-le"), "labels.csv:1: holds NUL bytes"),
        (b"file,label\na.mp4,nor\0mal\n", "labels.csv:2: holds NUL bytes"),
        (b"", "labels.csv:1: no column 'file'; it needs file, label, and may have split"),
        (b"datei;klasse\n", "labels.csv:1: no column 'file'"),
        (b"file,label,splt\n", "labels.csv:1: unknown column 'splt'"),
        (b"file,label,label\n", "labels.csv:1: column 'label' twice"),
        (b"file;label\na.mp4,normal\n", "labels.csv:2: no cell for 'label'"),
        (b"file,label\n\na.mp4\n", "labels.csv:3: no cell for 'label'"),
        (b"file,label\na.mp4,normal,,\n", "labels.csv:2: more cells than columns"),
        (b'file,label\na.mp4,"normal\nb.mp4,normal\nc.mp4,normal\n', "labels.csv:2: unexpected end of data"),
        (b"x" * (2**25 + 2), "labels.csv:1: a line of more than 32 MiB"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path, content: bytes, said: str):
    with pytest.raises(InputError) as refused:
        read(tmp_path / "labels.csv", content)
    assert said in str(refused.value)


def test_a_table_that_is_no_file(tmp_path: Path):
    (tmp_path / "labels.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    for name, said in (("labels.csv", "is a folder"), ("pipe.csv", "is not a file"), ("none.csv", "no such file")):
        with pytest.raises(InputError, match=said):
            list(read_table(tmp_path / name, NEEDED))


def test_a_closed_table(ordinary_user: Path):
    table = ordinary_user / "labels.csv"
    table.touch(mode=0)
    with pytest.raises(InputError, match=r"labels.csv: cannot be read \(Permission denied\); make it readable"):
        list(read_table(table, NEEDED))
