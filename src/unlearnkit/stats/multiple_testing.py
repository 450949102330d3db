"""Multiple testing: adjusted p-values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unlearnkit.core.errors import InputError

TINY = 1e-12
"""Nearest that a combined p-value may come to 0 or 1, where the tangent has no value."""


def benjamini_hochberg(p: Tensor) -> Tensor:
    """Return adjusted p-values ``(E,)``: of those at most q, a share of at most q is false.

    ``min over j >= i of m p_(j) / j``, over rising p-values (Benjamini and Hochberg, JRSS B 57,
    1995). Valid for independent tests, and for positively dependent ones such as examples that
    share models (Benjamini and Yekutieli, Annals of Statistics 29, 2001). A p-value that is nan
    counts as no test.

    Raises:
        InputError: If a p-value is not in [0, 1].
    """
    values = p.double()
    tested = ~values.isnan()
    if bool(((values < 0) | (values > 1)).any()):
        raise InputError("benjamini_hochberg: p-values must be in [0, 1], not scores")
    found = torch.full_like(values, torch.nan)
    if bool(tested.any()):
        from scipy.stats import false_discovery_control  # takes half a second to import

        found[tested] = torch.from_numpy(false_discovery_control(values[tested].numpy()))
    return found


def max_statistic(observed: Tensor, maxima: Tensor, *, complete: bool = False) -> Tensor:
    """Return p-values ``(E,)`` for all tests at once, by the largest statistic of relabellings.

    ``(1 + #{b: max_e T_b,e >= T_e}) / (B + 1)`` (Westfall and Young, 1993), or ``#{...} / B`` where
    the relabellings ``(B,)`` are all there are: the chance that any example whose null hypothesis
    is true falls below alpha is at most alpha, whatever the dependence between examples.
    """
    rising = maxima.double().sort().values
    as_large = len(rising) - torch.searchsorted(rising, _just_below(observed.double()))
    as_large = as_large.double()
    return as_large / len(rising) if complete else (1 + as_large) / (len(rising) + 1)


def _just_below(statistic: Tensor) -> Tensor:
    """Return values so little below a statistic that only rounding lies between.

    Relabellings that mirror each other have equal statistics, which rounding must not tell apart.
    """
    return statistic - 1e-9 * statistic.abs()


def cauchy_combination(p: Sequence[float]) -> float:
    """Return the p-value of several dependent tests of one hypothesis, taken together.

    ``1/2 - arctan(t) / pi`` of the mean ``t`` of ``tan((1/2 - p_i) pi)`` (Liu and Xie, Journal of
    the American Statistical Association 115, 2020, equation 1, equal weights). At small levels it
    holds for tests that depend on each other in any usual way, and it does not punish tests that
    agree, as a division of the level would.

    Args:
        p: Two-sided p-values, at least one.

    Returns:
        The p-value.

    Raises:
        InputError: If there is none, or one is not in [0, 1].
    """
    if not p or not all(0 <= one <= 1 for one in p):
        raise InputError("cauchy_combination: give p-values in [0, 1], at least one")
    cut = [min(max(one, TINY), 1 - TINY) for one in p]
    t = math.fsum(math.tan((0.5 - one) * math.pi) for one in cut) / len(cut)
    return 0.5 - math.atan(t) / math.pi
