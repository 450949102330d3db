"""The audit's table: every metric of the tier, with the oracle's own value beside it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor

from unlearnkit.catalog import metrics
from unlearnkit.core.evidence import Evidence, Who
from unlearnkit.core.metric import Goal, Metric, Score, Tier
from unlearnkit.report.model import Estimate, Light, OracleValue, Row
from unlearnkit.stats.intervals import (
    clopper_pearson,
    mean_interval,
    student,
    student_p,
    student_reach,
)

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


Beside = tuple[Estimate | None, OracleValue | None]
"""What stands beside a number: the original's value, and the oracles'."""


def table(e: Evidence, tier: Tier, beside: dict[str, Beside] | None = None) -> Iterator[Row]:
    """Yield one row for each metric that the tier and the evidence allow, in the audit's order.

    Args:
        e: The evidence; its oracles are the reference.
        tier: ``fast`` reads no oracle.
        beside: By metric, what another audit of this tier has found with this original, these
            oracles and these rows; what is not there yet is found and added.

    Yields:
        The rows.
    """
    able = [m for m in metrics().values() if m.serves(e) and (m.tier == "fast" or tier != "fast")]
    for m in sorted(able, key=lambda m: (m.section, m.family, m.id)):
        yield _row(m, e, tier, {} if beside is None else beside)


def _row(m: Metric, e: Evidence, tier: Tier, beside: dict[str, Beside]) -> Row:
    score = m(e)
    estimate = _estimate(m, score)
    if m.id not in beside:
        beside[m.id] = _beside(m, e, tier)
    original, oracle = beside[m.id]
    known = [] if oracle is None else [v for v in oracle.values if v is not None]
    value = estimate.value
    apart = None
    distance = m.distance
    if value is not None and known:
        least = one_row(m.unit, estimate.examples)
        apart = gap(value, known, least=least, distance=distance)
    plain = None if value is None or not known else value - statistics.mean(known)
    return Row(
        metric=m.id,
        family=m.family,
        goal=str(m.goal),
        ideal=_ideal(m, oracle),
        unit=m.unit,
        path=m.path,
        section=m.section,
        estimate=estimate,
        original=original,
        oracle=oracle,
        gap=plain,
        gap_low=None if apart is None else apart.low,
        gap_high=None if apart is None else apart.high,
        z=None if apart is None or apart.deviation == 0 else apart.value / apart.deviation,
        floor=oracle.mean if oracle and distance else None,
        closed=_closed(value, original, known) if distance else None,
        light=_light(m, apart),
        models=len(known),
        doc=m.doc,
    )


def _beside(m: Metric, e: Evidence, tier: Tier) -> Beside:
    if m.goal is Goal.VALUE and (Who.ORACLE not in m.reads or m.path != "exact"):
        return None, None
    original = _estimate(m, m(e.seat(Who.ORIGINAL))) if e.has(Who.ORIGINAL) else None
    return original, None if tier == "fast" else _oracle(m, e)


def _ideal(m: Metric, oracle: OracleValue | None) -> float | None:
    if m.ideal is not None or m.goal is Goal.VALUE or oracle is None:
        return m.ideal
    return oracle.mean


def _estimate(m: Metric, score: Score) -> Estimate:
    value = None if math.isnan(score.value) else score.value
    count = 0 if score.rows is None else len(score.rows)
    low: float | None = None
    high: float | None = None
    how = ""
    if score.interval is not None and value is not None:
        (low, high), how = score.interval, score.method
    elif score.rows is not None and count > 1 and value is not None:
        if _is_rate(score.rows):
            low, high = clopper_pearson(int(score.rows.sum()), count)
            how = "Clopper-Pearson over rows"
        else:
            low, high = mean_interval(score.rows)
            how = "Student t over rows"
        low, high = max(low, m.low), min(high, m.high)
    return Estimate(value=value, low=low, high=high, method=how, examples=count, note=score.note)


def _is_rate(rows: Tensor) -> bool:
    return bool(((rows == 0) | (rows == 1)).all())


def _oracle(m: Metric, e: Evidence) -> OracleValue | None:
    least = 2 if Who.ORACLE in m.reads else 1
    if e.oracles < least:
        return None
    scores = [m(e.seat(Who.ORACLE, k)).value for k in range(e.oracles)]
    values = tuple(None if math.isnan(v) else v for v in scores)
    known = [v for v in values if v is not None]
    return OracleValue(
        mean=statistics.mean(known) if known else None,
        sd=statistics.stdev(known) if len(known) > 1 else None,
        values=values,
    )


def one_row(unit: str, examples: int) -> float:
    """Return what one row weighs in a fraction of rows: no deviation of it is known finer."""
    return 1 / examples if unit == "fraction" and examples else 0.0


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
    wide = student(0.95, count - 1) * s * math.sqrt(1 + 1 / count)
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


def equivalence_margin(m: Metric, apart: Gap) -> float:
    """Return the largest difference from the mean oracle that counts as none.

    The metric's own, or two oracle deviations; for fractions at least a hundredth, because the
    deviation of a saturated fraction is 0; for errors at least a hundredth of the oracles' error.

    Args:
        m: The metric.
        apart: The gap.

    Returns:
        The margin, in the metric's unit.
    """
    if m.margin is not None:
        return m.margin
    least = {"fraction": LEAST_MARGIN, "as targets": LEAST_MARGIN * abs(apart.mean)}
    return max(2 * apart.deviation, least.get(m.unit, 0.0))


def closed_share(value: float, original: float, oracle: list[float]) -> float | None:
    """Return the share of the original's distance to the oracles that was closed.

    ``(d(o,r) - d(u,r)) / (d(o,r) - d(r,r'))``; refused where the denominator is within two standard
    errors of 0 (evaluation by this metric cannot tell the original from an oracle).

    Args:
        value: d(u,r).
        original: d(o,r).
        oracle: d(r,r') with each oracle in the seat.

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


def _closed(value: float | None, original: Estimate | None, oracle: list[float]) -> float | None:
    if value is None or original is None or original.value is None:
        return None
    return closed_share(value, original.value, oracle)


def _light(m: Metric, apart: Gap | None) -> Light:
    compared = m.goal is Goal.ORACLE or m.distance
    if not compared or apart is None or m.path == "compat":
        return "none"
    margin = equivalence_margin(m, apart)
    good_low = Who.ORACLE in m.reads and m.goal is Goal.LOW
    good_high = Who.ORACLE in m.reads and m.goal is Goal.HIGH
    inside = (good_low or apart.tight_low > -margin) and (good_high or apart.tight_high < margin)
    if inside:
        return "good"
    beyond = (apart.low > margin and not good_high) or (apart.high < -margin and not good_low)
    return "bad" if beyond else "unclear"
