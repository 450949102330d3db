"""Forget rows that are a range of targets, where nobody says so."""

from __future__ import annotations

from math import lgamma, log

from unlearnkit.core.case import Partition
from unlearnkit.core.request import ForgetRequest, Rows, Targets

CHANCE = 1e-3
"""Chance of rows drawn at random to fill a range, above which that is no sign of a request."""


def meant(request: ForgetRequest | None, parts: Partition) -> ForgetRequest | None:
    """Return a request, or the range of targets that its rows fill where it names rows alone.

    The kind of a request shows in its rows whichever door they came through, as a class that no
    kept row has does.

    Args:
        request: What was asked; None for a case made from parts.
        parts: The rows that go and the rows that stay.

    Returns:
        The request, or the range.
    """
    if not isinstance(request, Rows | None):
        return request
    return filled_range(parts) or request


def filled_range(parts: Partition) -> Targets | None:
    """Return the range of real targets that holds all forget rows and no retained one.

    Of N rows drawn without looking at K targets, n fill a range of one of them with a chance of at
    most ``K (N - n + 1) n! (N - n)! / N!``; where that is above a thousandth nothing is said.

    Args:
        parts: The rows that go and the rows that stay.

    Returns:
        The smallest such range, without an end where no retained row lies beyond it; None where
        there is none, targets are not real, or no retained rows are at hand.
    """
    go, stay = parts.forget, parts.retain
    if go is None or stay is None or not (len(go) and len(stay) and go.labelled and stay.labelled):
        return None
    if not (go.y.is_floating_point() and stay.y.is_floating_point()):
        return None
    y, other = (view.y.reshape(len(view), -1) for view in (go, stay))
    n, m, width = len(y), len(other), y.shape[1]
    low, high = y.amin(0), y.amax(0)
    alone = ((other < low) | (other > high)).all(0).nonzero()[:, 0]
    drawn = log(width * (m + 1)) + lgamma(n + 1) + lgamma(m + 1) - lgamma(n + m + 1)
    if not len(alone) or drawn > log(CHANCE):
        return None
    c = int(alone[0])
    return Targets(
        at_least=float(low[c]) if bool((other[:, c] < low[c]).any()) else None,
        at_most=float(high[c]) if bool((other[:, c] > high[c]).any()) else None,
        column=c if width > 1 else None,
    )
