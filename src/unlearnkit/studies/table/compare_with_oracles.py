"""Comparison with oracles: mean, interval, gap and judgement of a cell."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from unlearnkit.stats.intervals import t_interval
from unlearnkit.stats.oracle_gap import ENOUGH_FOR_INTERVALS as ENOUGH_ORACLES
from unlearnkit.stats.oracle_gap import ComparisonRule, compare
from unlearnkit.stats.paired_test import ENOUGH_FOR_INTERVALS
from unlearnkit.studies.columns import MetricColumn
from unlearnkit.studies.table_schema import Column, TableCell

Oracles = Mapping[str, list[float]]
"""By metric, one value an oracle."""

Measures = Mapping[str, MetricColumn]
"""Every metric, by id."""


def spread(values: Sequence[float | None]) -> TableCell:
    """Return a cell with the mean and the deviation of what is known."""
    known = [v for v in values if v is not None]
    enough = len(known) > 1 and all_finite(known)
    return TableCell(
        mean=mean(known) if known else None,
        sd=statistics.stdev(known) if enough else None,
        count=len(known),
    )


def make_cell(
    column: Column,
    values: Sequence[float | None],
    oracles: Oracles,
    measures: Measures,
    *,
    one: bool,
    examples: int = 0,
) -> TableCell:
    """Return a cell with interval, gap and judgement; no interval where seeds are ``one`` model."""
    cell = spread(values)
    known = [v for v in values if v is not None]
    enough = len(known) >= ENOUGH_FOR_INTERVALS and all_finite(known) and not one
    if enough:
        low, high = t_interval(known)
        cell = cell.model_copy(update={"low": low, "high": high})
    truth = oracles.get(column.id, [])
    if cell.mean is None or not truth or not all_finite([cell.mean, *truth]):
        return cell
    cell = cell.model_copy(update={"gap": cell.mean - statistics.fmean(truth)})
    if not enough or len(truth) < ENOUGH_ORACLES:
        return cell
    found = gap_fields(measures[column.id], known, truth, examples=examples)
    return cell.model_copy(update=found)


def gap_fields(
    m: MetricColumn, values: Sequence[float], oracles: Sequence[float], *, examples: int = 0
) -> dict[str, object]:
    """Return the judgement of a gap to the oracles as fields of a cell, by the rule of audits."""
    found = compare(values, oracles, rule_of(m), examples=examples)
    assert found is not None
    return {
        "gap_low": found.low,
        "gap_high": found.high,
        "margin": found.margin,
        "p": found.p,
        "judgement": found.judgement,
    }


def rule_of(m: MetricColumn) -> ComparisonRule:
    """Return what of a metric decides how its gap to the oracles is judged."""
    c = m.column
    return ComparisonRule(c.goal, c.unit, m.margin, c.distance, m.path)


def mean(values: Sequence[float]) -> float:
    """Return the mean, exactly the value where all are equal."""
    return values[0] if min(values) == max(values) else statistics.fmean(values)


def all_finite(values: Iterable[float]) -> bool:
    """Return whether all values are finite."""
    return all(map(math.isfinite, values))
