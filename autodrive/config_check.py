"""Checks a configuration before any work: every value against what takes it.

Keys at the root are declared in `config.py`. A node with a `_target_` is checked against the signature of that class or
function: names, types, and the bounds of `bounds.py` that its annotations carry. Nothing is built for it.
"""

import inspect
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from types import NoneType
from typing import Annotated, Any, get_type_hints

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue
from pydantic import AfterValidator, ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from autodrive.errors import InputError

HYDRA_KEYS = frozenset({"_target_", "_partial_", "_convert_", "_recursive_"})
REFERENCE = re.compile(r"\$\{([\w.]+)\}")
LONGEST_SHOWN = 60


def check_root(config: DictConfig, keys: type, nodes: Mapping[str, Any] | None = None) -> None:
    """Refuse keys that do not exist and values that no work can be done with, in milliseconds: nothing is imported.

    Args:
        config: The composed configuration of a verb.
        keys: Dataclass that declares the verb's keys.
        nodes: Types of nodes without a `_target_`, by key.

    Raises:
        InputError: A key is unknown (`+key=` passes Hydra), or a value is of a wrong type or out of its range.
        MissingMandatoryValue: A key without a default was not given.
    """
    hints = {key: (nodes or {}).get(key, hint) for key, hint in _hints(keys).items() if key != "return"}
    for key in config:
        if key not in hints:
            raise InputError(f"+{key}: there is no such key; check the spelling, or leave it out")
    for key, hint in hints.items():
        if key in config:
            check_value(config, str(key), hint)


def check_targets(config: DictConfig, path: str = "") -> None:
    """Check every node that names a class or function, at any depth, against its signature.

    Args:
        config: The root of the configuration.
        path: Key of the node to begin with, with dots; empty for all.

    Raises:
        InputError: A `_target_` cannot be imported, has no such parameter, or does not take the value.
    """
    node = OmegaConf.select(config, path) if path else config
    if not OmegaConf.is_dict(node):
        return
    children = [str(key) for key in node if key not in HYDRA_KEYS]
    hints: Mapping[str, Any] | None = None
    if "_target_" in node:
        target = _target(path, str(node["_target_"]))
        hints = _hints(target)
        parameters = inspect.signature(target).parameters
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            for key in children:
                if key not in parameters:
                    known = ", ".join(parameters)
                    raise InputError(f"{path}.{key}: there is no such key; {path} takes {known}")
    for key in children:
        below = f"{path}.{key}" if path else key
        try:
            value = node[key]
        except (MissingMandatoryValue, InterpolationToMissingValueError):
            continue  # not given yet, itself or where it refers to; whoever needs it says so
        if _holds_target(value):
            check_targets(config, below)
        elif hints is not None and key in hints:
            check_value(config, below, hints[key])


def check_value(config: DictConfig, path: str, hint: Any) -> None:
    """Refuse a value that its type, or the bounds of its type, do not allow.

    Args:
        config: The root of the configuration.
        path: Key of the value, with dots.
        hint: What it must be.

    Raises:
        InputError: As said; the key is named, and where it is a reference such as `${lr}`, the key that it refers to.
    """
    adapter = _adapter(hint)
    if adapter is None:
        return
    above, _, name = path.rpartition(".")
    parent = OmegaConf.select(config, above) if above else config
    value = parent[name]
    plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    try:
        # As JSON, a list may stand for a tuple, and in strict mode nothing is guessed: "3" is no number, 1 is not true.
        adapter.validate_json(json.dumps(plain, default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        node = parent._get_node(name)
        reference = REFERENCE.fullmatch(str(node._value())) if node is not None and node._is_interpolation() else None
        inside, part = "", plain
        for step in first["loc"]:  # pydantic names the branches of a union here as well, which are no keys
            if isinstance(part, dict) and step in part:
                inside, part = f"{inside}.{step}", part[step]
        text = first["msg"].removeprefix("Value error, ").replace("Input should", "must", 1)
        shown = str(first["input"] if inside else plain)
        shown = shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}…"
        raise InputError(f"{reference[1] if reference else path + inside}={shown}: {text}") from None


def key_to_blame(node: DictConfig, build: Callable[[DictConfig], Any]) -> str | None:
    """The key without which a node can be built: where a library refuses a value without saying which.

    Args:
        node: What cannot be built as it is.
        build: Builds it; raises if it cannot.

    Returns:
        The first such key; None if leaving one out is not enough.
    """
    for key in node:
        if key not in HYDRA_KEYS:
            without = OmegaConf.masked_copy(node, [str(other) for other in node if other != key])
            without._set_parent(node._get_parent())  # for references such as ${lr}
            try:
                build(without)
            except Exception:  # noqa: S112 - whatever the library raises, this key is not the only one
                continue
            return str(key)
    return None


def _holds_target(node: Any) -> bool:
    if OmegaConf.is_dict(node):
        # What is referred to is checked where it stands.
        return "_target_" in node or any(_holds_target(value) for _, value in node.items_ex(resolve=False))
    return False


def _target(path: str, name: str) -> Any:
    try:
        return get_object(name)
    except Exception as error:  # whatever importing a module of somebody else raises
        text = " ".join(str(error).split())[:200]
        raise InputError(f"{path}._target_={name}: cannot be imported ({text})") from None


@cache
def _hints(target: Any) -> dict[str, Any]:
    """Annotations of a class's or function's parameters; none where they name what cannot be found."""
    function = target.__init__ if inspect.isclass(target) and "__init__" in vars(target) else target
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        return {}


def _refuse_plain(value: Any) -> Any:
    """Takes the place of a protocol, which nothing that is written as a plain value follows."""
    raise ValueError("must be a node with a _target_; see the files in conf")


@cache
def _adapter(hint: Any) -> TypeAdapter | None:
    """A validator of a type; None for types that no plain value can be of, such as functions."""
    config = ConfigDict(allow_inf_nan=False, extra="forbid", arbitrary_types_allowed=True)
    if hint is Any or hint is NoneType:
        return None
    if getattr(hint, "_is_protocol", False):
        return TypeAdapter(Annotated[Any, AfterValidator(_refuse_plain)])
    try:
        return TypeAdapter(hint, config=config)
    except PydanticSchemaGenerationError:
        return None
    except PydanticUserError:  # a record brings its own configuration
        return TypeAdapter(hint)
