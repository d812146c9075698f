from pathlib import Path

from omegaconf import OmegaConf

from autodrive.ablation.axes import swept_keys
from autodrive.runs.folder import RunFolder, parse_overrides


def run_folder(*overrides: str, **config: object) -> RunFolder:
    return RunFolder(Path("run"), parse_overrides(overrides), {}, OmegaConf.create(config), {"n": 1}, None)


def test_where_a_run_was_made_is_no_axis():
    """Runs of two machines go into one table; the same value written out or left at its default is the same."""
    here = run_folder("lr=1e-3", "fps=15", "seed=0", "paths.data_dir=/a", "num_workers=2", "hydra.run.dir=x", lr=1e-3)
    there = run_folder("lr=2e-3", "seed=1", "paths.data_dir=/b", "logger=csv", lr=2e-3, fps=15.0)
    assert swept_keys([here, there]) == ("lr",)


def test_an_axis_that_one_run_leaves_at_its_default_is_found():
    assert swept_keys([run_folder("fps=30", fps=30.0), run_folder(fps=15.0)]) == ("fps",)
