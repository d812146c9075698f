"""Runs a Hydra task the way every verb of this project is run: one line and exit code 2 for wrong input."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hydra
from antlr4.error.Errors import ParseCancellationException
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from autodrive.errors import InputError

CONFIG_FOLDER = Path(__file__).resolve().parents[1] / "conf"
WRONG_CONFIGURATION = (InputError, HydraException, OmegaConfBaseException, ParseCancellationException)
MULTIRUN_FLAGS = ("-m", "--multirun")


def run_with_hydra(task: Callable[[DictConfig], Any], config_name: str) -> None:
    """Compose the configuration from the command line, run the task, and exit with the project's codes.

    0: done. 2: the configuration or an input is wrong (one line on standard error). 1: a job of a sweep failed, or
    anything unforeseen (with its traceback). In a sweep a failing job does not stop the others: the task must turn its
    own exceptions into results there (see `train.py`).
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra raises instead of printing and exiting with 1
    # Hydra's parser would take overrides on both sides of a flag for unknown arguments.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in MULTIRUN_FLAGS)

    def guarded(config: DictConfig) -> Any:
        try:
            return task(config)
        except WRONG_CONFIGURATION as error:  # here, since Hydra would print a line of its own first
            exit_with_line(explain(error))

    guarded.__module__ = task.__module__
    guarded.__name__ = task.__name__
    run = hydra.main(version_base="1.3", config_path=str(CONFIG_FOLDER), config_name=config_name)(guarded)
    try:
        run()
    except WRONG_CONFIGURATION as error:
        exit_with_line(explain(error))


def explain(error: BaseException) -> str:
    """What is wrong and how to mend it, in one line, from an error of ours, of Hydra or of OmegaConf."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):  # raised while Hydra called a constructor
            return _line(str(cause))
        cause = cause.__cause__
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}= is missing; give it on the command line"
    text = _line(str(error))
    if isinstance(error, OverrideParseException | ParseCancellationException):
        return f"{text.partition(' See https')[0]}; {_quoting(sys.argv[1:])}"
    if text.startswith("Could not override"):
        known = "python train.py --cfg job prints every key"
        return f"{text.partition(' To append')[0]} There is no such key; check the spelling ({known})"
    if text.startswith("Error merging override"):
        return f"{text.removeprefix('Error merging override ')}: {_line(str(error.__cause__))}"
    return text.partition(" Config search path")[0].strip()


def _line(text: str) -> str:
    """Without line breaks, and without the coordinates that OmegaConf adds below its messages."""
    return " ".join(text.split()).partition(" full_key:")[0]


def _quoting(arguments: list[str]) -> str:
    """How to write the first argument that Hydra cannot parse, with both layers of quotes, the shell's and Hydra's."""
    parser = OverridesParser.create()
    for number, argument in enumerate(arguments):
        try:
            if not argument.startswith("-"):
                parser.parse_override(argument)
        except WRONG_CONFIGURATION:
            earlier = arguments[number - 1] if number else ""
            if "=" in argument:
                key, _, value = argument.partition("=")
            elif "=" in earlier:  # the shell split a value at its space
                key, _, value = f"{earlier} {argument}".partition("=")
            else:
                return f"write {argument}=<value>"
            return f"""quote a value with spaces, '=' or brackets twice: '{key}="{value}"'"""
    return """quote a value with spaces, '=' or brackets twice: 'key="value"'"""


def exit_with_line(message: str) -> NoReturn:
    """Say what is wrong on standard error and exit with 2."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
