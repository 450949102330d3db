"""Power: the smallest effect that a test finds most of the time."""

from __future__ import annotations

import math
from collections.abc import Callable

from unlearnkit.stats.epsilon_bounds import HALVINGS

POWER = 0.8
"""Chance of finding an effect, from which on it counts as detectable."""


def minimum_detectable_effect(
    power_of: Callable[[float], float], high: float, *, power: float = POWER, steps: int = HALVINGS
) -> float:
    """Return the smallest effect that is found with a given chance, by bisection below ``high``.

    ``power_of`` rises with the effect; nan where even ``high`` is not found so often.
    """
    if power_of(high) < power:
        return math.nan
    low = 0.0
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if power_of(middle) < power else (low, middle)
    return high
