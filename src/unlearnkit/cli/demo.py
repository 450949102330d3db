"""Demo: two requests on the digits, unlearned, retrained and audited."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from unlearnkit.cli.console import Console
from unlearnkit.cli.runs import PAGE, REPORT, run_audit, run_unlearn
from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.job import Job
from unlearnkit.report.phrases import number, step_text, verdict_text
from unlearnkit.report.render_text import terminal_width
from unlearnkit.report.report import Report
from unlearnkit.report.terminal import table_lines, wrap

SHOWN = {"class": ("relabel", "retrain"), "random_tenth": ("relabel", "retrain")}
"""Requests of the digits case, and the methods that each is shown with: one, and the exact one."""

HEAD = ("Method", "Verdict", "Forget", "Test", "Distance", "Attack AUC", "Cost")

_COLUMNS = ("accuracy_forget", "accuracy_test", "js_forget", "margin_auc")

LEGEND = (
    "Forget, Test: accuracy on the forget set and on the test set. Distance: from retrained models,"
    " 0 = none. Attack AUC: membership attack on the forget set. Cost: share of retraining."
    " retrained: mean of five models trained without the forget set."
)


def demo(root: Path, talk: Console) -> dict[Path, Report]:
    """Unlearn, retrain, audit and report each shown request; return the reports by run folder."""
    torch.set_num_threads(1)  # networks this small only lose by sharing a step over cores
    found = {}
    for request, methods in SHOWN.items():
        for method in methods:
            talk.say(f"digits, forget {request} with {method}")
            out = root / (request if method == methods[0] else f"{request}_{method}")
            run_unlearn(
                Job(case="digits", forget=request, method=method), out, force=True, talk=talk
            )
            found[out] = run_audit(out, tier=AuditTier.REFERENCE, oracles=5, device=None, talk=talk)
    return found


def demo_text(found: dict[Path, Report], width: int | None = None) -> str:
    """Return what the demo found in at most 40 lines."""
    wide = terminal_width() if width is None else width
    out: list[str] = []
    for request in dict.fromkeys(r.request_summary.request for r in found.values()):
        reports = [r for r in found.values() if r.request_summary.request == request]
        first = reports[0]
        out += wrap(f"digits: {request}", width=wide)
        rows = [_cells(r) for r in reports]
        out += table_lines(HEAD, [*rows, _retrained(first)], width=wide, numbers=range(2, 7))
        out += wrap(verdict_text(first), f"{first.provenance.method}: ", wide)
        for step in first.next_steps[:1]:
            out += wrap(step_text(step), "Next: ", wide)
        out.append("")
    out += wrap(LEGEND, width=wide)
    pages = [p for f in found for p in (f / PAGE, f / REPORT) if p.exists()]
    kind = pages[0].suffix if pages else ""
    shown = [str(p) for p in pages if p.suffix == kind][:: len(SHOWN["class"])]
    return "\n".join([*out, *wrap(" and ".join(shown), "Open ", wide)])


def _cells(report: Report) -> list[str]:
    table = {r.metric: r for r in report.rows}
    values = [table[m].estimate.value if m in table else None for m in _COLUMNS]
    method, verdict = report.provenance.method, report.verdict.value
    return [method, verdict, *_numbers(values), number(report.cost.ratio, 2)]


def _retrained(report: Report) -> list[str]:
    table = {r.metric: r.oracle for r in report.rows}
    means = [None if (o := table.get(m)) is None else o.mean for m in _COLUMNS]
    return ["retrained", "", *_numbers(means), "1.00"]


def _numbers(values: Sequence[float | None]) -> list[str]:
    places = [4 if metric == "js_forget" else 3 for metric in _COLUMNS]
    return [number(v, n) for v, n in zip(values, places, strict=True)]
