"""Forget rows that are a range of targets, or all rows of some owners, where nobody says so."""

from __future__ import annotations

from math import lgamma, log

from unlearnkit.core.case import Partition
from unlearnkit.core.data import View
from unlearnkit.core.request import ForgetRequest, Groups, Rows, Targets

CHANCE = 1e-3
"""Chance of rows drawn at random to look like a request, above which they are no sign of it."""


def infer_request(request: ForgetRequest | None, parts: Partition) -> ForgetRequest | None:
    """Return a request, or where it names rows alone: the range or the owners that these fill.

    The kind of a request shows in its rows whichever door they came through, as a class that no
    kept row has does.

    Args:
        request: What was requested; None for a case made from parts.
        parts: The rows that go and the rows that stay.

    Returns:
        The request, the range of targets, or the owners.
    """
    if not isinstance(request, Rows | None):
        return request
    return range_of_targets(parts) or owners_of_rows(parts) or request


def range_of_targets(parts: Partition) -> Targets | None:
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
    drawn = log(width * (m + 1)) - _log_ways(n + m, n)
    if not len(alone) or drawn > log(CHANCE):
        return None
    c = int(alone[0])
    return Targets(
        at_least=float(low[c]) if bool((other[:, c] < low[c]).any()) else None,
        at_most=float(high[c]) if bool((other[:, c] > high[c]).any()) else None,
        column=c if width > 1 else None,
    )


def owners_of_rows(parts: Partition) -> Groups | None:
    """Return the owners of the forget rows, where no retained row is theirs.

    Of N rows of K owners, n drawn without looking at owners are all rows of k of them with a chance
    of at most ``C(K, k) / C(N, n)``; where that is above a thousandth nothing is said.

    Args:
        parts: The rows that go and the rows that stay.

    Returns:
        The owners; None where there are none, or no retained rows are at hand.
    """
    mine, theirs = _owners(parts.forget), _owners(parts.retain)
    if parts.forget is None or parts.retain is None or not mine or not theirs or mine & theirs:
        return None
    n, k = len(parts.forget), len(mine)
    drawn = _log_ways(k + len(theirs), k) - _log_ways(n + len(parts.retain), n)
    return None if drawn > log(CHANCE) else Groups(sorted(mine))


def _owners(view: View | None) -> set[int]:
    if view is None or view.data.group is None:
        return set()
    return set(view.data.group[view.rows].tolist())


def _log_ways(total: int, count: int) -> float:
    """Return the logarithm of the number of ways to draw so many."""
    return lgamma(total + 1) - lgamma(count + 1) - lgamma(total - count + 1)
