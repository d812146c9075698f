"""Configurations that come from an earlier run: to continue it in a new folder, or to evaluate its student."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from autodrive.config import MACHINE_KEYS, PLACES_OF_DATA, lossy_codec
from autodrive.entry_point import CommandLine
from autodrive.errors import InputError
from autodrive.runs.folder import RunFiles, group_choices, run_config
from autodrive.runs.foreign import TRAINING_ONLY

# Groups without a node of their own in the configuration: they are compared by the option chosen.
SPREAD_GROUPS = ("experiment", "scale")
# What a saved student settles, so that saying it again could only contradict it.
SETTLED_BY_CKPT = ("student", "student_from", "resume", "seed", *SPREAD_GROUPS)  # the seed: its order of the options


def resumed_config(config: DictConfig, command_line: CommandLine) -> DictConfig:
    """The configuration to train with: the given one, or with `resume=<run>` that run's.

    Raises:
        InputError: The run cannot be resumed, or the command line asks for something else than the run did.
    """
    if config.resume is None:
        return _with_student_of(config, command_line)
    run, keys = Path(config.resume), command_line.overridden_keys()
    resumed = run_config(run, typed=keys)
    files = RunFiles(run)
    if not (files.last_checkpoint.is_file() or files.best_checkpoint.is_file()):
        raise InputError(f"resume={run}: no checkpoints/last.ckpt there; it was stopped before its first validation")
    earlier_choices = group_choices(run)
    for key in keys:
        if key.split(".")[0] == "frame_cache" and lossy_codec(config) == lossy_codec(resumed):
            key = "frame_cache"  # the same pixels, kept elsewhere or not at all
        elif key.split(".")[0] not in MACHINE_KEYS | PLACES_OF_DATA:
            same_choice = key not in SPREAD_GROUPS or command_line.choices.get(key) == earlier_choices.get(key)
            if not same_choice or OmegaConf.select(config, key) != OmegaConf.select(resumed, key):
                raise InputError(f"resume={run}: {key} differs from that run's; leave it out, or start a new run")
            continue
        OmegaConf.update(resumed, key, OmegaConf.select(config, key), merge=False)
    resumed.resume = str(run)
    return resumed


def _with_student_of(config: DictConfig, command_line: CommandLine) -> DictConfig:
    """With `student_from=<run>`: the configuration with that run's student in the place of the default one.

    Raises:
        InputError: The run has no student, or the command line asks for another one.
    """
    if config.student_from is None:
        return config
    run = Path(config.student_from)
    if not RunFiles(run).student.is_dir():
        raise InputError(f"student_from={run}: no checkpoints/student there; give the folder of a finished training")
    keys = command_line.overridden_keys()
    student = run_config(run, typed=keys, unbuilt=[str(key) for key in config if key != "student"]).student
    given = [key for key in keys if key.split(".")[0] == "student"]
    if given and config.student != student:
        raise InputError(f"{given[0]}: differs from the student of student_from={run}; leave it out")
    OmegaConf.update(config, "student", student, merge=False)
    return config


def evaluated_config(config: DictConfig, command_line: CommandLine) -> DictConfig:
    """The configuration to evaluate with: with `ckpt=<run>` that run's, changed only where the command line says so.

    Raises:
        InputError: `ckpt` is no run folder, or the command line also sets what comes with it; or with `ckpt=null`
            another run's student is asked for, in questions that it may not know.
    """
    if config.ckpt is None:
        if config.student_from is not None:
            run = config.student_from
            raise InputError(f"student_from={run}: only train.py starts from it; evaluate its student with ckpt={run}")
        return config
    keys = command_line.overridden_keys()
    # The run's labels are checked whether or not others are typed: they stay in use, as what the student was taught.
    typed = [key for key in keys if key.split(".")[0] != "labels"]
    merged = run_config(Path(config.ckpt), typed=typed, unbuilt=TRAINING_ONLY)
    taught = OmegaConf.to_container(merged.labels)
    settled = [key for key in keys if key.split(".")[0] in SETTLED_BY_CKPT]
    if settled:
        raise InputError(f"{settled[0]}: comes with ckpt={config.ckpt}; leave it out, or give ckpt=null")
    merged.logger = config.logger  # what the training was logged with may be the user's own code, and is not asked for
    for key in ("ckpt", *keys):
        OmegaConf.update(merged, key, OmegaConf.select(config, key), merge=False)
    if OmegaConf.to_container(merged.labels) != taught:  # the student knows the classes that it was taught
        OmegaConf.update(merged, "labels.shown", taught, force_add=True)
    for key in config:
        if key not in merged:
            merged[key] = config[key]
    return merged
