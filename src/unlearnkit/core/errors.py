"""Errors a user can act on."""

import difflib
from collections.abc import Iterable


class UnlearnkitError(Exception):
    """Base of every error raised on purpose."""


class InputError(UnlearnkitError):
    """Data, weights, a request or a setting is not what it must be."""


class UnsupportedError(UnlearnkitError):
    """The method, metric or task cannot serve this problem."""


class NoTargetsError(UnsupportedError):
    """Something read the targets of rows that have none."""


class UndeclaredReadError(UnlearnkitError):
    """A method touched an input that its declaration does not name."""


class DivergedError(UnlearnkitError):
    """A run ended in a model that is not one: not finite, or not the same shape."""


class OutOfMemoryError(UnlearnkitError):
    """The device or the process has no memory left for this batch size."""


class UnexpectedError(UnlearnkitError):
    """An exception that nobody foresaw; the message names a file with its traceback."""


class UnknownNameError(InputError):
    """A name that is not on a list; says which is nearest, and what there is."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        have = sorted(known)
        near = difflib.get_close_matches(name, have, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(f"no {what} {name!r}.{hint} There are: {', '.join(have) or 'none'}")
