"""Where many pieces of work are done on this machine: in threads or processes, a bounded number at once."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Annotated, Any, Literal, TypeVar

import cloudpickle
from annotated_types import Le

from autodrive.bounds import Count
from autodrive.workers import deaf_to_ctrl_c

ItemT = TypeVar("ItemT")
OutcomeT = TypeVar("OutcomeT")


@dataclass(frozen=True)
class LocalExecutor:
    """Threads or processes; with a concurrency of 1 neither, but one item after the other.

    Attributes:
        workers: `threads` for work that waits, `processes` for work that computes.
        concurrency: Items that are worked on at once.
    """

    workers: Literal["threads", "processes"] = "threads"
    concurrency: Annotated[Count, Le(1024)] = 1

    def map(self, function: Callable[[ItemT], OutcomeT], items: Iterable[ItemT]) -> Iterator[tuple[ItemT, OutcomeT]]:
        """See `Executor.map`: when something is raised, what else is under way is finished and given first."""
        if self.concurrency == 1:
            for item in items:
                yield item, function(item)
            return
        with deaf_to_ctrl_c():
            pool: Executor = (
                ThreadPoolExecutor(self.concurrency)
                if self.workers == "threads"
                else ProcessPoolExecutor(
                    self.concurrency, get_context("spawn"), initializer=_take, initargs=(cloudpickle.dumps(function),)
                )
            )
        work = function if self.workers == "threads" else _work
        under_way: dict[Future[OutcomeT], ItemT] = {}
        errors: list[BaseException] = []
        left = iter(items)
        try:
            while True:
                while not errors and len(under_way) < self.concurrency:
                    item = next(left, None)
                    if item is None:
                        break
                    with deaf_to_ctrl_c():  # a pool starts its processes as they are needed
                        under_way[pool.submit(work, item)] = item
                if not under_way:
                    break
                for done in wait(under_way, return_when=FIRST_COMPLETED).done:
                    item, error = under_way.pop(done), done.exception()
                    if error is None:
                        yield item, done.result()
                    else:
                        errors.append(error)
        finally:
            pool.shutdown(cancel_futures=True)
        if errors:
            raise errors[0]


_taken: list[Callable[[Any], Any]] = []
"""In a process of a pool, what it was started for. It gets that once: rules weigh more than an item."""


def _take(pickled: bytes) -> None:
    _taken.append(cloudpickle.loads(pickled))  # lambdas of rules included, which `pickle` cannot send


def _work(item: Any) -> Any:
    return _taken[-1](item)
