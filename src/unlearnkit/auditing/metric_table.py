"""The audit's table: every metric of the tier, with the oracle's own value for comparison."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from torch import Tensor

from unlearnkit.catalog import metrics
from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.core.evidence import Evidence, ModelRole
from unlearnkit.core.metric import Goal, Metric, Score
from unlearnkit.report.schema import Estimate, MetricRow, OracleValue
from unlearnkit.stats.intervals import clopper_pearson, mean_interval
from unlearnkit.stats.oracle_gap import ComparisonRule, Judgement, closed_share, compare

Reference = tuple[Estimate | None, OracleValue | None]
"""What a number is compared with: the original's value, and the oracles'."""


def metric_rows(
    e: Evidence,
    tier: AuditTier,
    known: dict[str, Reference] | None = None,
    only: frozenset[str] | None = None,
    *,
    robustness: bool = False,
) -> Iterator[MetricRow]:
    """Yield one row for each metric that the tier and the evidence allow, in the audit's order.

    Args:
        e: The evidence; its oracles are the reference.
        tier: ``fast`` reads no oracle.
        known: By metric, what another audit of this tier has found with this original, these
            oracles and these rows; what is not there yet is found and added.
        only: Ids of the metrics that are wanted; all when None.
        robustness: Whether attacks on what was forgotten are among them.

    Yields:
        The rows.
    """
    able = [
        m
        for m in metrics().values()
        if (m.id in only if only is not None else robustness or not m.opt_in)
        and m.serves(e)
        and (m.tier == "fast" or tier != "fast")
    ]
    for m in sorted(able, key=lambda m: (m.section, m.family, m.id)):
        yield _row(m, e, tier, {} if known is None else known)


def _row(m: Metric, e: Evidence, tier: AuditTier, references: dict[str, Reference]) -> MetricRow:
    score = m(e)
    estimate = _estimate(m, score)
    if m.id not in references:
        references[m.id] = _reference(m, e, tier)
    original, oracle = references[m.id]
    known = [] if oracle is None else [v for v in oracle.values if v is not None]
    value = estimate.value
    apart = None
    distance = m.distance
    if value is not None and known:
        apart = compare([value], known, rule_of(m), examples=estimate.examples)
    plain = None if value is None or not known else value - statistics.mean(known)
    return MetricRow(
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
        gap_closed=_closed(value, original, known) if distance else None,
        margin=apart.margin if apart is not None and rule_of(m).judged else None,
        judgement=Judgement.NOT_JUDGED if apart is None else apart.judgement,
        models=len(known),
        doc=m.doc,
        role=str(m.role),
    )


def _reference(m: Metric, e: Evidence, tier: AuditTier) -> Reference:
    if m.goal is Goal.VALUE and (ModelRole.ORACLE not in m.reads or m.path != "exact"):
        return None, None
    original = (
        _estimate(m, m(e.with_candidate(ModelRole.ORIGINAL))) if e.has(ModelRole.ORIGINAL) else None
    )
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
    least = 2 if ModelRole.ORACLE in m.reads else 1
    if e.oracles < least:
        return None
    scores = [m(e.with_candidate(ModelRole.ORACLE, k)).value for k in range(e.oracles)]
    values = tuple(None if math.isnan(v) else v for v in scores)
    known = [v for v in values if v is not None]
    return OracleValue(
        mean=statistics.mean(known) if known else None,
        sd=statistics.stdev(known) if len(known) > 1 else None,
        values=values,
    )


def _closed(value: float | None, original: Estimate | None, oracle: list[float]) -> float | None:
    if value is None or original is None or original.value is None:
        return None
    return closed_share(value, original.value, oracle)


def rule_of(m: Metric) -> ComparisonRule:
    """Return what of a metric decides how its gap to the oracles is judged."""
    return ComparisonRule(m.goal.value, m.unit, m.margin, m.distance, m.path)
