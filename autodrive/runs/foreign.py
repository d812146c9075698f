"""A configuration that comes from a run folder is data: what it may name, and what it may ask for.

Run folders are passed around. A `_target_` can name anything that can be called, a resolver can read the environment.
So a folder's configuration names only what the files below `conf/` name, and refers only to its own keys. What the user
types on the command line is the user's and may be anything.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from autodrive.entry_point import CONFIG_FOLDER
from autodrive.errors import InputError

OPTIMIZERS = re.compile(r"torch\.optim\.[A-Z]\w*")  # classes of a module that has no others
TARGET_LINE = re.compile(r"_target_:\s*([\w.]+)")
TYPE_IT = "if it is yours, give {key}=<value> on the command line"
OWN_KEY = re.compile(r"\$\{[\w.]+\}")  # `${lr}`; a colon would call a resolver, as in `${oc.env:HOME}`
# What only training builds: it may be the user's own code there, and an evaluation does not need it.
TRAINING_ONLY = ("student", "adapter", "method", "optimizer", "schedule", "trainer", "strategy", "logger")


@cache
def known_targets() -> frozenset[str]:
    """Every class and function that a file below `conf/` names."""
    texts = (path.read_text(encoding="utf-8") for path in CONFIG_FOLDER.rglob("*.yaml"))
    return frozenset(target for text in texts for target in TARGET_LINE.findall(text))


def check_foreign(config: DictConfig, path: Path, typed: Collection[str] = (), fix: str = TYPE_IT) -> None:
    """Refuse a run folder's configuration that names code, or reads what lies outside of it.

    Args:
        config: The configuration, as it was read.
        path: The file that it was read from, for the error.
        typed: Keys that the user gives on the command line, whose values are the user's own.
        fix: What the user can do, with the key in the place of `{key}`.

    Raises:
        InputError: It does; the line names the key.
    """
    for key, value in _leaves(OmegaConf.to_container(config, resolve=False)):
        if any(f"{key}.".startswith(f"{own}.") for own in typed):
            continue
        if "_target_" in key.split("."):
            if not _is_known(value):
                raise InputError(f"{path}: {key}: {value} is not named by any file below conf/; {fix.format(key=key)}")
        elif _calls_resolver(value):
            raise InputError(f"{path}: {key}: {value} reads more than this configuration; {fix.format(key=key)}")


def unbuilt_as_data(config: DictConfig, unbuilt: Collection[str]) -> DictConfig:
    """A copy in which nodes from which nothing is built name no class or function but those that `conf/` names.

    They may be the user's own code, which is no reason to refuse the folder. The name goes, since a reference such as
    `${trainer}` in another node would build it all the same, and a look at its signature would import it.

    Args:
        config: The configuration, as it was read.
        unbuilt: Keys of those nodes at the root.
    """
    plain: Any = OmegaConf.to_container(config, resolve=False)
    return OmegaConf.create({key: _as_data(node) if key in unbuilt else node for key, node in plain.items()})


def without_resolvers(config: DictConfig) -> DictConfig:
    """A copy in which values that read more than the configuration itself, such as `${oc.env:HOME}`, are missing."""
    plain = OmegaConf.create(config)
    for key, value in _leaves(OmegaConf.to_container(config, resolve=False)):
        if _calls_resolver(value):
            OmegaConf.update(plain, key, "???")
    return plain


def _is_known(target: Any) -> bool:
    return isinstance(target, str) and (target in known_targets() or OPTIMIZERS.fullmatch(target) is not None)


def _as_data(node: Any) -> Any:
    if isinstance(node, list):
        return [_as_data(value) for value in node]
    if isinstance(node, Mapping):
        return {key: _as_data(value) for key, value in node.items() if key != "_target_" or _is_known(value)}
    return node


def _calls_resolver(value: Any) -> bool:
    return isinstance(value, str) and "${" in OWN_KEY.sub("", value)


def _leaves(node: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no list and no mapping, with its full key."""
    if isinstance(node, Mapping | list):
        for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
            yield from _leaves(value, f"{above}.{key}" if above else str(key))
    else:
        yield above, node
