"""Errors that a user can act on."""

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
    """An unforeseen exception; the message names a file with its traceback."""


MOST_SUGGESTIONS = 5
"""Most names that a message suggests in place of one that it does not know."""


class UnknownNameError(InputError):
    """A name that is not in a list; suggests the nearest, and lists a short list whole.

    Args:
        what: What the name is of, such as ``method``.
        name: The name.
        known: All names.
        see: How to list all names, where they are too many for a message.
        remedy: What else there is, for the end.
    """

    def __init__(
        self, what: str, name: str, known: Iterable[str], *, see: str = "", remedy: str = ""
    ) -> None:
        have = sorted(map(str, known))
        long = bool(see) and len(have) > MOST_SUGGESTIONS
        near = difflib.get_close_matches(name, have, n=MOST_SUGGESTIONS if long else 1)
        *first, last = [repr(n) for n in near] or [""]
        hint = f" Did you mean {', '.join(first)}{' or ' if first else ''}{last}?" if near else ""
        there = f"All names: {see}" if long else f"There are: {', '.join(have) or 'none'}"
        super().__init__(f"no {what} {name!r}.{hint} {there}{f'; {remedy}' if remedy else ''}")
