"""The rows of the strong table: what each number is, and how it becomes a line of a report."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from unlearnkit.catalog import metrics
from unlearnkit.core.metric import Goal
from unlearnkit.report.schema import Estimate, MetricRow, OracleValue
from unlearnkit.stats.intervals import mean_interval
from unlearnkit.stats.oracle_gap import ComparisonRule, Judgement, compare


@dataclass(frozen=True)
class EnsembleEstimate:
    """One number of one set of models; nan where it is undefined, and then the note says why."""

    value: float
    each: Tensor | None = None
    """One value a model, whose mean is the number."""

    low: float = math.nan
    high: float = math.nan
    how: str = ""
    """How the interval was made."""

    note: str = ""

    @classmethod
    def mean(cls, each: Tensor, note: str = "") -> EnsembleEstimate:
        """Return a mean over models, with Student's interval."""
        known = each[~each.isnan()]
        if not len(known):
            return cls(math.nan, each, note=note or "no model has it")
        low, high = mean_interval(known)
        how = "Student's t over models" if math.isfinite(low) else ""
        return cls(float(known.mean()), known, low, high, how, note)


def make_row(
    metric: str,
    number: EnsembleEstimate,
    original: EnsembleEstimate | None,
    floor: EnsembleEstimate,
    *,
    examples: int,
    models: int,
    judgement: Judgement = Judgement.NOT_JUDGED,
) -> MetricRow:
    """Return a line of the table.

    Args:
        metric: Id of a metric of tier strong.
        number: Of the unlearned models.
        original: Of the originals, measured as unlearned models; None where that says nothing.
        floor: Of the second set of retrained models, measured in the same way.
        examples: Rows behind it.
        models: Models that are measured.
        judgement: Where it does not come from the gap over models.

    Returns:
        The line. Where there is one value a model, the gap is judged over models as that of a
        study's table is over seeds.
    """
    m = metrics()[metric]
    ours, theirs = number.each, floor.each
    gap = None
    if not (math.isnan(number.value) or math.isnan(floor.value)):
        gap = number.value - floor.value
    apart = None
    if gap is not None and ours is not None and theirs is not None:
        rule = ComparisonRule(m.goal.value, m.unit, m.margin)
        apart = compare(ours.tolist(), theirs.tolist(), rule, examples=examples)
    sd = None if theirs is None or len(theirs) < 2 else float(theirs.std())
    reference = finite_or_none(floor.value)
    return MetricRow(
        metric=metric,
        family=m.family,
        goal=m.goal.value,
        ideal=reference if m.goal is Goal.ORACLE else None,
        unit=m.unit,
        path="exact",
        section=m.section,
        estimate=estimate_of(number, examples),
        original=None if original is None else estimate_of(original, examples),
        oracle=OracleValue(mean=reference, sd=sd, values=(reference,)),
        gap=gap,
        gap_low=None if apart is None else apart.low,
        gap_high=None if apart is None else apart.high,
        z=None if gap is None or not sd else gap / sd,
        margin=None if apart is None else apart.margin,
        judgement=judgement if apart is None else apart.judgement,
        models=models,
        doc=m.doc,
        role=str(m.role),
    )


def estimate_of(number: EnsembleEstimate, examples: int) -> Estimate:
    """Return a number as a report has it."""
    value = finite_or_none(number.value)
    ends = (number.low, number.high)
    told = value is not None and not any(map(math.isnan, ends)) and all(map(math.isfinite, ends))
    return Estimate(
        value=value,
        low=ends[0] if told else None,
        high=ends[1] if told else None,
        method=number.how if told else "",
        examples=examples,
        note=number.note,
    )


def finite_or_none(value: float) -> float | None:
    """Return a number, or None where it is undefined."""
    return None if math.isnan(value) else value
