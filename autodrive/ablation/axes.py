"""What a set of runs varies, and how its values map onto the paper's."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from omegaconf import OmegaConf

from autodrive.ablation.published import same_value
from autodrive.config_identity import MACHINE_KEYS
from autodrive.runs.folder import RunFolder, Value

REPLICATE_KEY = "seed"


@dataclass
class RowRuns:
    """The runs of one table row: same axis values, different seeds.

    Attributes:
        values: Axis key to our value.
        paper_values: Axis key to the paper's value that it stands for.
        finished: Runs that have metrics.
        failed: Runs that ended without metrics.
    """

    values: dict[str, Value]
    paper_values: dict[str, Value]
    finished: list[RunFolder] = field(default_factory=list)
    failed: list[RunFolder] = field(default_factory=list)

    def by_seed(self) -> dict[Value, list[RunFolder]]:
        """Finished runs by training seed: the same seed twice is no replicate."""
        seeds: dict[Value, list[RunFolder]] = {}
        for run in self.finished:
            seeds.setdefault(run.value(REPLICATE_KEY), []).append(run)
        return seeds

    def add(self, run: RunFolder) -> None:
        """Count a run in."""
        (self.failed if run.error else self.finished).append(run)

    @property
    def trained(self) -> bool:
        """Whether another seed would have given other weights."""
        return any(run.trained for run in self.finished)


def swept_keys(runs: Sequence[RunFolder]) -> tuple[str, ...]:
    """Keys that the command line set differently in different runs, in order of appearance.

    Never the seed, whose runs are replicates, nor what says only where a run was made.
    """
    no_axis = MACHINE_KEYS | {REPLICATE_KEY, "hydra"}
    keys = list(dict.fromkeys(key for run in runs for key in run.overrides if key.split(".")[0] not in no_axis))
    return tuple(key for key in keys if any(not same_value(run.value(key), runs[0].value(key)) for run in runs))


def paper_value(run: RunFolder, key: str, value: Value) -> Value:
    """The paper's value that ours stands for at this scale, from the run's `axes`; ours itself if there is no mapping.

    `axes` maps, for each key, the paper's values to this scale's: `axes.lr: {1e-6: 1e-4, 1e-5: 1e-3}`.
    """
    axis = (run.select("axes") or {}).get(key) or {}
    return next((paper for paper, ours in axis.items() if same_value(ours, value)), value)


def group_rows(runs: Sequence[RunFolder], keys: Sequence[str]) -> list[RowRuns]:
    """Runs grouped by their values of these keys, in order of first appearance.

    With no keys, runs that differ in the seed alone are one row. Should two of them also have the same seed, then they
    differ in something that no configuration says, such as the code, and each run is a row.
    """
    if not keys:
        return _rows_without_axis(runs)
    rows: dict[tuple[float | str, ...], RowRuns] = {}
    for run in runs:
        values: dict[str, Value] = {key: run.value(key) for key in keys}
        papers = {key: paper_value(run, key, value) for key, value in values.items()}
        identity = tuple(float(v) if isinstance(v, int | float) else str(v) for v in values.values())  # 6 is 6.0
        row = rows.setdefault(identity, RowRuns(values, papers))
        row.add(run)
    return list(rows.values())


def _rows_without_axis(runs: Sequence[RunFolder]) -> list[RowRuns]:
    settings: dict[str, list[RunFolder]] = {}
    for run in runs:
        settings.setdefault(_setting(run), []).append(run)
    groups: list[list[RunFolder]] = []
    for alike in settings.values():
        seeds = [run.value(REPLICATE_KEY) for run in alike if not run.error]
        groups += [alike] if len(set(seeds)) == len(seeds) else [[run] for run in alike]
    above = os.path.commonpath([run.path.absolute().parent for run in runs])
    rows = []
    for members in groups:
        name = str(members[0].path.absolute().relative_to(above))
        if len(members) > 1:
            seeds_text = f"seeds {', '.join(str(run.value(REPLICATE_KEY)) for run in members)}"
            name = seeds_text if len(groups) == 1 else f"{name}: {seeds_text}"
        row = RowRuns({"run": name}, {"run": name})
        for run in members:
            row.add(run)
        rows.append(row)
    return rows


def _setting(run: RunFolder) -> str:
    """All that a run's configuration says, but for its seed and where it was made."""
    content = OmegaConf.to_container(run.config)
    assert isinstance(content, dict)
    return repr({key: content[key] for key in sorted(content, key=str) if key not in MACHINE_KEYS | {REPLICATE_KEY}})
