"""Tables that people bring, such as labels.csv: read as they stand, or refused in one line."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from autodrive.errors import InputError
from autodrive.text_files import text_lines

# Spreadsheets write all of these, by the language of the system. No column's name holds one, so the header tells.
SEPARATORS = (",", ";", "\t")

Row = dict[str, str]


def read_table(path: Path, needed: Sequence[str], optional: Sequence[str] | None = None) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a CSV file with the numbers of their lines.

    Args:
        path: The file, in UTF-8, with commas, semicolons or tabs between its cells.
        needed: Columns that must be there.
        optional: Columns that may be there; None: any.

    Yields:
        Number and cells by column, without the spaces around them; optional cells that a row does not have are empty.

    Raises:
        InputError: The file cannot be read, a column is missing, unknown or there twice, a row has more cells than
            there are columns or too few for those that are needed, or a quote is not closed.
    """
    text = "".join(line for _, line in text_lines(path, "save it as CSV UTF-8"))
    separator = next((s for s in SEPARATORS if set(needed) <= set(_columns(text, s))), ",")
    columns = _columns(text, separator)
    _check_columns(path, columns, needed, optional)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    number = 0
    try:
        for cells in reader:
            number, first = reader.line_num, number + 1
            if first == 1 or not cells:
                continue
            if len(cells) > len(columns):
                raise InputError(f"{path}:{first}: more cells than columns; quote cells that hold {separator!r}")
            absent = [column for column in needed if columns.index(column) >= len(cells)]
            if absent:
                raise InputError(f"{path}:{first}: no cell for {absent[0]!r}; write all cells, empty ones too")
            yield first, dict(zip_longest(columns, map(str.strip, cells), fillvalue=""))
    except csv.Error as error:
        raise InputError(f"{path}:{number + 1}: {error}; check the quotes of that row") from None


def parse_seconds(cell: str, column: str) -> float | None:
    """A time in seconds from a CSV cell; None for an empty cell.

    Raises:
        ValueError: The cell is not a finite number of seconds at or after 0.
    """
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{column} {cell!r} is not a time in seconds")
    return value


def _columns(text: str, separator: str) -> list[str]:
    header = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
    return [column.strip() for column in header]


def _check_columns(path: Path, columns: Sequence[str], needed: Sequence[str], optional: Sequence[str] | None) -> None:
    missing = [column for column in needed if column not in columns]
    unknown = [] if optional is None else [column for column in columns if column not in (*needed, *optional)]
    twice = [column for column in dict.fromkeys(columns) if columns.count(column) > 1]
    if missing or unknown or twice:
        problem = f"no column {missing[0]!r}" if missing else f"column {twice[0]!r} twice" if twice else ""
        known = f"; it needs {', '.join(needed)}" + (f", and may have {', '.join(optional)}" if optional else "")
        raise InputError(f"{path}:1: {problem or f'unknown column {unknown[0]!r}'}{known}")
