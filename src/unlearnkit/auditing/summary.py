"""Summary of a report: at most eight numbers, each with its judgement."""

from __future__ import annotations

from collections.abc import Sequence

from unlearnkit.report.phrases import judgement_words
from unlearnkit.report.schema import CostComparison, Finding, MetricRow, SummaryRow, Verdict

LINES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Accuracy, forget set", ("accuracy_forget",)),
    ("Error, forget set", ("error_forget",)),
    ("Accuracy, retain set", ("accuracy_retain",)),
    ("Error, retain set", ("error_retain",)),
    ("Accuracy, test set", ("accuracy_test",)),
    ("Error, test set", ("error_test",)),
    ("Distance to retrained", ("js_forget", "divergence_forget", "margin_spread_forget")),
    ("Membership attack AUC", ("matched_margin_auc", "margin_auc")),
)
"""Lines of the summary, and the metrics that may stand there: the first that was measured."""

STRONG_LINES = (
    ("Single-record AUC", ("ulira_auc",)),
    ("Exposed records", ("epsilon_exposed",)),
)
"""Lines that the strong tier adds."""

COST = "Cost (retraining = 1)"

_ADVERSE = {
    Verdict.LEAKS: "leaks",
    Verdict.OVER_FORGOT: "over-forgot",
    Verdict.DISTINGUISHABLE: "differs",
    Verdict.DAMAGED: "damaged",
}


def summary_rows(
    rows: Sequence[MetricRow],
    found: Sequence[Finding],
    spent: CostComparison,
    strong: Sequence[MetricRow] = (),
) -> tuple[SummaryRow, ...]:
    """Return the summary of a report.

    Args:
        rows: The table of the one model.
        found: The findings.
        spent: What unlearning and retraining cost.
        strong: The table of the strong tier.

    Returns:
        At most eight lines; what was not measured is left out.
    """
    accused = {
        m: _ADVERSE[f.verdict] for f in reversed(found) if f.verdict in _ADVERSE for m in f.rows
    }
    lines = [_line(name, ids, rows, accused) for name, ids in LINES]
    lines += [_line(name, ids, strong, accused) for name, ids in STRONG_LINES]
    shown = [x for x in lines if x is not None]
    if spent.ratio is not None:
        words = "cheaper" if spent.ratio < 1 else "not cheaper"
        shown.append(
            SummaryRow(name=COST, metric="", model=spent.ratio, retrained=1.0, judgement=words)
        )
    return tuple(shown)


def _line(
    name: str, ids: Sequence[str], rows: Sequence[MetricRow], accused: dict[str, str]
) -> SummaryRow | None:
    table = {r.metric: r for r in rows}
    row = next((table[m] for m in ids if m in table), None)
    if row is None:
        return None
    return SummaryRow(
        name=name,
        metric=row.metric,
        model=row.estimate.value,
        low=row.estimate.low,
        high=row.estimate.high,
        original=None if row.original is None else row.original.value,
        retrained=None if row.oracle is None else row.oracle.mean,
        judgement=accused.get(row.metric) or judgement_words(row),
    )
