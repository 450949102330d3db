"""Handwritten digits with a training set that somebody tampered with."""

from functools import cache

from unlearnkit.cases.digits import digits
from unlearnkit.cases.registry import CaseEntry, builtin
from unlearnkit.cases.tampered_sets import backdoor, known_parts, swap_labels
from unlearnkit.core.case import Case

TRIGGERED = 72
"""A twentieth of the training rows."""

CONFUSED = (3, 5)
SWAPPED = 0.4
"""Share of the rows of each confused class."""


@cache
def digits_backdoor() -> Case:
    """Return the digits where 72 rows of other classes carry a trigger and are called 0."""
    return backdoor(digits(), TRIGGERED, (8, 8))


@cache
def digits_swapped() -> Case:
    """Return the digits where four tenths of the threes are called 5, and of the fives 3."""
    return swap_labels(digits(), *CONFUSED, SWAPPED)


builtin(
    CaseEntry(
        id="digits_backdoor",
        make=digits_backdoor,
        requests=known_parts(digits_backdoor),
        doc="handwritten digits of which 72 carry a trigger and are called 0",
    )
)
builtin(
    CaseEntry(
        id="digits_swapped",
        make=digits_swapped,
        requests=known_parts(digits_swapped),
        doc="handwritten digits of which four tenths of the threes are called 5, of the fives 3",
    )
)
