"""Paired test of two methods on the same seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unlearnkit.core.errors import InputError
from unlearnkit.stats.intervals import t_interval

ENOUGH_FOR_INTERVALS = 3
"""Seeds from which on an interval of a mean is shown."""

MOST_SEEDS = 30
"""Differences that are still tested exactly: the work grows as ``2^(n/2)``."""


@dataclass(frozen=True)
class Paired:
    """The mean of paired differences, its interval and its p-value."""

    value: float
    low: float | None
    high: float | None
    p: float | None
    """None for more seeds than are tested exactly; the interval then tells enough."""

    least_p: float


def paired(differences: Sequence[float]) -> Paired:
    """Return the mean of paired differences with Student's 95 % interval and a sign-flip test."""
    low: float | None = None
    high: float | None = None
    if len(differences) >= ENOUGH_FOR_INTERVALS:
        low, high = t_interval(differences)
    few = len(differences) <= MOST_SEEDS
    return Paired(
        value=statistics.fmean(differences),
        low=low,
        high=high,
        p=sign_flip(differences) if few else None,
        least_p=least_p(len(differences)),
    )


def least_p(count: int) -> float:
    """Return the smallest p-value that a sign-flip test of so many differences can give.

    ``2 / 2^n``: six pairs are the least for 0.05.
    """
    return min(1.0, 2.0 ** (1 - count))


def sign_flip(differences: Sequence[float]) -> float:
    """Return the exact two-sided p-value of paired differences being symmetric about 0.

    The share of all ``2^n`` choices of signs whose sum is at least as far from 0 as the observed
    one (Fisher, The Design of Experiments, 1935, section 21). The two halves of the differences are
    summed separately and counted together, so that the work is ``2^(n/2)``.

    Raises:
        InputError: If there are none or more than 30, or one is not finite.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not 0 < len(values) <= MOST_SEEDS or not np.isfinite(values).all():
        raise InputError(
            f"sign_flip: 1 to {MOST_SEEDS} finite differences are needed, got {len(values)};"
            " leave out seeds whose number is undefined"
        )
    # Sums of the same numbers in another order may differ by rounding, and must still be ties.
    edge = abs(values.sum()) - 1e-9 * np.abs(values).sum()
    if edge <= 0:
        return 1.0
    middle = len(values) // 2
    left, right = _sums(values[:middle]), np.sort(_sums(values[middle:]))
    above = len(right) - np.searchsorted(right, edge - left, side="left")
    below = np.searchsorted(right, -edge - left, side="right")
    return float((above.sum() + below.sum()) / 2 ** len(values))


def _sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums of the values under every choice of signs."""
    sums = np.zeros(1)
    for v in values:
        sums = np.concatenate([sums + v, sums - v])
    return sums
