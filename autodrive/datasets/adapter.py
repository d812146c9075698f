"""What `prepare` needs from a source of videos."""

from typing import Protocol

from autodrive.schema import SetAside, SourceVideo


class Adapter(Protocol):
    """One source of videos; built by Hydra from `conf/dataset/*.yaml`."""

    @property
    def name(self) -> str:
        """Name of the data set, written to every clip."""
        ...

    def videos(self) -> tuple[list[SourceVideo], list[SetAside]]:
        """Every video of the source with absolute paths, and every row or file that is none, with its reason.

        Raises:
            InputError: The source is not there or not in this layout.
        """
        ...
