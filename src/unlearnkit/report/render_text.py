"""Report text: the summary or the whole report, for a terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from unlearnkit.report import mask_section as masks
from unlearnkit.report import phrases as w
from unlearnkit.report import strong_section as ensembles
from unlearnkit.report.schema import (
    ArmComparison,
    Estimate,
    MetricRow,
    ReportData,
    StrongSummary,
    as_sentence,
)
from unlearnkit.report.terminal import WIDTH, heading, table_lines, wrap

_SHOWN = 20
"""Most exposed rows that are printed."""

CUT = " [...]"

BRIEF_LINES = 30
"""Most lines of a brief report."""


def terminal_width() -> int:
    """Return the width of the terminal, of at least 40 columns; 100 where there is none."""
    if not sys.stdout.isatty():
        return WIDTH
    return max(40, shutil.get_terminal_size((WIDTH, 24)).columns)


def render_brief(report: ReportData, width: int | None = None) -> str:
    """Return both answers, verdict, next steps and summary, 30 lines; a cut ends in ``[...]``."""
    wide = terminal_width() if width is None else width
    request = report.request_summary
    about = f"{request.case}: {request.request}, {report.provenance.method}"
    head = wrap(about, width=wide)[:2]
    verdict = wrap(w.verdict_text(report), width=wide)
    steps = [x for s in report.next_steps for x in wrap(w.step_text(s), "Next: ", wide)]
    lines = table_lines(
        w.SUMMARY_HEAD, [w.summary_cells(r) for r in report.summary], width=wide, numbers=(1, 2, 3)
    )
    said = [
        x for a in report.answers for x in _cut(wrap(w.answer_text(a), width=wide - len(CUT)), 2)
    ]
    said += [""] if said else []
    if kinds := w.evidence_text(report):
        head += _cut(wrap(kinds, width=wide - len(CUT)), 2)
    told = w.recipe_text(report)
    if told:
        head += ["", *_cut(wrap(told, width=wide - len(CUT)), 4)]
    room = BRIEF_LINES - len(head) - len(said) - len(verdict) - len(steps) - len(lines) - 4
    why = _cut(wrap(w.reason_text(report), "Why: ", wide), max(1, min(4, room)))
    room -= len(why)
    notes = [x for t in report.warnings for x in wrap(t, f"{w.warning_label(report, t)}: ", wide)]
    rest = _more(report)
    out = [*head, "", *said, *verdict, *why, *steps, "", *lines]
    if room > 0:
        out += _cut(notes, room)
    return "\n".join([*out[: BRIEF_LINES - 1], rest])


def _cut(lines: list[str], most: int) -> list[str]:
    """Return at most some lines; where there were more, the last one says so."""
    if len(lines) <= most:
        return lines
    return [*lines[: most - 1], lines[most - 1] + CUT]


def _more(report: ReportData) -> str:
    others = len(report.findings) - 1
    found = f"{others} more finding{'s' if others > 1 else ''}, " if others else ""
    return f"({found}{len(report.rows)} metrics, limits and provenance: audit --full)"


def render_text(report: ReportData, width: int = WIDTH) -> str:
    """Return the whole report as plain text without colour or control characters."""
    p = report.provenance
    about = f"{report.request_summary.case}: {report.request_summary.request}, {p.method}"
    out = [*wrap(f"UNLEARNING AUDIT  {about}", width=width), "=" * width, ""]
    for told in filter(None, (w.evidence_text(report), w.recipe_text(report))):
        out += [*wrap(told, width=width), ""]
    out += _answers(report, width)
    out += [*wrap(w.verdict_text(report), width=width), ""]
    out += wrap(" ".join([w.reason_text(report), *report.remarks]), "  ", width)
    for f in report.findings[1:]:
        out += wrap(f"{f.verdict.value}: {f.reason}", "  - ", width)
    for text in report.warnings:
        out += wrap(f"{w.warning_label(report, text)}: {text}", "  ! ", width)
    if report.next_steps:
        out += heading("What to do next")
        out += [x for s in report.next_steps for x in wrap(w.step_text(s), "  - ", width)]
    out += _evidence(report, width)
    if report.summary:
        out += heading("Summary")
        cells = [w.summary_cells(r) for r in report.summary]
        out += table_lines(w.SUMMARY_HEAD, cells, width=width, numbers=(1, 2, 3))
    out += _ensembles(report, width)
    out += _table(report.rows, w.LEGEND if w.has_retrained(report.rows) else w.NO_ORACLE, width)
    out += heading("Request")
    out += _pairs(w.request_lines(report.request_summary), width)
    for name, size in report.request_summary.headroom.items():
        value = w.UNDEFINED if size is None else f"{w.number(size, 1)} standard deviations"
        out += wrap(f"headroom of {name}: {value}", "  - ", width)
    if report.mask is not None:
        out += heading("Mask: the parameters that could change")
        out += _pairs(masks.mask_facts(report.mask), width)
        for name, scalars, chosen, share, _ in masks.layer_rows(report.mask):
            out += wrap(f"{name}: {share}, {chosen} of {scalars}", "  - ", width)
    out += heading("Cost")
    out += table_lines(w.COST_HEAD, w.cost_lines(report.cost), width=width, numbers=(1, 2))
    out += wrap(w.cost_sentence(report.cost), width=width)
    out += _recipe(report, width)
    out += heading("Provenance")
    out += _pairs(w.provenance_lines(report), width)
    settings = w.settings_lines(p.settings)
    out += [ln for k, v in settings for ln in wrap(f"{k} = {v}", "  - ", width)]
    out += [ln for note in p.notes for ln in wrap(note, "  ! ", width)]
    out += heading("What this audit cannot show")
    for text in report.limits or ("No limit was named.",):
        out += wrap(text, "  - ", width)
    return "\n".join(ln.rstrip() for ln in out)


def _evidence(report: ReportData, width: int) -> list[str]:
    """Return each kind of evidence under a heading of its own; nothing for an audit alone."""
    if not w.guarantees(report):
        return []
    out = []
    for s in report.evidence:
        out += heading(f"{s.kind} evidence")
        out += wrap(as_sentence(s.statement), width=width)
        out += wrap(w.KINDS[s.kind], width=width)
        out += _pairs([("Source", s.source), *w.evidence_numbers(s)], width)
        out += [x for note in s.notes for x in wrap(note, "  ! ", width)]
        if s.kind == "empirical":
            continue  # its limits have a section of their own
        out += wrap("It assumes:", width=width)
        out += [x for text in s.assumptions for x in wrap(text, "  - ", width)]
    return out


def _recipe(report: ReportData, width: int) -> list[str]:
    """Return the quantities of the recipe check, and what it cost."""
    check = report.recipe
    if check is None or check.outcome == "not checked":
        return []
    out = [*heading("Recipe check"), *wrap(as_sentence(check.sentence), width=width)]
    if check.measures:
        cells = w.recipe_lines(check)
        out += table_lines(w.RECIPE_HEAD, cells, width=width, numbers=(1, 2, 3))
    return [*out, *wrap(w.recipe_cost(check), width=width)]


def _ensembles(report: ReportData, width: int) -> list[str]:
    """Return what ensembles or placebo models show, and the heading of the one model's table."""
    if report.strong is not None:
        real = report.request_summary.task == "regression"
        return [*_strong(report.strong, real, width), *heading("What this one model shows")]
    out = []
    if report.arms:
        out += heading("Memory and signature")
        out += _arms(report.arms, ensembles.ONE_MODEL_LEGEND, width)
    return [*out, *heading(f"All metrics ({w.TIERS[report.tier]})")]


def _answers(report: ReportData, width: int) -> list[str]:
    """Return the answers to the two questions, each with what its test could have seen."""
    texts = [f"{w.answer_text(a)} {a.power}".rstrip() for a in report.answers]
    return [*(x for text in texts for x in wrap(text, width=width)), *([""] if texts else [])]


def _arms(arms: Sequence[ArmComparison], legend: str, width: int) -> list[str]:
    """Return the comparisons of arms of models."""
    lines = table_lines(
        ensembles.ARMS_HEAD, ensembles.arm_lines(arms), width=width, numbers=range(2, 10), space=1
    )
    return [*lines, *wrap(legend, width=width)]


def _strong(strong: StrongSummary, real: bool, width: int) -> list[str]:
    """Return the table of ensembles, thirds of the forget set, and the exposed records."""
    out = heading(ensembles.title(strong))
    legend = f"{ensembles.LEGEND} {ensembles.REAL_LEGEND}" if real else ensembles.LEGEND
    if strong.arms:
        out += [*_arms(strong.arms, ensembles.arms_legend(strong), width), ""]
    out += _table(strong.rows, legend, width, "this method")
    strata = ensembles.strata(strong)
    if strata:
        out += heading("Thirds of the forget set")
    for order, thirds in strata:
        head = ensembles.STRATA_HEAD
        out += ["", *wrap(order, width=width)]
        out += table_lines(head, thirds, width=width, numbers=range(1, len(head)))
    out += heading("Exposed records")
    out += wrap(ensembles.exposed_sentence(strong), width=width)
    lines = ensembles.exposed_lines(strong, _SHOWN)
    if lines:
        out += table_lines(ensembles.EXPOSED_HEAD, lines, width=width, numbers=range(4))
    if len(strong.exposed_rows) > len(lines):
        out += wrap(f"{len(strong.exposed_rows) - len(lines)} more are in the data file (.json)")
    return out


def _table(
    shown: Sequence[MetricRow], legend: str, width: int, ours: str = "this model"
) -> list[str]:
    if not shown:
        return ["The audit has no rows."]
    against = w.has_retrained(shown)
    notes: list[str] = []
    head = ["metric", ours, "original"]
    head += ["retrained", "gap", "z", "gap\nclosed"] if against else []
    head.append("judgement")
    head = [h if "\n" in h or not against else f"\n{h}" for h in head]
    lines: list[list[str] | str] = []
    for title, rows in w.by_section(shown):
        lines += [title.upper(), *(_cells(row, against, notes) for row in rows)]
    out = table_lines(head, lines, width=width, numbers=range(1, len(head)), space=1)
    out.append("-" * width)
    for i, note in enumerate(notes, 1):
        out += wrap(note, f"[{i}] ", width)
    out += wrap(legend, width=width)
    if any(r.path == "compat" for r in shown):
        out += wrap(w.COMPAT + ".", width=width)
    return out


def _cells(row: MetricRow, against: bool, notes: list[str]) -> list[str]:
    places = w.row_decimals(row)
    name = row.metric + ("\n(compat)" if row.path == "compat" else "")
    cells = [name, _estimate(row, row.estimate, places, notes)]
    cells.append(w.ABSENT if row.original is None else w.number(row.original.value, places))
    if against:
        gap, between = w.gap_texts(row, places)
        cells += [w.oracle_text(row, places), f"{gap}\n{between}" if between else gap]
        cells.append(w.ABSENT if row.z is None else w.number(row.z, 1, signed=True))
        cells.append(w.closed_text(row))
    return [*cells, w.judgement_words(row)]


def _estimate(row: MetricRow, estimate: Estimate, places: int | None, notes: list[str]) -> str:
    mark = ""
    if estimate.note:
        text = f"{row.metric}: {estimate.note}"
        if text not in notes:
            notes.append(text)
        mark = f" [{notes.index(text) + 1}]"
    between = w.interval(estimate.low, estimate.high, places)
    return w.number(estimate.value, places) + mark + (f"\n{between}" if between else "")


def _pairs(lines: list[tuple[str, str]], width: int) -> list[str]:
    wide = max(len(k) for k, _ in lines) + 2
    return [ln for k, v in lines for ln in wrap(v, f"{k:<{wide}}", width)]
