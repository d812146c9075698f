"""Every key of every verb, given what no run can work with, is refused in one line that names it, before any work."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from running import composed

from autodrive.assembly import check_training
from autodrive.config import (
    NODES,
    AnnotateConfig,
    BenchConfig,
    EvalConfig,
    ExportConfig,
    ParityConfig,
    PlanConfig,
    PowerConfig,
    PredictConfig,
    PrepareConfig,
    ReportConfig,
    TrainConfig,
    check_config,
)
from autodrive.config_check import HYDRA_KEYS, check_root, check_targets
from autodrive.entry_point import WRONG_CONFIGURATION, explain

WRONG: dict[str, Any] = {
    "text": "abc",
    "empty": "",
    "zero": 0,
    "negative": -1,
    "fraction": 0.5,
    "nan": math.nan,
    "infinite": math.inf,
    "huge": 10**30,
    "null": None,
    "yes": True,
    "list": [],
    "too_many": ["abc"] * 1000,
    "mapping": {"abc": 1},
}
OPTIONS = ["mixture=balanced", "mixture=unbalanced", "dataset=nexar", "dataset=video_folder", "decoder=torchcodec"]
OPTIONS += ["adapter=dora rank=4", "optimizer=adamw_8bit"]
OPTIONS += ["frame_cache=jpeg", "student=qwen2_5_vl_7b scale=paper", "questions=[rules,file] questions.file.path=a"]

TEACHER = ("teacher=openai_compatible", "base_url=http://a/v1", "model=m")


@dataclass
class Command:
    """A verb with its typed keys and what it cannot do without."""

    verb: str
    keys: type
    given: tuple[str, ...] = ()

    def config(self) -> DictConfig:
        return composed(self.verb, self.given)


COMMANDS = [
    Command("train", TrainConfig),
    Command("eval", EvalConfig, ("ckpt=null",)),
    Command("eval", EvalConfig, ("ckpt=null", "student=endpoint", "base_url=http://a/v1", "model=m")),
    Command("parity", ParityConfig, ("ckpt=run", "base_url=http://a/v1", "model=m")),
    Command("plan", PlanConfig),
    Command("power", PowerConfig),
    Command("predict", PredictConfig, ("video=a.mp4", "ckpt=run")),
    Command("export", ExportConfig, ("ckpt=run", "out=exported")),
    Command("prepare", PrepareConfig),
    Command("annotate", AnnotateConfig, ("clips=a", "out=b")),
    Command("annotate", AnnotateConfig, ("clips=a", "out=b", *TEACHER)),
    Command("report", ReportConfig),
    Command("bench", BenchConfig, ("name=tree",)),
    *(Command("train", TrainConfig, tuple(option.split())) for option in OPTIONS),
]
BUILT_FOR_TRAINING = (
    "adapter",
    "rank",
    "freeze",
    "tower_lr",
    "optimizer",
    "schedule",
    "trainer",
    "student",
    "resolution",
    "tokens_per_clip",
    "num_steps",
)


def fields_of(keys: type) -> set[str]:
    return {field.name for field in fields(keys)}


def leaves(node: Any, above: str = "") -> Iterator[str]:
    """Keys of all values; the entries of a list, or of a mapping of numbers, are one value."""
    if OmegaConf.is_dict(node) and len(node) and all(isinstance(key, str) for key in node):
        for key in node:
            if key not in HYDRA_KEYS:
                yield from leaves(None if OmegaConf.is_missing(node, key) else node._get_node(key), f"{above}.{key}")
    else:
        yield above[1:]


def stands_alone(config: DictConfig, key: str) -> bool:
    """Whether a key is in a group to which nothing outside of it refers."""
    group, dot, _ = key.partition(".")
    others = {name: node for name, node in OmegaConf.to_container(config, resolve=False).items() if name != group}  # type: ignore[union-attr]
    return bool(dot) and f"${{{group}" not in repr(others)


def try_out(command: Command, config: DictConfig, key: str, *, alone: bool) -> None:
    """Check a configuration as the verb does, and build what this key belongs to; `alone`: see `stands_alone`."""
    group = key.split(".")[0]
    if alone:  # the rest, which takes most of the time, is as it was
        check_root(config, command.keys, NODES)
        check_targets(config, group)
    else:
        check_config(config, command.keys)
    if command.verb == "train" and group in BUILT_FOR_TRAINING and "scale" not in key:
        check_training(config)
    elif group in (
        "teacher",
        "executor",
        "labels",
        "prompts",
        "mixture",
        "annotations",
        "questions",
        "decoder",
        "frame_cache",
        "dataset",
    ):
        instantiate(config[group])


def outcomes(command: Command) -> Iterator[tuple[str, str | None]]:
    """Every key with every wrong value, and the line with which it is refused; None where it is accepted."""
    config = command.config()
    option = command.given[0].split("=")[0] if command.verb == "train" and command.given else None
    for key in list(leaves(config)):
        shared = command.verb in ("eval", "plan") and key.split(".")[0] in fields_of(TrainConfig)
        shared &= not (key.startswith("student.") and "student=endpoint" in command.given)
        if shared or (option and key.split(".")[0] != option):
            continue  # tried with training, or without the option
        above, _, name = key.rpartition(".")
        node = (OmegaConf.select(config, above) if above else config)._get_node(name)
        before = node if OmegaConf.is_config(node) else node._value()  # pyright: ignore[reportOptionalMemberAccess]
        alone = stands_alone(config, key)
        for kind, value in WRONG.items():
            try:
                OmegaConf.update(config, key, value, merge=False)
                try_out(command, config, key, alone=alone and kind != "mapping")
                yield f"{key}={kind}", None
            except WRONG_CONFIGURATION as error:
                yield f"{key}={kind}", explain(error, command.verb)
            finally:
                OmegaConf.update(config, key, before, merge=False)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join((command.verb, *command.given)))
def test_wrong_values_are_refused_by_name(command: Command):
    """Whatever else a wrong value raises ends this test as it would end the command: with a traceback."""
    found = dict(outcomes(command))
    names = {case: case.rpartition("=")[0].rpartition(".")[2] for case in found}
    wrong = {case: line for case, line in found.items() if line and ("\n" in line or names[case] not in line)}
    assert not wrong
    assert sum(line is not None for line in found.values()) > len(found) / 3  # free text takes most of them
