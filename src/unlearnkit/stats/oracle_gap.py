"""How far a number is from that of oracles, and which gap counts as none."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Literal

from unlearnkit.stats.intervals import t_half_width, t_p_value, t_quantile, tost, two_sample_t

ENOUGH_FOR_INTERVALS = 3
"""Oracles from which on a deviation over models, and so any interval of a gap, is shown."""

ENOUGH_FOR_EQUIVALENCE = 5
"""Oracles from which on a model may be said to match retraining."""

LEAST_MARGIN = 0.01
"""Smallest margin where it is given in oracle deviations: these can be 0 on saturated metrics."""

ROUNDING = 1e-12
"""Smallest margin as a share of the values: sums of equal floats differ in their last bits."""


class Judgement(StrEnum):
    """What may be said of the gap between a model, or a method, and retrained models."""

    EQUIVALENT = "equivalent"
    """Two one-sided tests at level 0.05 put the gap inside the margin."""

    DIFFERENT = "different"
    """The 95 % interval of the gap lies outside the margin."""

    NOT_SHOWN = "not shown"
    """Neither of the two is shown."""

    NOT_JUDGED = "not judged"
    """It is not compared with retrained models, or there are too few of them."""


@dataclass(frozen=True)
class ComparisonRule:
    """What of a metric decides how its gap to the oracles is judged."""

    goal: Literal["high", "low", "match retraining", "descriptive"]
    unit: str
    margin: float | None
    """The metric's own margin; from the oracles' deviation when None."""

    distance: bool = False
    """Whether it is a distance to the oracles: nearer than an oracle is no fault."""

    path: Literal["exact", "compat"] = "exact"

    @property
    def judged(self) -> bool:
        """Return whether a gap of this metric is judged at all."""
        return self.path == "exact" and (self.distance or self.goal == "match retraining")

    @property
    def low_is_fine(self) -> bool:
        """Return whether a value below the oracles' is no fault."""
        return self.distance and self.goal == "low"

    @property
    def high_is_fine(self) -> bool:
        """Return whether a value above the oracles' is no fault."""
        return self.distance and self.goal == "high"


@dataclass(frozen=True)
class GapComparison:
    """The gap of a model, or of several, to the oracles, and its judgement."""

    value: float
    """Mean of the candidates minus mean of the oracles."""

    low: float
    high: float
    """95 % interval of the gap; for one model that of a further oracle's gap."""

    deviation: float
    """Of the oracles."""

    margin: float
    p: float | None
    """Of the two one-sided tests; None where only one side is tested, or for one model."""

    judgement: Judgement


def compare(
    values: Sequence[float],
    oracles: Sequence[float],
    rule: ComparisonRule,
    *,
    examples: int = 0,
) -> GapComparison | None:
    """Compare a model, or several models of a method, with the oracles.

    This is the one rule of reports, of strong audits and of study tables. One value is the model
    at hand, which is given: only the oracles show a spread (``gap``). Several values are a sample
    of models of one method: Student's two-sample intervals. Distances to the oracles have their
    deviation enlarged as in ``gap``.

    Args:
        values: One a model, finite.
        oracles: One an oracle, finite.
        rule: What of the metric decides.
        examples: Rows behind each value, which bound the deviation of a fraction from below
            (``resolution``); 0 where they are not known.

    Returns:
        The comparison; None for fewer than three oracles, or without a value.
    """
    if not values:
        return None
    mean, least = math.fsum(values) / len(values), resolution(rule.unit, examples)
    apart = gap(mean, list(oracles), least=least, distance=rule.distance)
    if apart is None:
        return None
    margin = equivalence_margin(rule.margin, rule.unit, apart)
    p = None
    wide, tight = (apart.low, apart.high), (apart.tight_low, apart.tight_high)
    if len(values) > 1:
        stretch = (len(oracles) - 1) / (len(oracles) - 2) if rule.distance else 1.0
        stretched = [apart.mean + (v - apart.mean) * stretch for v in oracles]
        both = [two_sample_t(values, stretched, level) for level in (0.95, 0.9)]
        wide, tight = ((d.low, d.high) for d in both)
        if rule.judged and margin > 0 and not (rule.low_is_fine or rule.high_is_fine):
            p = tost(values, stretched, margin).p
    rounding = ROUNDING * max(map(abs, [*values, *oracles]))
    judgement = Judgement.NOT_JUDGED
    if rule.judged:
        judgement = judge_gap(*wide, *tight, max(margin, rounding), rule)
    return GapComparison(apart.value, *wide, apart.deviation, margin, p, judgement)


def resolution(unit: str, examples: int) -> float:
    """Return what one row weighs in a fraction of rows: no deviation of it is known finer."""
    return 1 / examples if unit == "fraction" and examples else 0.0


def judge_gap(
    low: float,
    high: float,
    tight_low: float,
    tight_high: float,
    margin: float,
    rule: ComparisonRule,
) -> Judgement:
    """Return the judgement of a gap.

    Args:
        low: Lower end of the 95 % interval.
        high: Upper end of it.
        tight_low: Lower end of the 90 % interval, for two one-sided tests at level 0.05.
        tight_high: Upper end of it.
        margin: Largest gap that counts as none; the ends of the interval may touch it, so that a
            gap of 0 without spread is equivalent whatever the margin.
        rule: Tells on which sides a gap is a fault.

    Returns:
        The judgement.
    """
    if (rule.low_is_fine or tight_low >= -margin) and (rule.high_is_fine or tight_high <= margin):
        return Judgement.EQUIVALENT
    if (low > margin and not rule.high_is_fine) or (high < -margin and not rule.low_is_fine):
        return Judgement.DIFFERENT
    return Judgement.NOT_SHOWN


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
    tight = t_half_width(count, 0.9) * s
    return Gap(g, g - wide, g + wide, g - tight, g + tight, s, value - g)


def outlying(
    value: float, oracle: list[float], *, distance: bool = False, least: float = 0.0
) -> float | None:
    """Return the p-value of a candidate being one more oracle, two-sided; None below three.

    ``t = (value - mean) / (s sqrt(1 + 1/K))`` with K - 1 degrees of freedom: exact if the metric
    is normal over training seeds.

    Args:
        value: The candidate's.
        oracle: The oracles', K of them.
        distance: As in ``gap``.
        least: As in ``gap``.

    Returns:
        The p-value.
    """
    apart = gap(value, oracle, distance=distance, least=least)
    if apart is None:
        return None
    if apart.deviation == 0:
        return 1.0 if apart.value == 0 else 0.0
    t = apart.value / (apart.deviation * math.sqrt(1 + 1 / len(oracle)))
    return t_p_value(t, len(oracle) - 1)


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
