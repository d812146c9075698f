"""In how many processes a run is made, and that it is: here, by starting them, or as one of those of a launcher."""

import importlib.util
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple, cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from autodrive.config import register
from autodrive.entry_point import quoted
from autodrive.errors import InputError, Interrupted, LostRankError
from autodrive.ranks.launching import Place, joined, run_ranks
from autodrive.runs.folder import RunFiles

Metrics = dict[str, float]
Task = Callable[[DictConfig, Path], Metrics]

ONE_PROCESS = "OneProcess"  # class of the strategy that is for one
ENVIRONMENT = "env://"
SUBMITIT = "submitit"  # in the name of the launchers whose jobs are begun as several processes themselves
LOWEST_PORT = 15_000  # of ten thousand, of which a job takes one by its number, as Lightning does in Slurm


class Ranks(NamedTuple):
    """How many processes a run has.

    Attributes:
        local: On each machine, one a device.
        nodes: Machines.
    """

    local: int
    nodes: int

    @property
    def total(self) -> int:
        """On all machines."""
        return self.local * self.nodes


def ranks_wanted(config: DictConfig) -> Ranks:
    """How many processes a configuration asks for.

    Raises:
        InputError: The strategy does not suit the number of devices.
    """
    trainer, name = config.trainer, config.strategy._target_.rpartition(".")[2]
    if "strategy" in trainer:
        raise InputError(f"trainer.strategy={trainer.strategy}: give strategy=ddp, fsdp or another one in its place")
    ranks = Ranks(_num_devices(trainer), trainer.num_nodes)
    shown = f"trainer.devices={trainer.devices}"
    if name == ONE_PROCESS and (ranks.total != 1 or str(trainer.devices) in ("auto", "-1")):
        wrong = shown if ranks.nodes == 1 else f"trainer.num_nodes={ranks.nodes}"
        raise InputError(f"{wrong}: strategy=single is for one device; give strategy=ddp or fsdp, or trainer.devices=1")
    if name != ONE_PROCESS and ranks.total == 1:
        raise InputError(f"{shown}: this strategy shares steps among several; give their number, or strategy=single")
    return ranks


def _num_devices(trainer: DictConfig) -> int:
    if isinstance(trainer.devices, ListConfig):
        return len(trainer.devices)
    if str(trainer.devices) in ("auto", "-1"):
        import torch

        return max(1, torch.cuda.device_count() if trainer.accelerator != "cpu" else 1)
    return int(trainer.devices)


def place_from_launcher() -> Place | None:
    """Which rank this process is, if a launcher has started it as one of several.

    `torchrun` and Kubernetes' training operators say so by RANK and WORLD_SIZE, `srun` by its own variables. MPI's
    alone are not enough: they name no place to meet.

    Raises:
        InputError: A launcher has started several processes and does not say where they meet.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            message = f"WORLD_SIZE={os.environ['WORLD_SIZE']}: a launcher has started several processes"
            raise InputError(f"{message} without {missing[0]}; start them with torchrun or srun")
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        return Place(rank, size, int(os.environ.get("LOCAL_RANK", "0")))
    # Of a step that `srun` has started; the number of tasks of the whole job is known to its script and shells, too.
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

        try:
            slurm = SLURMEnvironment(auto_requeue=False)
        except RuntimeError as error:
            raise InputError(f"srun: {' '.join(str(error).split())}") from None
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = slurm.main_address, str(slurm.main_port)
        return Place(slurm.global_rank(), slurm.world_size(), slurm.local_rank())
    if int(os.environ.get("SUBMITIT_LOCAL_NTASKS", "1")) > 1:  # submitit's stand-in for Slurm on one machine
        os.environ["MASTER_ADDR"] = "localhost"
        os.environ["MASTER_PORT"] = str(LOWEST_PORT + int(os.environ["SUBMITIT_LOCAL_JOB_ID"]) % 10_000)
        rank, local_rank = (int(os.environ[f"SUBMITIT_LOCAL_{name}"]) for name in ("GLOBALID", "LOCALID"))
        return Place(rank, int(os.environ["SUBMITIT_LOCAL_NTASKS"]), local_rank)
    if int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        size = os.environ["OMPI_COMM_WORLD_SIZE"]
        raise InputError(f"OMPI_COMM_WORLD_SIZE={size}: mpirun does not say where processes meet; use torchrun or srun")
    return None


def in_processes(task: Task, config: DictConfig, run_dir: Path) -> Metrics:
    """Do a task in as many processes as its configuration asks for; one is this one.

    Args:
        task: What is done; every process calls it alike.
        config: The configuration of the run.
        run_dir: Where rank 0 writes.

    Returns:
        What the task returns in rank 0.

    Raises:
        InputError: As the task does in any process; or there are fewer GPUs than asked for, a launcher has started
            another number of processes, or a package is missing.
        LostRankError: A process was ended from outside.
        Interrupted: The user stopped a training that `resume=` can continue.
    """
    ranks, place = ranks_wanted(config), place_from_launcher()
    if config.strategy._target_.endswith(".ZeroRedundancy") and importlib.util.find_spec("deepspeed") is None:
        install = 'DS_BUILD_OPS=0 pip install -e ".[deepspeed]"'
        raise InputError(f"strategy=deepspeed_zero{config.strategy.stage}: {install} first, or give strategy=fsdp")
    if place is not None:
        if place.size != ranks.total:
            wanted = f"trainer.devices={config.trainer.devices} x trainer.num_nodes={ranks.nodes}"
            message = f"{wanted}: a launcher has started {place.size} processes"
            raise InputError(f"{message}; start as many, or give their number and a strategy for them")
        sweeps = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
        if sweeps and SUBMITIT not in HydraConfig.get().launcher._target_:
            message = "-m: each of the processes that a launcher has started would begin the whole sweep"
            raise InputError(f"{message}; leave the launcher out, or start its jobs one by one")
        return _as_rank(place, ranks.local, task, config, run_dir)
    if ranks.total == 1:
        return task(config, run_dir)
    if ranks.nodes > 1:
        message = f"trainer.num_nodes={ranks.nodes}: other machines' processes are not started from here"
        raise InputError(f"{message}; use torchrun, srun or hydra/launcher=slurm (docs/clusters.md)")
    _check_devices(config.trainer, ranks.local)
    try:
        settings = HydraConfig.instance().cfg if HydraConfig.initialized() else None
        if settings is not None:
            # Without the classes of Hydra's plugins, of which a job of another launcher holds copies.
            settings = OmegaConf.create(cast(dict[str, Any], OmegaConf.to_container(settings)))
        return run_ranks(_started_here, (task, config, run_dir, settings), ranks.local)
    except (LostRankError, KeyboardInterrupt) as end:
        files = RunFiles(run_dir)
        again = files.last_checkpoint.is_file() or files.best_checkpoint.is_file()
        if isinstance(end, LostRankError):
            end.arguments = (quoted("resume", str(run_dir)),) if again else None
            raise
        raise Interrupted([quoted("resume", str(run_dir))]) if again else end from None


def _check_devices(trainer: DictConfig, wanted: int) -> None:
    import torch

    from autodrive.runs.machine import device_of

    if device_of(trainer.accelerator).type == "cuda" and torch.cuda.device_count() < wanted:
        found = f"trainer.devices={trainer.devices}: {torch.cuda.device_count()} GPUs found"
        raise InputError(f"{found}; give as many or fewer, or trainer.accelerator=cpu for processes without")


def _started_here(task: Task, config: DictConfig, run_dir: Path, settings: DictConfig | None) -> Metrics:
    """What each process that was started here does: with Hydra's state, as if it had composed the configuration."""
    from autodrive.ranks.group import this_group

    register()
    if settings is not None:
        HydraConfig.instance().cfg = settings  # type: ignore[assignment]
        configure_log(settings.hydra.job_logging, settings.hydra.verbose)
    group = this_group()
    _take_device(config.trainer, group.rank)
    with _speaking(group.leads):
        return task(config, run_dir)


def _as_rank(place: Place, num_local: int, task: Task, config: DictConfig, run_dir: Path) -> Metrics:
    """What a process does that a launcher has started."""
    from autodrive.ranks.group import this_group

    place.announce(num_local)
    with joined(place, ENVIRONMENT):
        _take_device(config.trainer, place.local_rank)
        group = this_group()
        chosen = Path(group.from_first(str(run_dir)))  # the time in its name may differ by a second
        if chosen != run_dir and run_dir.is_dir() and not any(run_dir.iterdir()):
            run_dir.rmdir()
        with _speaking(group.leads):
            return task(config, chosen)


def _take_device(trainer: DictConfig, local_rank: int) -> None:
    """Make this rank's device the one that `cuda` means here."""
    import torch

    from autodrive.runs.machine import device_of

    if device_of(trainer.accelerator).type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"  # DeepSpeed would look for others
        return
    torch.cuda.set_device(trainer.devices[local_rank] if isinstance(trainer.devices, ListConfig) else local_rank)


@contextmanager
def _speaking(aloud: bool) -> Iterator[None]:
    """Let one process speak for all; exceptions of the others are told outside of this."""
    if aloud:
        yield
        return
    logging.disable(logging.WARNING)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield
    logging.disable(logging.NOTSET)
