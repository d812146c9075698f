"""Launchers of sweeps as Hydra finds them: it takes plugins from the package `hydra_plugins` only.

Every verb imports this when it starts, so it imports nothing itself that takes time.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class LocalProcesses(Launcher):
    """A sweep's jobs side by side on this machine, each with devices of its own (`hydra/launcher=local_processes`).

    Args:
        n_jobs: Most jobs at once; None for as many as there are GPUs for, or without GPUs processors.

    Raises:
        InputError: It is no number of jobs.
    """

    def __init__(self, n_jobs: Any = None) -> None:
        from autodrive.runs.side_by_side import checked_number

        self.n_jobs = checked_number(n_jobs)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `launch`, with what every job is made of."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Do jobs, given by their overrides and numbered from `initial_job_idx`; called by Hydra."""
        from autodrive.runs.side_by_side import Launch, run_side_by_side

        launch = Launch(self.hydra_context, self.task_function, self.config)
        return run_side_by_side(launch, job_overrides, initial_job_idx, self.n_jobs)
