"""The one exception users see: bad configuration or bad input, reported in one line with exit code 2."""


class InputError(Exception):
    """The configuration or an input file is wrong.

    The message is a single line that says what is wrong, where (file, key or line) and how to fix it.
    """
