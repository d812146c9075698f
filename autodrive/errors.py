"""The one exception users see: bad configuration or bad input, reported in one line with exit code 2."""

import copyreg


class InputError(Exception):
    """The configuration or an input file is wrong.

    The message is a single line that says what is wrong, where (file, key or line) and how to fix it.
    """

    def __reduce__(self) -> tuple:
        # Whatever arguments a subclass takes: one that comes from another process is not made by calling it again.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]
