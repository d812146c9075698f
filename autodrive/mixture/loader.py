"""A loader whose processes hand over what is wrong with the input as they found it.

torch makes the error of a loader process anew from the text of its traceback: users would get that text in place of the
one line that was written for them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset

from autodrive.errors import InputError
from autodrive.workers import deaf_to_ctrl_c


class InputLoader(DataLoader):
    """A DataLoader that raises the InputErrors of its processes as they are."""

    def __init__(self, dataset: Dataset, collate_fn: Callable, **how: Any) -> None:
        super().__init__(_Fetched(dataset), collate_fn=_Collated(collate_fn), **how)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        with deaf_to_ctrl_c():  # the processes start here
            batches = super().__iter__()
        for batch in batches:
            if isinstance(batch, InputError):
                raise batch
            yield batch


class _Fetched(Dataset):
    """The items of a data set, or the error that stands for one."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: Any) -> Any:
        try:
            return self.dataset[index]
        except InputError as error:
            return error

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Collated:
    """Makes a batch of items; the first error among them, or its own, takes the batch's place."""

    collate: Callable

    def __call__(self, items: list[Any]) -> Any:
        error = next((item for item in items if isinstance(item, InputError)), None)
        if error is not None:
            return error
        try:
            return self.collate(items)
        except InputError as error:
            return error
