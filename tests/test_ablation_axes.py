from pathlib import Path

from omegaconf import OmegaConf

from autodrive.ablation.axes import group_rows, swept_keys
from autodrive.runs.folder import RunFolder, parse_overrides


def run_folder(*overrides: str, name: str = "run", error: str | None = None, **config: object) -> RunFolder:
    return RunFolder(Path(name), parse_overrides(overrides), {}, OmegaConf.create(config), {"n": 1}, error)


def rows_of(*runs: RunFolder) -> list[list[str]]:
    """The names of the folders of each row."""
    return [[run.path.name for run in (*row.finished, *row.failed)] for row in group_rows(runs, swept_keys(runs))]


def test_where_a_run_was_made_is_no_axis():
    """Runs of two machines go into one table; the same value written out or left at its default is the same."""
    here = run_folder("lr=1e-3", "fps=15", "seed=0", "paths.data_dir=/a", "num_workers=2", "hydra.run.dir=x", lr=1e-3)
    there = run_folder("lr=2e-3", "seed=1", "paths.data_dir=/b", "logger=csv", lr=2e-3, fps=15.0)
    assert swept_keys([here, there]) == ("lr",)


def test_an_axis_that_one_run_leaves_at_its_default_is_found():
    assert swept_keys([run_folder("fps=30", fps=30.0), run_folder(fps=15.0)]) == ("fps",)


def test_runs_that_differ_in_the_seed_alone_are_one_row():
    seeds = [run_folder(f"seed={i}", name=f"seed-{i}", seed=i, fps=15.0, paths={"data_dir": f"/{i}"}) for i in range(3)]
    (row,) = group_rows(seeds, swept_keys(seeds))
    assert list(row.by_seed()) == [0, 1, 2]
    assert row.values == {"run": "seeds 0, 1, 2"}
    assert rows_of(*seeds[:2], run_folder(name="c", seed=2, fps=15.0, error="stopped")) == [["seed-0", "seed-1", "c"]]


def test_runs_that_differ_in_more_or_in_nothing_that_is_said_stay_apart():
    first, second = run_folder(name="a", seed=0, fps=15.0), run_folder(name="b", seed=1, fps=15.0)
    edited = run_folder(name="c", seed=2, fps=15.0, mixture={"balance": None})  # an edit of conf/, not an override
    assert rows_of(first, second, edited) == [["a", "b"], ["c"]]
    names = [row.values["run"] for row in group_rows([first, second, edited], ())]
    assert names == ["a: seeds 0, 1", "c"]
    again = run_folder(name="d", seed=1, fps=15.0)  # such as the same command at another commit
    assert rows_of(first, second, again) == [["a"], ["b"], ["d"]]


def test_rows_of_two_sweeps_have_different_names():
    runs = [run_folder(name=f"{sweep}/seed-0", seed=0, fps=15.0) for sweep in "ab"]
    assert [row.values["run"] for row in group_rows(runs, ())] == ["a/seed-0", "b/seed-0"]
