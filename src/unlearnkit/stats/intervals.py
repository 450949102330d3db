"""Intervals of rates, means and differences, and equivalence tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy import special  # not scipy.stats: it takes half a second to import

from unlearnkit.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def t_quantile(level: float, freedom: float) -> float:
    """Return how many standard errors an interval of this coverage reaches, by Student's t."""
    return float(special.stdtrit(freedom, (1 + level) / 2))


def z_quantile(level: float) -> float:
    """Return how many standard errors an interval of this coverage reaches, by the normal law."""
    return float(special.ndtri((1 + level) / 2))


def t_p_value(t: float, freedom: int) -> float:
    """Return the two-sided p-value of Student's t."""
    return float(2 * special.stdtr(freedom, -abs(t)))


def t_half_width(count: int, level: float = 0.95) -> float:
    """Return half the width of Student's interval of a mean, in standard deviations of a row."""
    return t_quantile(level, count - 1) / math.sqrt(count)


def clopper_pearson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of the rate k / n; (0, 1) without trials.

    Clopper and Pearson, Biometrika 26, 1934.

    Raises:
        InputError: If k is not among 0 to n.
    """
    if not 0 <= k <= n:
        raise InputError(f"clopper_pearson: k must be between 0 and n = {n}, got {k}")
    tail = (1 - level) / 2
    low = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(special.betaincinv(k + 1, n - k, 1 - tail))
    return low, high


def mean_interval(rows: Tensor, level: float = 0.95) -> tuple[float, float]:
    """Return Student's interval of the mean of independent rows ``(n,)``: ``mean ± t s / sqrt(n)``.

    Without limits for fewer than two rows or a mean that is not finite. For rows that are all 0 or
    1 ``clopper_pearson`` is right.
    """
    values = rows.double()
    count = len(values)
    if count < 2 or not bool(values.isfinite().all()):
        return -math.inf, math.inf
    return _around(float(values.mean()), float(values.std()), count, level)


def welch_interval(a: Tensor, b: Tensor, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of ``mean(a) - mean(b)`` of ``(m,)`` and ``(n,)`` rows, two at least.

    Their variances may differ (Welch, Biometrika 34, 1947).
    """
    parts = [float(t.double().var()) / len(t) for t in (a, b)]
    error, gap = math.sqrt(math.fsum(parts)), float(a.double().mean() - b.double().mean())
    if error == 0:
        return gap, gap
    freedom = math.fsum(parts) ** 2 / math.fsum(
        p**2 / (len(t) - 1) for p, t in zip(parts, (a, b), strict=True)
    )
    reach = t_quantile(level, freedom) * error
    return gap - reach, gap + reach


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Return Student's interval of the mean of a few finite numbers, such as one a seed."""
    count = len(values)
    if count < 2:
        return -math.inf, math.inf
    mean = math.fsum(values) / count
    variance = math.fsum((v - mean) ** 2 for v in values) / (count - 1)
    return _around(mean, math.sqrt(variance), count, level)


def _around(mean: float, deviation: float, count: int, level: float) -> tuple[float, float]:
    reach = t_half_width(count, level) * deviation
    return mean - reach, mean + reach


@dataclass(frozen=True)
class Difference:
    """A difference of two means over models, and its uncertainty."""

    value: float
    low: float
    high: float
    error: float
    """Standard error; nan for a single model on either side."""

    freedom: int
    """Degrees of freedom of t."""


def two_sample_t(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Difference:
    """Return mean(a) - mean(b) over models, with Student's interval, one variance for both.

    ``± t(n_a + n_b - 2) s sqrt(1 / n_a + 1 / n_b)``, without limits for fewer than three values in
    all. One value against K is a prediction interval: only the K then show the spread.

    Raises:
        InputError: If one side is empty or a value is not finite.
    """
    if not len(a) or not len(b) or not all(map(math.isfinite, [*a, *b])):
        raise InputError(
            f"two_sample_t: finite values are needed on both sides, got {len(a)} and {len(b)};"
            " leave out models whose number is undefined"
        )
    mean_a, mean_b = math.fsum(a) / len(a), math.fsum(b) / len(b)
    freedom = len(a) + len(b) - 2
    if freedom < 1:
        return Difference(mean_a - mean_b, -math.inf, math.inf, math.nan, 0)
    squares = math.fsum((x - mean_a) ** 2 for x in a) + math.fsum((x - mean_b) ** 2 for x in b)
    error = math.sqrt(squares / freedom * (1 / len(a) + 1 / len(b)))
    reach = t_quantile(level, freedom) * error
    gap = mean_a - mean_b
    return Difference(gap, gap - reach, gap + reach, error, freedom)


@dataclass(frozen=True)
class Equivalence:
    """Whether two means differ by less than a margin, by two one-sided t tests."""

    p: float
    """The larger of the two one-sided p-values: equivalent at level alpha where it is below."""

    difference: Difference
    """With the interval of level ``1 - 2 alpha``, which then lies within the margin."""

    holds: bool


def tost(
    values_a: Sequence[float], values_b: Sequence[float], margin: float, alpha: float = 0.05
) -> Equivalence:
    """Test whether two means over models differ by less than a margin fixed before looking.

    Two one-sided t tests (Schuirmann, 1987). Not being significantly different is no evidence of
    being equal; this is. ``alpha`` is the chance of calling means equivalent that differ by the
    margin.

    Returns:
        The result; it never holds for fewer than three values in all.

    Raises:
        InputError: If the margin is not above 0.
    """
    if not margin > 0:
        raise InputError(f"tost: margin must be above 0, got {margin!r}")
    gap = two_sample_t(values_a, values_b, level=1 - 2 * alpha)
    if gap.freedom < 1:
        return Equivalence(1.0, gap, holds=False)
    if gap.error == 0:
        p = 0.0 if abs(gap.value) < margin else 1.0
    else:
        p = float(special.stdtr(gap.freedom, (abs(gap.value) - margin) / gap.error))
    return Equivalence(p, gap, holds=p < alpha)
