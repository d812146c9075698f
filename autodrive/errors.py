"""The exceptions that users see, each in a line or two: wrong input, and a stop that they asked for."""

import copyreg
import errno
from collections.abc import Sequence

# Of the system: no room, or no permission. The same command works once the user has seen to it.
STORAGE_ERRORS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR}
)


class InputError(Exception):
    """The configuration or an input file is wrong.

    The message is a single line that says what is wrong, where (file, key or line) and how to fix it.
    """

    def __reduce__(self) -> tuple:
        # Whatever arguments a subclass takes: one that comes from another process is not made by calling it again.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class RefusedFolderError(InputError):
    """A run may not write into its folder, so nothing may: neither results nor the reason."""


class Paused(Exception):  # noqa: N818 - named for what becomes of the work
    """All that may be done for now is done: it is kept, and the same command goes on with the rest."""


class LostRankError(Exception):
    """A process of a run was ended from outside, and with it the run.

    Attributes:
        rank: Its number.
        arguments: What follows the verb on the command line that continues the run; None if nothing does.
    """

    def __init__(self, rank: int, size: int, how: str) -> None:
        super().__init__(f"process {rank} of {size} {how}")
        self.rank = rank
        self.arguments: Sequence[str] | None = None


class Interrupted(KeyboardInterrupt):
    """The user stopped a run that can be continued.

    Attributes:
        arguments: What follows the verb on the command line that continues it.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__()
        self.arguments = tuple(arguments)


def is_about_storage(error: BaseException) -> bool:
    """Whether the system refused to read or write something for want of room or permission."""
    return isinstance(error, OSError) and error.errno in STORAGE_ERRORS


def told_in_a_line(error: BaseException) -> InputError | OSError | None:
    """An error that users read in one line, as it can be sent to the process that tells them; None for any other.

    Those of the system are made anew: libraries raise kinds of their own, which cannot be sent.
    """
    if isinstance(error, InputError):
        return error
    if isinstance(error, OSError) and is_about_storage(error):
        return OSError(error.errno, error.strerror, error.filename)
    return None
