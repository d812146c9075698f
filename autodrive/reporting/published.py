"""The papers' tables, as transcribed in `experiments/published/`, and how a sweep finds its own."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from autodrive.errors import InputError

PUBLISHED_FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "published"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TestSet(_Strict):
    """What the published numbers were measured on."""

    num_clips: int
    clips_per_class: int
    description: str


class UnusableCells(_Strict):
    """Printed cells that no set of replies can give, and why."""

    row: dict[str, Any]
    columns: tuple[str, ...]
    why: str
    reading: float | None = None


class PublishedTable(_Strict):
    """One printed table.

    Attributes:
        axis: configuration keys whose values tell its rows apart; every row has them.
        accuracy_column: the column that orders the rows.
    """

    id: str
    title: str
    axis: tuple[str, ...]
    axis_units: dict[str, str] = {}
    model: str
    accuracy_column: str = "accuracy"
    rows: tuple[dict[str, Any], ...]
    unusable: tuple[UnusableCells, ...] = ()
    notes: tuple[str, ...] = ()

    def row(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """The printed row with these axis values; None if there is none."""
        for row in self.rows:
            if all(key in values and same_value(row[key], values[key]) for key in self.axis):
                return row
        return None


class Statement(_Strict):
    """A number printed in running text."""

    id: str
    column: str
    value: float
    notes: tuple[str, ...] = ()


class PublishedResults(_Strict):
    """One paper's results."""

    paper: dict[str, str]
    test_set: TestSet
    units: dict[str, str]
    tables: tuple[PublishedTable, ...]
    statements: tuple[Statement, ...] = ()

    def table(self, table_id: str) -> PublishedTable:
        """A table by its id.

        Raises:
            InputError: there is no such table.
        """
        for table in self.tables:
            if table.id == table_id:
                return table
        known = ", ".join(table.id for table in self.tables)
        raise InputError(f"table={table_id}: no such published table; choose one of {known}")

    def match(self, swept: Mapping[str, Sequence[Any]]) -> PublishedTable | None:
        """The table that a sweep over these keys and (paper) values reproduces; None if there is none.

        All swept keys must be in the table's axis. Among several such tables the one that shares most values wins; if
        none shares any, the sweep belongs to no table unless only one has this axis.
        """
        candidates = [table for table in self.tables if swept and set(swept) <= set(table.axis)]
        if not candidates:
            return None
        shared = [_num_shared_values(table, swept) for table in candidates]
        best = max(shared)
        if best == 0:
            return candidates[0] if len(candidates) == 1 else None
        return candidates[shared.index(best)]


def load_published(paper: str = "autodrive", folder: Path = PUBLISHED_FOLDER) -> PublishedResults:
    """Read and check one paper's file.

    Raises:
        InputError: the file is missing or does not have the expected keys.
    """
    path = folder / f"{paper}.yaml"
    if not path.is_file():
        raise InputError(f"{path}: no published results of {paper!r}; run from a full checkout")
    try:
        return PublishedResults.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())[:200]}; restore the file") from None


def same_value(a: Any, b: Any) -> bool:
    """Whether two axis values mean the same: numbers by value (`6` and `6.0`), everything else by its text."""
    try:
        return math.isclose(float(a), float(b), rel_tol=1e-9)
    except (TypeError, ValueError):
        return str(a) == str(b)


def _num_shared_values(table: PublishedTable, swept: Mapping[str, Sequence[Any]]) -> int:
    return sum(
        any(same_value(row[key], value) for row in table.rows) for key, values in swept.items() for value in values
    )
