"""How far a number is from that of oracles, and which gap counts as none."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from functools import lru_cache

from unlearnkit.stats.intervals import student_p, student_reach, t_quantile

ENOUGH_FOR_INTERVALS = 3
"""Oracles from which on a deviation over models, and so any interval of a gap, is shown."""

ENOUGH_FOR_EQUIVALENCE = 5
"""Oracles from which on a model may be said to match retraining."""

LEAST_MARGIN = 0.01
"""Smallest margin where it is given in oracle deviations: these can be 0 on saturated metrics."""


@dataclass(frozen=True)
class Gap:
    """Candidate minus mean oracle, with what K oracles allow to say about it."""

    value: float
    low: float
    high: float
    """95 % prediction interval: holds for the gap of a further oracle in 95 of 100 audits."""

    tight_low: float
    tight_high: float
    """90 % interval of the gap to the mean oracle, this model given: for two one-sided tests."""

    deviation: float
    mean: float
    """Of the oracles."""


def gap(
    value: float, oracle: list[float], *, least: float = 0.0, distance: bool = False
) -> Gap | None:
    """Return how far a candidate is from K oracles; None for fewer than three.

    The prediction interval is ``gap ± t(0.975, K-1) s sqrt(1 + 1/K)``; the interval of the gap to
    the mean oracle is ``gap ± t(0.95, K-1) s / sqrt(K)``, whose two ends are the two one-sided
    tests at level 0.05.

    A distance to the oracles is a mean over pairs. If the distance of models i and j is ``mu + a_i
    + a_j``, each oracle's mean distance to the others shares all other ``a`` with its neighbours',
    and the deviation over oracles is ``(K-2)/(K-1)`` of that of ``a``, which a candidate has: for
    distances s is enlarged by the inverse.

    Args:
        value: The candidate's.
        oracle: The oracles', K of them.
        distance: Whether the values are distances to the (other) oracles.
        least: Smallest deviation to believe; K equal oracles would otherwise leave none.

    Returns:
        The gap.
    """
    count = len(oracle)
    if count < ENOUGH_FOR_INTERVALS:
        return None
    s = statistics.stdev(oracle) * ((count - 1) / (count - 2) if distance else 1.0)
    s = max(s, least)
    g = value - statistics.mean(oracle)
    wide = t_quantile(0.95, count - 1) * s * math.sqrt(1 + 1 / count)
    tight = student_reach(count, 0.9) * s
    return Gap(g, g - wide, g + wide, g - tight, g + tight, s, value - g)


def outlying(value: float, oracle: list[float], *, distance: bool = False) -> float | None:
    """Return the p-value of a candidate being one more oracle, two-sided; None below three.

    ``t = (value - mean) / (s sqrt(1 + 1/K))`` with K - 1 degrees of freedom: exact if the metric
    is normal over training seeds.

    Args:
        value: The candidate's.
        oracle: The oracles', K of them.
        distance: As in ``gap``.

    Returns:
        The p-value.
    """
    apart = gap(value, oracle, distance=distance)
    if apart is None:
        return None
    if apart.deviation == 0:
        return 1.0 if apart.value == 0 else 0.0
    t = apart.value / (apart.deviation * math.sqrt(1 + 1 / len(oracle)))
    return student_p(t, len(oracle) - 1)


def equivalence_margin(own: float | None, unit: str, apart: Gap) -> float:
    """Return the largest difference from the mean oracle that counts as none.

    The metric's own, or two oracle deviations; for fractions at least a hundredth, because the
    deviation of a saturated fraction is 0; for errors at least a hundredth of the oracles' error.

    Args:
        own: The metric's own margin, if it has one.
        unit: The metric's.
        apart: The gap.

    Returns:
        The margin, in the metric's unit.
    """
    if own is not None:
        return own
    least = {"fraction": LEAST_MARGIN, "as targets": LEAST_MARGIN * abs(apart.mean)}
    return max(2 * apart.deviation, least.get(unit, 0.0))


def closed_share(value: float, original: float, oracle: list[float]) -> float | None:
    """Return the share of the original's distance to the oracles that was closed.

    ``(d(o,r) - d(u,r)) / (d(o,r) - d(r,r'))``; refused where the denominator is within two standard
    errors of 0 (evaluation by this metric cannot tell the original from an oracle).

    Args:
        value: d(u,r).
        original: d(o,r).
        oracle: d(r,r') with each oracle as the candidate.

    Returns:
        The share: 1 is as an oracle, 0 as if nothing had happened; None where it is refused, or for
        fewer than two oracles.
    """
    if len(oracle) < 2:
        return None
    mean, deviation = _moments(tuple(oracle))
    room = original - mean
    if abs(room) <= 2 * deviation * math.sqrt(1 + 1 / len(oracle)):
        return None
    return (original - value) / room


@lru_cache(maxsize=1024)
def _moments(values: tuple[float, ...]) -> tuple[float, float]:
    """Return mean and deviation; a study asks for the same oracles' again and again."""
    return statistics.mean(values), statistics.stdev(values)
