"""Says what a training would take before anything is downloaded: parameters, tokens, memory, arithmetic.

python -m autodrive.plan student=qwen2_5_vl_7b adapter=dora rank=32 fps=30 duration_s=6 resolution=128x32
python -m autodrive.plan student=qwen2_5_vl_7b strategy=fsdp trainer.devices=8 gpu_memory_gib=80 out=plan.json
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console

from autodrive.config import PlanConfig, check_config
from autodrive.entry_point import CommandLine, run_with_hydra
from autodrive.errors import InputError
from autodrive.runs.resume import refuse_served

if TYPE_CHECKING:
    from autodrive.planning.estimate import Plan

OF_ANOTHER_RUN = ("resume", "student_from")
# What is tried where a plan does not fit, in this order; then more devices.
CHANGES = (
    ("method.gradient_checkpointing=true",),
    ("freeze.vision=true", "freeze.projector=true"),
    ("optimizer=adamw_8bit",),
    ("method.gradient_checkpointing=true", "adapter=dora", "rank=16"),
    ("method.gradient_checkpointing=true", "adapter=qdora", "rank=16"),
)
NUMBERS_OF_DEVICES = (2, 4, 8, 16, 32, 64)


def at_its_scale(config: DictConfig, command_line: CommandLine) -> DictConfig:
    """The configuration with a laptop's values for a student from scratch, unless the command line chose a scale.

    Raises:
        InputError: What belongs to another run is asked for.
    """
    refuse_served(config)
    for key in OF_ANOTHER_RUN:
        if config[key] is not None:
            raise InputError(f"{key}={config[key]}: a plan reads no run; leave it out, and give that run's values")
    chosen = set(command_line.overridden_keys())
    scale = config.scale if "scale" in chosen or get_object(config.student._target_).full_size else "tiny"
    if scale != "tiny":
        return config
    tiny = [f"{group}=tiny" for group in ("scale", "workload") if group not in chosen]
    return hydra.compose("plan", [*command_line.overrides, *tiny])


def build_plan(config: DictConfig) -> "Plan":
    """The plan of a configuration whose values are right, each alone.

    Raises:
        InputError: Settings contradict each other, or `trainer.devices` is no number.
    """
    # Imported here: they take seconds, and a wrong value is refused before them.
    from autodrive.assembly import frozen_towers, resolution_of, sharing_of, student_spec, training_choice
    from autodrive.planning.estimate import Devices, Recipe, make_plan
    from autodrive.planning.workload import assumed
    from autodrive.runs.processes import ranks_wanted
    from autodrive.students.student import Student
    from autodrive.students.towers import TOWERS
    from autodrive.students.tuning import LowRankAdapter, make_trainable
    from autodrive.video.frame_grid import chosen_frames

    devices = config.trainer.devices
    if not isinstance(devices, ListConfig | int) or devices == -1:
        raise InputError(f"trainer.devices={devices}: a plan is for devices that are elsewhere; give their number")
    spec = student_spec(config)
    tuning = training_choice(config, spec)
    resolution = resolution_of(config, spec)
    sketch = spec.sketch(resolution)
    packed = []
    if isinstance(tuning, LowRankAdapter) and tuning.quantised:
        reached = [sketch.towers.linear_layers(tower) for tower in TOWERS if tuning.reaches(tower)]
        packed = [layer.weight for layers in reached for layer in layers.values()]

    def prepare(student: Student, scale: float) -> None:
        chosen = tuning
        if isinstance(chosen, LowRankAdapter) and chosen.rank is not None:
            chosen = replace(chosen, rank=max(1, round(chosen.rank * scale)))
        make_trainable(student.towers, chosen, frozen_towers(config), config.seed)

    recipe = Recipe(
        frames=chosen_frames(config.fps, config.num_frames),
        duration_s=config.duration_s,
        max_tokens_per_group=None if spec.fixed_resolution else resolution.max_tokens,
        batch_size=config.batch_size,
        tokens_per_row=config.tokens_per_row,
        num_steps=config.num_steps,
        recompute=config.method.gradient_checkpointing,
        autocast=config.trainer.precision == "bf16-mixed",
        optimizer=instantiate(config.optimizer),
    )
    room = Devices(ranks_wanted(config).total, config.gpu_memory_gib, sharing_of(config).kind)
    workload = assumed(instantiate(config.workload), instantiate(config.mixture), config.annotations)
    return make_plan(sketch, prepare, recipe, workload, room, packed)


def changed_plans(config: DictConfig, plan: "Plan") -> Iterator[tuple[str, "Plan"]]:
    """Plans of what could be changed so that it fits: up to the first with an adapter, and with the fewest devices.

    Args:
        config: What does not fit.
        plan: Its plan.

    Yields:
        The changes as overrides of the command line, and their plan, which fits.
    """
    from autodrive.assembly import student_spec, training_choice

    for changes in CHANGES:
        changed, made = config.copy(), []
        for change in changes:
            key, _, value = change.partition("=")
            is_group = OmegaConf.is_dict(config.get(key))
            new = hydra.compose("plan", [change])[key] if is_group else yaml.safe_load(value)
            if OmegaConf.select(config, key) != new:
                OmegaConf.update(changed, key, new, merge=False)
                made.append(change)
        if not made:
            continue
        try:
            other = build_plan(changed)
        except InputError:  # these do not go with the rest
            continue
        if other.fits:
            yield " ".join(made), other
            if "rank=16" in changes:
                break
    strategy = plan.devices.strategy if plan.devices.share_weights else "fsdp"
    for number in NUMBERS_OF_DEVICES:
        other = replace(plan, devices=replace(plan.devices, number=number, strategy=strategy))
        if number > plan.devices.number and other.fits:
            changed = config.copy()
            changed.strategy = hydra.compose("plan", [f"strategy={strategy}"]).strategy
            with suppress(InputError):  # it may not go with the rest
                training_choice(changed, student_spec(changed))
                yield f"strategy={strategy} trainer.devices={number}", other
            return


def job(config: DictConfig) -> dict[str, Any]:
    """Make a plan, show it, and write it to `out`.

    Raises:
        InputError: The configuration is wrong, or what it describes does not fit.
    """
    check_config(config, PlanConfig)
    from autodrive.assembly import check_training
    from autodrive.planning.showing import show_changes, show_plan
    from autodrive.runs.machine import quiet_libraries

    quiet_libraries()
    here = config.copy()
    here.trainer.devices, here.trainer.num_nodes, here.trainer.accelerator = 1, 1, "auto"
    here.strategy = {"_target_": "autodrive.training.strategies.OneProcess"}  # DeepSpeed need not be installed here
    check_training(here)
    plan = build_plan(config)
    adapter = HydraConfig.get().runtime.choices["adapter"]
    name = f"student={config.student.name} adapter={adapter}" + ("" if config.rank is None else f" rank={config.rank}")
    console = Console()
    source = _source(config.student.get("checkpoint"))
    show_plan(plan, f"{name} scale={config.scale}", source, console)
    changes: dict[str, Plan] = {}
    if not plan.fits:
        for change, other in changed_plans(config, plan):
            changes[change] = other
        show_changes(changes, console)
    record = {"student": config.student.name, "source": source, "adapter": adapter, "rank": config.rank}
    record |= plan.record()
    record["would_fit"] = {change: other.needed_gib for change, other in changes.items()}
    record["config"] = OmegaConf.to_container(config, resolve=True)
    if config.out is not None:
        out = Path(config.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if not plan.fits:
        needed = f"{plan.needed_gib:.1f} GiB on a device, {plan.settled_bytes / 2**30:.1f} of them"
        fix = f"give {next(iter(changes))}" if changes else "give a smaller student, fps, duration_s or resolution"
        raise InputError(f"gpu_memory_gib={config.gpu_memory_gib:g}: {name} needs {needed} before activations; {fix}")
    return record


def _source(checkpoint: str | None) -> str:
    """Where the sizes of a student come from."""
    from autodrive.released.configurations import released_configurations

    if checkpoint is None:
        return "of the recipe, with as large a vocabulary as it allows: upper bounds"
    known = released_configurations().get(checkpoint)
    return f"config.json of {checkpoint}" if known is None else known.source


def main() -> None:
    """Read the command line and plan."""
    run_with_hydra(job, "plan", at_its_scale)


if __name__ == "__main__":
    main()
