"""One number of a study's table: its spread over seeds, and what may be said of its gap."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from unlearnkit.stats.intervals import interval_of_few, tost, two_sample_t
from unlearnkit.stats.oracle_gap import ENOUGH_FOR_INTERVALS as ENOUGH_ORACLES
from unlearnkit.stats.oracle_gap import equivalence_margin, gap
from unlearnkit.stats.paired_test import ENOUGH_FOR_INTERVALS
from unlearnkit.studies.columns import MetricColumn
from unlearnkit.studies.table_schema import Column, Judged, TableCell

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
) -> TableCell:
    """Return a cell with its interval, gap and judgement.

    Args:
        column: Of the cell.
        values: One a seed.
        oracles: By metric.
        measures: The metrics, by id.
        one: Whether the seeds are one model: a point has no interval.

    Returns:
        The cell.
    """
    cell = spread(values)
    known = [v for v in values if v is not None]
    enough = len(known) >= ENOUGH_FOR_INTERVALS and all_finite(known) and not one
    if enough:
        low, high = interval_of_few(known)
        cell = cell.model_copy(update={"low": low, "high": high})
    truth = oracles.get(column.id, [])
    if cell.mean is None or not truth or not all_finite([cell.mean, *truth]):
        return cell
    cell = cell.model_copy(update={"gap": cell.mean - statistics.fmean(truth)})
    if not enough or len(truth) < ENOUGH_ORACLES:
        return cell
    return cell.model_copy(update=compare(measures[column.id], known, truth))


def compare(m: MetricColumn, values: Sequence[float], truth: Sequence[float]) -> dict[str, object]:
    """Return what may be said about a method's gap to the oracles.

    The margin and the deviation of distances are those of an audit. A distance to the oracles that
    is smaller than two oracles' own is no fault: there only the far side is tested.

    Args:
        m: A metric.
        values: One a seed, three or more.
        truth: One an oracle, three or more.

    Returns:
        ``gap_low``, ``gap_high``, ``margin``, ``p`` and ``judged`` of a cell.
    """
    column = m.column
    apart = gap(statistics.fmean(values), list(truth), distance=column.distance)
    assert apart is not None
    centre = apart.mean
    stretch = (len(truth) - 1) / (len(truth) - 2) if column.distance else 1.0
    stretched = [centre + (v - centre) * stretch for v in truth]
    wide = two_sample_t(values, stretched)
    margin = equivalence_margin(m.margin, column.unit, apart)
    said: dict[str, object] = {"gap_low": wide.low, "gap_high": wide.high, "margin": margin}
    if (
        m.path == "compat"
        or not (column.distance or column.goal == "match retraining")
        or not margin > 0
    ):
        return said
    test = tost(values, stretched, margin)
    below_is_fine = column.distance and column.goal == "low"
    above_is_fine = column.distance and column.goal == "high"
    near = test.difference
    judged: Judged = "open"
    if (below_is_fine or near.low > -margin) and (above_is_fine or near.high < margin):
        judged = "equivalent"
    elif (wide.low > margin and not above_is_fine) or (wide.high < -margin and not below_is_fine):
        judged = "beyond"
    one_sided = below_is_fine or above_is_fine
    return {**said, "p": None if one_sided else test.p, "judged": judged}


def mean(values: Sequence[float]) -> float:
    """Return the mean, exactly the value where all are equal."""
    return values[0] if min(values) == max(values) else statistics.fmean(values)


def all_finite(values: Iterable[float]) -> bool:
    """Return whether all values are finite."""
    return all(map(math.isfinite, values))
