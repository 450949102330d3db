"""Which rows of the table verdicts rest on, and how a sentence names them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from unlearnkit.report.schema import MetricRow

KNOWN = ("accuracy_forget", "error_forget")
"""How well the forget rows themselves are answered."""

MATCHED = ("matched_margin_auc",)
"""Attacks that compare rows of like target."""

ATTACKS = (*MATCHED, "margin_auc")
"""The attack that a verdict may rest on, the first that the table has: margins of forget rows
against never-seen rows, of like target where targets are numbers."""

UTILITY = ("accuracy_retain", "accuracy_test", "error_retain", "error_test")
"""What must not be lost."""

OUTSIDE = ("js_forget", "divergence_forget", "margin_spread_forget")
"""Where a model that is no oracle shows: distance to the oracles, and spread of margins."""

COMPARED = (
    *KNOWN,
    "accuracy_test_forget",
    "error_test_forget",
    *UTILITY,
    *ATTACKS,
    "retained_margin_auc",
    "js_forget",
    "divergence_forget",
)
"""Rows on which equivalence with retraining must be shown; fixed before looking. The others are
printed, and would only say the same again. Of the attacks only the first counts."""


def attack_of(rows: Iterable[MetricRow]) -> MetricRow | None:
    """Return the row of the attack that verdicts rest on; None where none could run."""
    table = {r.metric: r for r in rows}
    return next((table[m] for m in ATTACKS if m in table), None)


def format_estimate(row: MetricRow) -> str:
    """Return a row's value and interval: ``0.598 [0.395, 0.773]``."""
    e = row.estimate
    if e.value is None:
        return "undefined"
    between = "" if e.low is None or e.high is None else f" [{e.low:.3f}, {e.high:.3f}]"
    return f"{e.value:.3f}{between}"


LABELS = {
    "accuracy_forget": "accuracy on the forget set",
    "accuracy_retain": "accuracy on the retain set",
    "accuracy_test": "accuracy on the test set",
    "error_forget": "error on the forget set",
    "error_retain": "error on the retain set",
    "error_test": "error on the test set",
    "js_forget": "distance to retraining (Jensen-Shannon, forget set)",
    "divergence_forget": "distance to retraining (forget set)",
    "margin_spread_forget": "spread of margins on the forget set",
    "margin_auc": "membership attack AUC",
    "matched_margin_auc": "membership attack AUC (rows of similar target)",
    "retained_margin_auc": "membership attack AUC of the retain set",
}
"""Names of the metrics that sentences mention most; the others are their ids as words."""


def metric_label(metric: str) -> str:
    """Return a metric's name in a sentence."""
    return LABELS.get(metric, metric.replace("_", " "))


def list_first_three(metrics: Sequence[str]) -> str:
    """Return the first three ids as words, and how many more there are."""
    shown = ", ".join(metric_label(m) for m in metrics[:3])
    more = len(metrics) - 3
    return shown if more <= 0 else f"{shown} and {more} more {'rows' if more > 1 else 'row'}"
