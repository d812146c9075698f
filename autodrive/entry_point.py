"""Runs a Hydra task the way every verb of this project is run: one line and exit code 2 for wrong input."""

import argparse
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import hydra
from antlr4.error.Errors import ParseCancellationException
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from autodrive.config import register
from autodrive.errors import InputError, Interrupted, LostRankError, is_about_storage
from autodrive.workers import end_workers

CONFIG_FOLDER = Path(__file__).resolve().parents[1] / "conf"
WRONG_CONFIGURATION = (InputError, HydraException, OmegaConfBaseException, ParseCancellationException)
MULTIRUN_FLAGS = ("-m", "--multirun")
NO_NAME = re.compile(r"null|true|false|[-+\d.e]+", re.IGNORECASE)  # what Hydra reads as something else than a text
SCRIPTS = ("train", "eval")  # verbs at the top of the repository; the others are modules of the package


@dataclass(frozen=True)
class CommandLine:
    """What the user typed, beside the configuration that Hydra composed from it.

    Attributes:
        overrides: The overrides as they were typed, those of Hydra's own keys left out.
        choices: The option taken of each configuration group.
    """

    overrides: Sequence[str]
    choices: Mapping[str, str | None]

    def overridden_keys(self) -> list[str]:
        """Keys and groups that were set, in order, with dots as separators."""
        parsed = OverridesParser.create().parse_overrides(list(self.overrides))
        return [(override.package or override.key_or_group).replace("/", ".") for override in parsed]


Completion = Callable[[DictConfig, CommandLine], DictConfig]


def as_composed(config: DictConfig, command_line: CommandLine) -> DictConfig:
    """The completion of a verb whose configuration is what the command line composes."""
    return config


def run_with_hydra(task: Callable[[DictConfig], Any], verb: str, complete: Completion = as_composed) -> None:
    """Compose the configuration from the command line, run the task, and exit with the project's codes.

    0: done. 2: the configuration or an input is wrong, or the disk is full (one line on standard error). 130: stopped
    by Ctrl-C (two lines, the second with the command that goes on). 1: a job of a sweep failed, a process of the run
    was killed (one line), or anything unforeseen (with its traceback). In a sweep a failing job does not stop the
    others: the task must turn its own exceptions into results there (see `autodrive/runs/job.py`).

    Args:
        task: Does the verb's work.
        verb: Name of the verb and of its file in `conf/`.
        complete: Adds what the configuration takes from elsewhere, such as the run that `ckpt=` names. `--cfg job`
            prints the completed configuration, which is the one that would run.
    """
    register()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra raises instead of printing and exiting with 1
    # Hydra's parser would take overrides on both sides of a flag for unknown arguments.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in MULTIRUN_FLAGS)

    def job(config: DictConfig) -> Any:
        settings = HydraConfig.get()
        with _told_to_the_user(verb):  # here, since Hydra would print a line of its own first
            return task(complete(config, CommandLine(settings.overrides.task, settings.runtime.choices)))

    job.__module__ = task.__module__
    job.__name__ = task.__name__
    run = hydra.main(version_base="1.3", config_path=str(CONFIG_FOLDER), config_name=verb)(job)
    with _told_to_the_user(verb):
        _check_groups(sys.argv[1:])
        if not _print_job(verb, complete):
            run()


@contextmanager
def _told_to_the_user(verb: str) -> Iterator[None]:
    """End with the line of a wrong input, or with the two lines of a stop by Ctrl-C."""
    try:
        yield
    except WRONG_CONFIGURATION as error:
        exit_with_line(explain(error, verb))
    except OSError as error:
        if not is_about_storage(error):
            raise
        exit_with_line(explain(error, verb))
    except LostRankError as lost:
        again = sys.argv[1:] if lost.arguments is None else lost.arguments
        print(f"error: {lost}; go on with: {shell_line(verb, again)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
        end_workers()
        print(f"\nstopped by Ctrl-C\n{_how_to_go_on(stop, verb)}", file=sys.stderr)
        sys.exit(130)


def _how_to_go_on(stop: KeyboardInterrupt, verb: str) -> str:
    settings = HydraConfig.get() if HydraConfig.initialized() else None
    if settings is not None and settings.mode == RunMode.MULTIRUN:
        place = quoted("hydra.sweep.dir", settings.sweep.dir)
        arguments = [argument for argument in sys.argv[1:] if not argument.startswith("hydra.sweep.dir=")]
        return f"do the jobs that are missing with: {shell_line(verb, [*arguments, place])}"
    if isinstance(stop, Interrupted):
        return f"continue with: {shell_line(verb, stop.arguments)}"
    return f"start again with: {shell_line(verb, sys.argv[1:])}"


def shell_line(verb: str, arguments: Sequence[str]) -> str:
    """How a verb is started, as a line for the shell."""
    command = ["python", f"{verb}.py"] if verb in SCRIPTS else ["python", "-m", f"autodrive.{verb}"]
    return shlex.join([*command, *arguments])


def _check_groups(arguments: Sequence[str]) -> None:
    """Refuse what cannot be the name of a file where a group takes one: Hydra ends there with a traceback."""
    for argument in arguments:
        group, _, options = argument.lstrip("+").partition("=")
        if not (group and (CONFIG_FOLDER / group).is_dir()):
            continue
        if any(NO_NAME.fullmatch(option) for option in options.strip("[]").split(",")):
            known = ", ".join(sorted(path.stem for path in (CONFIG_FOLDER / group).glob("*.yaml")))
            raise InputError(
                f"{argument}: takes the name of a file in conf/{group} ({known}); give one, or leave it out"
            )


def _print_job(verb: str, complete: Completion) -> bool:
    """With `--cfg job`, print what would run; false without it. Hydra alone would print what is not completed yet."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--cfg", "-c")
    flags.add_argument("--package", "-p")
    flags.add_argument("--resolve", action="store_true")
    flags.add_argument("overrides", nargs="*")
    asked, others = flags.parse_known_intermixed_args(sys.argv[1:])
    if asked.cfg == "job" and set(others) & set(MULTIRUN_FLAGS):
        raise InputError(f"{others[0]}: --cfg job shows one job; leave the flag out and give one value for each key")
    if asked.cfg != "job" or others:  # also what Hydra refuses, and its rarer flags
        return False
    with hydra.initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        config = hydra.compose(verb, asked.overrides, return_hydra_config=True)
    with open_dict(config):
        settings = config.pop("hydra")
    try:
        completed = complete(config, CommandLine(settings.overrides.task, settings.runtime.choices))
    except MissingMandatoryValue:  # what is missing shows as ???
        completed = config
    if asked.resolve:
        OmegaConf.resolve(completed)
    shown = completed
    if asked.package not in (None, "_global_"):
        shown = OmegaConf.select(completed, asked.package)
        if shown is None:
            raise InputError(f"--package {asked.package}: there is no such key; leave it out to see them all")
        print(f"# @package {asked.package}")
    print(OmegaConf.to_yaml(shown).rstrip() if OmegaConf.is_config(shown) else shown)
    return True


def explain(error: BaseException, verb: str) -> str:
    """What is wrong with a verb's input and how to fix it, in one line: an error of ours, of Hydra or of OmegaConf."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):  # raised while Hydra called a constructor
            return _line(str(cause))
        cause = cause.__cause__
    if is_about_storage(error):
        assert isinstance(error, OSError)
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{os.strerror(error.errno or 0)}; make room or give permission, and run the same command again"
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}= is missing; give it on the command line"
    if isinstance(error, OverrideParseException | ParseCancellationException):
        return _quoting(sys.argv[1:])
    text = _line(str(error))
    if text.startswith("Could not override"):
        hint = f"check the spelling ({shell_line(verb, ['--cfg', 'job'])} prints every key)"
        key = re.search(r"Could not override '([^']+\.([^'.]+))'", text)
        if key is None:
            return f"{text.partition(' To append')[0]} There is no such key; {hint}"
        return f"{key[1]}: there is no key {key[2]!r}; {hint}, or write +{key[1]}=<value> to add it"
    if text.startswith("Error merging override"):
        return f"{text.removeprefix('Error merging override ')}: {_line(str(error.__cause__))}"
    text = text.partition(" Config search path")[0].strip()
    key = error.full_key if isinstance(error, OmegaConfBaseException) else None
    return text if not key or key in text else f"{key}: {text}"


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
                return f"{argument}: has no value; write {argument}=<value>"
            why = "a value with spaces, quotes, '=', brackets or letters beyond ASCII is quoted twice"
            return f"{argument}: {why}: {shlex.quote(quoted(key, value))}"
    return """an argument cannot be parsed; quote its value twice: 'key="value"'"""


def quoted(key: str, value: str) -> str:
    """`key=value` as Hydra reads it back, in its quotes unless the value is a plain path or word."""
    if re.fullmatch(r"[\w./:+-]+", value, re.ASCII):
        return f"{key}={value}"
    escaped = re.sub(r'(\\*)("|$)', r"\1\1\2", value).replace('"', r"\"")  # a backslash counts only before a quote
    return f'{key}="{escaped}"'


def exit_with_line(message: str) -> NoReturn:
    """Say what is wrong on standard error and exit with 2."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
