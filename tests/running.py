"""Runs the verbs as a user does, in this process, and reads what they leave behind."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

import eval as evaluation
import train as training
from autodrive import annotate, bench, export, parity, plan, power, predict, prepare, report
from autodrive.config import register
from autodrive.datasets.preparing import PrepareSettings
from autodrive.entry_point import CONFIG_FOLDER

VERBS: dict[str, Callable[[], None]] = {
    "train": training.main,
    "eval": evaluation.main,
    "annotate": annotate.main,
    "export": export.main,
    "parity": parity.main,
    "plan": plan.main,
    "power": power.main,
    "predict": predict.main,
    "prepare": prepare.main,
    "report": report.main,
    "bench": bench.main,
}


def run(verb: str, *arguments: str, wandb: str = "disabled") -> int:
    """Run a verb with command-line arguments, and W&B in a mode of its own; its exit code."""
    GlobalHydra.instance().clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{verb}.py", *arguments])
        patch.setenv("WANDB_MODE", wandb)
        try:
            VERBS[verb]()
        except SystemExit as exit_:
            return int(exit_.code or 0)
    return 0


def composed(verb: str, overrides: Sequence[str] = (), *, with_hydra: bool = False) -> DictConfig:
    """The configuration of a command line, without running anything."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        return compose(verb, overrides=list(overrides), return_hydra_config=with_hydra)


def prepare_settings(duration_s: float, **changes: Any) -> PrepareSettings:
    """The settings of `conf/prepare`."""
    node: Any = yaml.safe_load((CONFIG_FOLDER / "prepare" / "windows_and_splits.yaml").read_text(encoding="utf-8"))
    return PrepareSettings(**{**node, "duration_s": duration_s, **changes})


def tiny(data_dir: Path, **changes: object) -> list[str]:
    """Overrides for a run of seconds: a world of 27 videos of 2 s, read at 5 frames per second."""
    settings: dict[str, object] = {
        "experiment": "smoke",
        "logger": "csv",
        "paths.data_dir": data_dir,
        "dataset.num_train_scenes": 4,
        "dataset.num_val_scenes": 2,
        "dataset.num_test_scenes": 3,
        "dataset.num_workers": 1,
        "duration_s": 2,
        "fps": 5,
        "num_steps": 8,
        "prompts.tasks.mcq.max_new_tokens.reasoning": 12,
        "prompts.tasks.closed_qa.max_new_tokens.reasoning": 12,
        "evaluation.num_strips": 2,
        "trainer.log_every_n_steps": 1,
    }
    return [f"{key}={value}" for key, value in (settings | changes).items()]
