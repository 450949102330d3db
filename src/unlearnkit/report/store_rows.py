"""Store rows: a report's numbers as measurements."""

from __future__ import annotations

from collections.abc import Iterator

from unlearnkit.report.schema import CostComparison, ReportData
from unlearnkit.store import Measurement


def report_measurements(report: ReportData) -> Iterator[Measurement]:
    """Yield every number of a table: for the unlearned model, the original and each oracle."""
    many = () if report.strong is None else report.strong.rows
    for row in (*report.rows, *many):
        e = row.estimate
        yield Measurement(row.metric, "unlearned", e.value, e.low, e.high, e.note, e.examples)
        if row.original is not None:
            o = row.original
            yield Measurement(row.metric, "original", o.value, o.low, o.high, o.note, o.examples)
        for k, value in enumerate(row.oracle.values if row.oracle else ()):
            yield Measurement(row.metric, f"oracle {k}", value)


def cost_measurements(cost: CostComparison) -> Iterator[Measurement]:
    """Yield what unlearning cost: shares of retraining's work, and seconds."""
    yield Measurement("cost_ratio", "unlearned", cost.ratio)
    yield Measurement("cost_backward_ratio", "unlearned", cost.backward_ratio)
    yield Measurement("cost_seconds", "unlearned", cost.seconds)
