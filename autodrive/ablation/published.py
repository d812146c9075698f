"""The papers' tables, as transcribed in `experiments/published/`, and how a sweep finds its own."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from autodrive.errors import InputError

PUBLISHED_FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "published"
ROW_NAME = "name"
TEST_SPLIT = "test"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Metric(_Strict):
    """A column of figures.

    Attributes:
        name: Name of the metric for people.
        unit: Unit of the printed figures; `percent` is 0 to 100, `fraction` 0 to 1.
        better: Whether higher or lower figures are better; None for figures that are no scores.
        decimals: Digits that are printed after the point.
        ours: Key of `metrics.json` that measures the same; None if nothing of ours does.
        why_not: Why nothing of ours does; None exactly if something does.
        over_classes: Whether the figure depends on which classes there are.
    """

    name: str
    unit: str
    better: Literal["higher", "lower"] | None = None
    decimals: int
    ours: str | None = None
    why_not: str | None = None
    over_classes: bool = False

    @model_validator(mode="after")
    def _ours_or_a_reason(self) -> "Metric":
        if (self.ours is None) == (self.why_not is None):
            raise ValueError(f"metric {self.name!r} needs either `ours` or `why_not`")
        return self

    @property
    def scale(self) -> float:
        """Printed figures are this many times our fractions."""
        return 100.0 if self.unit == "percent" else 1.0

    def on_split(self, split: str) -> "Metric":
        """The same of another split than test: its key begins with that split's name."""
        if self.ours is None:
            return self
        return self.model_copy(update={"ours": split + self.ours.removeprefix(TEST_SPLIT)})

    @property
    def title(self) -> str:
        """Name, unit and direction, as a column title."""
        unit = {"percent": ", %", "fraction": ""}.get(self.unit, f", {self.unit}")
        return self.name + unit + {"higher": " ↑", "lower": " ↓", None: ""}[self.better]


class TestSet(_Strict):
    """What published figures were measured on; `num_clips` is None where it is not printed."""

    num_clips: int | None
    classes: tuple[str, ...] = ()
    description: str


class UnusableCells(_Strict):
    """Printed cells that cannot be right, why, and what they may mean."""

    row: dict[str, Any]
    columns: tuple[str, ...]
    why: str
    reading: float | None = None


class Today(_Strict):
    """How far the table can be reproduced: a command and what of it is comparable, or what is missing."""

    command: str | None = None
    comparable: str | None = None
    missing: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "Today":
        if (self.command is None) == (self.missing is None) or (self.command is None) != (self.comparable is None):
            raise ValueError("`today` needs either `command` and `comparable`, or `missing`")
        return self


class PublishedTable(_Strict):
    """One printed table.

    Attributes:
        id: Paper and table, as `table=` takes it.
        number: The table's number in the paper.
        title: What the table shows, in a few words.
        axis: Configuration keys whose values tell the rows apart; a key that a row leaves out does not apply to it.
        axis_units: Axis key to the unit of its values.
        model: The model that the paper measured, in words.
        test_set: What the figures were measured on.
        metrics: Column name to metric, in printed order.
        judged: Columns by which the order of the rows is judged.
        beside: Metrics of ours that are shown in addition.
        today: What of the table can be run.
        rows: Axis values, figures and, where the axis values do not say it, the row's `name`.
        unusable: Cells that cannot be right.
        notes: What a reader must know, one sentence each.
    """

    id: str
    number: str
    title: str
    axis: tuple[str, ...]
    axis_units: dict[str, str] = {}
    model: str
    test_set: TestSet
    metrics: dict[str, Metric]
    judged: tuple[str, ...] = ()
    beside: tuple[Metric, ...] = ()
    today: Today
    rows: tuple[dict[str, Any], ...]
    unusable: tuple[UnusableCells, ...] = ()
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _names_exist(self) -> "PublishedTable":
        for row in self.rows:
            unknown = set(row) - set(self.axis) - set(self.metrics) - {ROW_NAME}
            if unknown:
                raise ValueError(f"{self.id}: {sorted(unknown)} is neither in `axis` nor in `metrics`")
        unknown = {column for cells in self.unusable for column in cells.columns} | set(self.judged)
        if unknown - set(self.metrics):
            raise ValueError(f"{self.id}: no column {sorted(unknown - set(self.metrics))}")
        if any(self.metrics[column].better is None for column in self.judged):
            raise ValueError(f"{self.id}: a judged column needs `better`")
        return self

    def row(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """The printed row with these axis values; None if there is none."""
        for row in self.rows:
            if all(same_value(row.get(key), values.get(key)) for key in self.axis):
                return row
        return None

    def why_unusable(self, row: Mapping[str, Any], column: str) -> str | None:
        """Why this printed cell cannot be right; None if nothing speaks against it."""
        for cells in self.unusable:
            if column in cells.columns and all(same_value(row.get(key), value) for key, value in cells.row.items()):
                return cells.why
        return None


class Statement(_Strict):
    """A figure printed in running text."""

    id: str
    metric: str
    value: float
    unit: str
    note: str


class PaperResults(_Strict):
    """The file of one paper."""

    paper: dict[str, str]
    tables: tuple[PublishedTable, ...]
    statements: tuple[Statement, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _complete_tables(cls, file: dict[str, Any]) -> dict[str, Any]:
        """Give each table the metrics and the test set that the file states once for all."""
        shared, test_set = file.get("metrics", {}), file.get("test_set")
        tables = []
        for table in file.get("tables", []):
            own, axis = table.get("metrics", {}), {*table.get("axis", []), ROW_NAME}
            columns = dict.fromkeys(key for row in table.get("rows", []) for key in row if key not in axis)
            metrics = {c: shared.get(c, {}) | own.get(c, {}) for c in columns if c in shared or c in own}
            tables.append({"test_set": test_set} | table | {"metrics": metrics})
        rest = {key: value for key, value in file.items() if key not in ("metrics", "test_set")}
        return rest | {"tables": tables}


@dataclass(frozen=True)
class PublishedResults:
    """The tables and statements of all papers."""

    papers: Mapping[str, PaperResults]

    @property
    def tables(self) -> tuple[PublishedTable, ...]:
        """The tables of all papers."""
        return tuple(table for paper in self.papers.values() for table in paper.tables)

    def table(self, table_id: str) -> PublishedTable:
        """A table by its id.

        Raises:
            InputError: There is no such table.
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


def load_published(folder: Path = PUBLISHED_FOLDER) -> PublishedResults:
    """Read and check the files of all papers.

    Raises:
        InputError: There is no file, or one does not have the expected keys.
    """
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise InputError(f"{folder}: holds no published results; run from a full checkout")
    papers: dict[str, PaperResults] = {}
    for path in paths:
        try:
            content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
            papers[path.stem] = PaperResults.model_validate(content)
        except (yaml.YAMLError, ValidationError) as error:
            raise InputError(f"{path}: {' '.join(str(error).split())[:200]}; correct the file") from None
    return PublishedResults(papers)


def same_value(a: Any, b: Any) -> bool:
    """Whether two axis values mean the same.

    Numbers are compared by value (`6` and `6.0`), everything else by its text. A group's option `none` means the same
    as a run that does not have the group.
    """
    if a is None or b is None:
        return {a, b} <= {None, "none"}
    try:
        return math.isclose(float(a), float(b), rel_tol=1e-9)
    except (TypeError, ValueError):
        return str(a) == str(b)


def _num_shared_values(table: PublishedTable, swept: Mapping[str, Sequence[Any]]) -> int:
    return sum(
        any(same_value(row.get(key), value) for row in table.rows) for key, values in swept.items() for value in values
    )
