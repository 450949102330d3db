"""The metrics that there are, as tables know them."""

from __future__ import annotations

from unlearnkit.catalog import metrics
from unlearnkit.core.metric import Metric
from unlearnkit.studies.columns import MetricColumn, first_paragraph
from unlearnkit.studies.table_schema import Column


def measures() -> dict[str, MetricColumn]:
    """Return what a table must know of every metric, by id."""
    return {i: _measure(m) for i, m in metrics().items()}


def _measure(m: Metric) -> MetricColumn:
    column = Column(
        id=m.id,
        goal=m.goal.value,
        ideal=m.ideal,
        distance=m.distance,
        unit=m.unit,
        doc=first_paragraph(m.doc),
    )
    return MetricColumn(column=column, path=m.path, margin=m.margin)
