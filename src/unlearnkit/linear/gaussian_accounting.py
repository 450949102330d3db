"""Gaussian accounting: from shift and noise to (epsilon, delta), and back."""

import math
from typing import Literal

from scipy.optimize import brentq
from scipy.stats import norm

from unlearnkit.core.errors import InputError

Accounting = Literal["analytic", "classical"]
"""``analytic``: the exact trade-off of Gaussians; ``classical``: its bound, for epsilon <= 1."""


def gaussian_delta(ratio: float, epsilon: float) -> float:
    """Return the smallest delta at which two Gaussians are (epsilon, delta)-indistinguishable.

    Balle and Wang, ICML 2018, arXiv:1805.06530, Theorem 8.

    Args:
        ratio: Distance of their means over their standard deviation.
        epsilon: At least 0.

    Returns:
        Delta, in [0, 1].
    """
    if ratio == 0:
        return 0.0
    upper = norm.cdf(ratio / 2 - epsilon / ratio)
    lower = math.exp(epsilon + norm.logcdf(-ratio / 2 - epsilon / ratio))
    return float(max(upper - lower, 0.0))


def gaussian_epsilon(ratio: float, delta: float) -> float:
    """Return the smallest epsilon at which two Gaussians are (epsilon, delta)-indistinguishable.

    Args:
        ratio: Distance of their means over their standard deviation.
        delta: Between 0 and 1, exclusive.

    Returns:
        Epsilon, at least 0.
    """
    if gaussian_delta(ratio, 0.0) <= delta:
        return 0.0
    high = 1.0
    while gaussian_delta(ratio, high) > delta:
        high *= 2
    return float(brentq(lambda e: gaussian_delta(ratio, e) - delta, 0.0, high, xtol=1e-12))


def shift_of(sigma: float, epsilon: float, delta: float, accounting: Accounting) -> float:
    """Return the largest distance of means that Gaussian noise hides.

    ``classical`` is ``sigma epsilon / sqrt(2 ln(1.5 / delta))`` (Guo et al., ICML 2020, Theorem 3),
    whose proof needs epsilon of at most 1.

    Args:
        sigma: Standard deviation of the noise in each coordinate.
        epsilon: Above 0.
        delta: Between 0 and 1, exclusive.
        accounting: Which of the two formulas.

    Returns:
        The distance, in the unit of sigma.

    Raises:
        InputError: If the classical formula is chosen with an epsilon above 1.
    """
    if accounting == "classical":
        if epsilon > 1:
            raise InputError(
                f"budget: classical accounting holds for epsilon of at most 1, got {epsilon!r};"
                " choose accounting='analytic'"
            )
        return sigma * epsilon / math.sqrt(2 * math.log(1.5 / delta))
    high = 1.0
    while gaussian_delta(high, epsilon) < delta:
        high *= 2
    found = brentq(lambda r: gaussian_delta(r, epsilon) - delta, 1e-12, high, xtol=1e-14)
    return sigma * float(found)


def sigma_of(shift: float, epsilon: float, delta: float, accounting: Accounting) -> float:
    """Return the noise that hides a distance of means; the inverse of ``shift_of``."""
    return shift / shift_of(1.0, epsilon, delta, accounting)
