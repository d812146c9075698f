"""A loader whose processes hand over what is wrong with the input, or with the disk, as they found it.

torch makes the error of a loader process anew from the text of its traceback: users would get that text in place of the
one line that was written for them.
"""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler

from autodrive.errors import InputError, told_in_a_line
from autodrive.workers import deaf_to_ctrl_c


class InputLoader(DataLoader):
    """A DataLoader of items that are whole batches; it raises what its processes find wrong as they found it."""

    def __init__(self, dataset: Dataset, sampler: Sampler, **how: Any) -> None:
        super().__init__(_Fetched(dataset), batch_size=None, sampler=sampler, collate_fn=_as_it_is, **how)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        with deaf_to_ctrl_c():  # the processes start here
            batches = super().__iter__()
        for batch in batches:
            if isinstance(batch, InputError | OSError):
                raise batch
            yield batch


class _Fetched(Dataset):
    """The items of a data set, or the error that stands for one."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: Any) -> Any:
        try:
            return self.dataset[index]
        except (InputError, OSError) as error:
            told = told_in_a_line(error)
            if told is None:
                raise
            return told

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]


def _as_it_is(batch: Any) -> Any:
    return batch
