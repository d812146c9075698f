"""All loggers of a run, as one: each is told the same, and none of them can end the run."""

import importlib.util
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from autodrive.errors import InputError
from autodrive.tracking.record import RunRecord
from autodrive.tracking.wandb_logger import Exhibits, WandbRunLogger
from autodrive.tracking.wandb_mode import check_account

log = logging.getLogger(__name__)

PACKAGES = ("tensorboard", "mlflow")  # of loggers that the plain installation does not bring


def check_loggers(config: DictConfig) -> None:
    """Find loggers that cannot work before anything else is done.

    Raises:
        InputError: W&B's mode or key is wrong, or a logger's package is not installed.
    """
    nodes = config.logger or {}
    if "wandb" in nodes:
        check_account()
    for package in PACKAGES:
        if package in nodes and importlib.util.find_spec(package) is None:
            raise InputError(
                f"logger={package}: its package is missing; pip install {package}, or give logger=csv_wandb"
            )


@contextmanager
def never_ending(
    what: str, and_then: Callable[[], None] = lambda: None, passing: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turn whatever a logger raises into one warning: a lost connection or a full disk is no reason to stop training.

    Args:
        what: Which logger, for the warning.
        and_then: Done after a failure.
        passing: What is raised all the same, while a wrong setting can still end the run before its work.
    """
    try:
        yield
    except passing:
        raise
    except Exception as error:  # whatever a service, its client or a disk raises
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        log.warning("%s has stopped logging, the run goes on: %s", what, reason)
        and_then()


class UnfailingLogger(Logger):
    """A logger that falls silent, after one warning, where the one inside it raises.

    Args:
        inner: Any logger of Lightning's.

    Attributes:
        seconds: How long the run has waited for it.
    """

    def __init__(self, inner: Logger) -> None:
        super().__init__()
        self.inner = inner
        self.seconds = 0.0
        self._silent = False

    def _do(self, action: Callable[[], Any], passing: tuple[type[Exception], ...] = ()) -> None:
        began = time.monotonic()
        if not self._silent:
            with never_ending(type(self.inner).__name__, self._fall_silent, passing):
                action()
        self.seconds += time.monotonic() - began

    def _fall_silent(self) -> None:
        self._silent = True

    @property
    def name(self) -> str | None:
        """Name of the experiment; a logger's own name may need its service."""
        return type(self.inner).__name__

    @property
    def version(self) -> str:
        """Nothing in this project is named by it."""
        return ""

    @property
    def save_dir(self) -> str | None:
        """Where the logger writes."""
        return self.inner.save_dir

    def begin(self, record: RunRecord) -> None:
        """Say what run this is; raises InputError if the logger's account is wrong."""
        inner = self.inner
        if isinstance(inner, WandbRunLogger):
            self._do(lambda: inner.begin(record), passing=(InputError,))
        else:
            self._do(lambda: inner.log_hyperparams(dict(record.config)))
            self._do(inner.save)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log values at a step."""
        self._do(lambda: self.inner.log_metrics(dict(metrics), step))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's record has said everything, and a module's own parameters would come on top of it."""

    def save(self) -> None:
        """Write what is held back."""
        self._do(self.inner.save)

    def finalize(self, status: str) -> None:
        """Write what is held back; Lightning says so after fitting, when the scores are still to come."""
        self._do(self.inner.save)

    def show(self, exhibits: Exhibits) -> None:
        """Show tables, pictures and what came of what, where the logger can."""
        if isinstance(self.inner, WandbRunLogger):
            inner = self.inner
            self._do(lambda: inner.show(exhibits))

    def end(self, status: str) -> None:
        """The run is over: `success` or `failed`; a logger that fell silent is closed all the same."""
        if self._silent:
            with suppress(Exception):
                self.inner.finalize("failed")
        self._do(lambda: self.inner.finalize(status))


class Tracker:
    """The loggers of one run, from its beginning to its end.

    Args:
        loggers: The loggers, none of which has begun.
        record: What they are told of the run.
    """

    def __init__(self, loggers: Sequence[UnfailingLogger], record: RunRecord) -> None:
        self.loggers, self.record = loggers, record

    def __enter__(self) -> "Tracker":
        try:
            for logger in self.loggers:
                logger.begin(self.record)
        except BaseException:  # nobody closes what has begun if this fails
            for logger in self.loggers:
                logger.end("failed")
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for logger in self.loggers:
            logger.end("success" if kind is None else "failed")

    def facts(self) -> dict[str, Any]:
        """What `provenance.json` says of logging: how long the run waited for each logger."""
        return {"logging_s": {logger.name: round(logger.seconds, 2) for logger in self.loggers}}

    def finish(self, collect: Callable[[], Exhibits], step: int | None = None) -> None:
        """Give every logger the scores, and those that can show more the rest.

        Args:
            collect: Makes what there is to see.
            step: Optimiser steps that were made, if any.
        """
        if not self.loggers:
            return
        with never_ending("what is shown of this run"):
            exhibits = collect()
            for logger in self.loggers:
                if exhibits.scores:
                    logger.log_metrics(exhibits.scores, step)
                logger.show(exhibits)
