"""The rows of the strong table: what each number is, and how it becomes a line of a report."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from unlearnkit.auditing.strong.metric_specs import kind_of
from unlearnkit.report.schema import Estimate, Judgement, MetricRow, OracleValue
from unlearnkit.stats.intervals import mean_interval, tost, two_sample_t
from unlearnkit.stats.oracle_gap import LEAST_MARGIN

AUC_MARGIN = 0.02
"""Largest difference of an AUC from that of retrained models which counts as none."""


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


def margin_of(metric: str, mean: float, deviation: float) -> float:
    """Return the largest difference from retrained models that counts as none.

    0.02 for an AUC; for accuracies and errors two deviations over retrained models, and at least a
    hundredth (of the error).

    Args:
        metric: The number.
        mean: Over retrained models.
        deviation: Over retrained models.

    Returns:
        The margin, above 0.
    """
    if "auc" in metric:
        return AUC_MARGIN
    least = LEAST_MARGIN if "accuracy" in metric else LEAST_MARGIN * abs(mean)
    return max(2 * deviation, least, 1e-12)


def make_row(
    metric: str,
    number: EnsembleEstimate,
    original: EnsembleEstimate | None,
    floor: EnsembleEstimate,
    *,
    examples: int,
    models: int,
    light: Judgement = "none",
) -> MetricRow:
    """Return a line of the table.

    Args:
        metric: One of ``KINDS``.
        number: Of the unlearned models.
        original: Of the originals in their seat; None where that says nothing.
        floor: Of the second set of retrained models in their seat.
        examples: Rows behind it.
        models: Models in the seat.
        light: The judgement, where it is not equivalence over models.

    Returns:
        The line. Where there is one value a model, the gap has a two-sample interval, and the light
        says whether two one-sided tests show equivalence with retraining.
    """
    kind = kind_of(metric)
    ours, theirs = number.each, floor.each
    gap = low = high = None
    if not (math.isnan(number.value) or math.isnan(floor.value)):
        gap = number.value - floor.value
    if gap is not None and ours is not None and theirs is not None and len(ours) + len(theirs) > 3:
        a, b = ours.tolist(), theirs.tolist()
        apart = two_sample_t(a, b)
        low, high = apart.low, apart.high
        margin = margin_of(metric, floor.value, float(theirs.std()))
        beyond = low > margin or high < -margin
        light = "good" if tost(a, b, margin).holds else "bad" if beyond else "unclear"
    sd = None if theirs is None or len(theirs) < 2 else float(theirs.std())
    return MetricRow(
        metric=metric,
        family=kind.family,
        goal=kind.goal,
        ideal=known(floor.value) if kind.goal == "match retraining" else None,
        unit=kind.unit,
        path="exact",
        section=kind.section,
        estimate=estimate_of(number, examples),
        original=None if original is None else estimate_of(original, examples),
        oracle=OracleValue(mean=known(floor.value), sd=sd, values=(known(floor.value),)),
        gap=gap,
        gap_low=low,
        gap_high=high,
        z=None if gap is None or not sd else gap / sd,
        light=light,
        models=models,
        doc=kind.doc,
    )


def estimate_of(number: EnsembleEstimate, examples: int) -> Estimate:
    """Return a number as a report has it."""
    value = known(number.value)
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


def known(value: float) -> float | None:
    """Return a number, or None where it is undefined."""
    return None if math.isnan(value) else value
