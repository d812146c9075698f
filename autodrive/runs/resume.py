"""Configurations that come from an earlier run: to continue it in a new folder, or to evaluate its student."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from autodrive.config_identity import MACHINE_KEYS, NUMBERS_OF_PROCESSES, PLACES_OF_DATA, lossy_codec
from autodrive.entry_point import CommandLine
from autodrive.errors import InputError
from autodrive.runs.folder import RunFiles, group_choices, read_json, run_config
from autodrive.runs.foreign import TRAINING_ONLY
from autodrive.students.bases import is_adapter_folder

FULL_TUNING = "autodrive.students.tuning.FullTuning"
SERVED = "autodrive.inference.served.ServedModel"
GIVEN_ADAPTER = "autodrive.students.tuning.GivenAdapter"
TRAINED_BY = ("adapter", "rank", "freeze", "tower_lr")  # what says what is trained
# Groups without a node of their own in the configuration: they are compared by the option chosen.
SPREAD_GROUPS = ("experiment", "scale")
# What a student on this machine has and a served one has not, or has elsewhere.
OF_THIS_MACHINE = ("resolution", "tokens_per_clip", "tokens_per_row", "student_from", "resume", "strategy", "trainer")
# What a saved student settles, so that saying it again could only contradict it.
SETTLED_BY_CKPT = ("student", "student_from", "resume", "seed", *TRAINED_BY, *SPREAD_GROUPS)  # the seed: option order


def resumed_config(config: DictConfig, command_line: CommandLine) -> DictConfig:
    """The configuration to train with: the given one, or with `resume=<run>` that run's.

    Raises:
        InputError: The run cannot be resumed, or the command line asks for something else than the run did.
    """
    refuse_served(config)
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
        elif key not in NUMBERS_OF_PROCESSES and key.split(".")[0] not in MACHINE_KEYS | PLACES_OF_DATA:
            same_choice = key not in SPREAD_GROUPS or command_line.choices.get(key) == earlier_choices.get(key)
            if not same_choice or OmegaConf.select(config, key) != OmegaConf.select(resumed, key):
                raise InputError(f"resume={run}: {key} differs from that run's; leave it out, or start a new run")
            continue
        OmegaConf.update(resumed, key, OmegaConf.select(config, key), merge=False)
    resumed.resume = str(run)
    return resumed


def refuse_served(config: DictConfig) -> None:
    """Refuse a student that only a server has, where one is trained or planned.

    Raises:
        InputError: It is one.
    """
    if config.student._target_ == SERVED:
        raise InputError("student=endpoint: a served model is asked, not trained; use eval.py student=endpoint")


def _with_student_of(config: DictConfig, command_line: CommandLine) -> DictConfig:
    """With `student_from=<folder>`: the configuration with that student in the place of the default one.

    The folder is a run's, or holds an adapter in peft's layout for the configured student. Where an adapter comes with
    the student, that is what is trained.

    Raises:
        InputError: The folder has no student, or something else is asked for.
    """
    if config.student_from is None:
        if config.adapter._target_ == GIVEN_ADAPTER:
            raise InputError("adapter=given: needs the folder of an adapter; add student_from=<folder>")
        return config
    source, keys = Path(config.student_from), command_line.overridden_keys()
    brings = is_adapter_folder(source)
    if not brings:
        files = RunFiles(source)
        if not files.student.is_dir():
            raise InputError(
                f"student_from={source}: no checkpoints/student there; give the folder of a finished training"
            )
        student = run_config(source, typed=keys, unbuilt=[str(key) for key in config if key != "student"]).student
        given = [key for key in keys if key.split(".")[0] == "student"]
        if given and config.student != student:
            raise InputError(f"{given[0]}: differs from the student of student_from={source}; leave it out")
        OmegaConf.update(config, "student", student, merge=False)
        brings = bool(read_json(files.student_settings).get("adapter"))
    if not brings and config.adapter._target_ == GIVEN_ADAPTER:
        raise InputError(f"adapter=given: student_from={source} has no adapter; choose adapter=lora or dora, or full")
    if brings and config.adapter._target_ != GIVEN_ADAPTER:
        chosen = [key for key in keys if key.split(".")[0] in ("adapter", "rank")]
        if chosen or config.adapter._target_ != FULL_TUNING or config.rank is not None:
            key = chosen[0] if chosen else "adapter"
            message = f"{key}: student_from={source} brings an adapter of its own, which is what would be trained"
            raise InputError(f"{message}; leave {key} out")
        OmegaConf.update(config, "adapter", {"_target_": GIVEN_ADAPTER}, merge=False)
    return config


def evaluated_config(config: DictConfig, command_line: CommandLine) -> DictConfig:
    """The configuration to evaluate with: with `ckpt=<run>` that run's, changed only where the command line says so.

    Raises:
        InputError: `ckpt` is no run folder, or the command line also sets what comes with it; or with `ckpt=null`
            another run's student is asked for, in questions that it may not know, or what only training knows.
    """
    keys = command_line.overridden_keys()
    if config.student._target_ == SERVED and (OmegaConf.is_missing(config, "ckpt") or config.ckpt is None):
        return _served_config(config, keys)
    if config.ckpt is None:
        source = config.student_from
        if source is not None and not is_adapter_folder(Path(source)):
            message = f"student_from={source}: only train.py starts from it"
            raise InputError(f"{message}; evaluate its student with ckpt={source}")
        trained_by = [key for key in keys if key.split(".")[0] in TRAINED_BY]
        if trained_by:
            raise InputError(
                f"{trained_by[0]}: ckpt=null evaluates a student as it is; leave it out, or train it first"
            )
        return config
    # The run's labels are checked whether or not others are typed: they stay in use, as what the student was taught.
    typed = [key for key in keys if key.split(".")[0] != "labels"]
    merged = run_config(Path(config.ckpt), typed=typed, unbuilt=TRAINING_ONLY)
    taught = OmegaConf.to_container(merged.labels)
    settled = [key for key in keys if key.split(".")[0] in SETTLED_BY_CKPT]
    if settled:
        raise InputError(f"{settled[0]}: comes with ckpt={config.ckpt}; leave it out, or give ckpt=null")
    merged.logger = config.logger  # what the training was logged with may be the user's own code, and is not asked for
    for key in ("strategy", *NUMBERS_OF_PROCESSES):  # another machine's devices may be more than there are here
        OmegaConf.update(merged, key, OmegaConf.select(config, key), merge=False)
    for key in ("ckpt", *keys):
        OmegaConf.update(merged, key, OmegaConf.select(config, key), merge=False)
    if OmegaConf.to_container(merged.labels) != taught:  # the student knows the classes that it was taught
        OmegaConf.update(merged, "labels.shown", taught, force_add=True)
    for key in config:
        if key not in merged:
            merged[key] = config[key]
    return merged


def _served_config(config: DictConfig, keys: Sequence[str]) -> DictConfig:
    """The configuration with which a served model is asked: one process asks, and the server sees to the rest.

    Raises:
        InputError: The command line says how a student on this machine would work.
    """
    for key in keys:
        if key.split(".")[0] in (*OF_THIS_MACHINE, *TRAINED_BY):
            raise InputError(f"{key}: student=endpoint is a served model, for which it means nothing; leave it out")
    config.ckpt, config.resolution = None, "fixed"
    return config
