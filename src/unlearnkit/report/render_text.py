"""The report in a terminal: plain text, at most 100 columns, no colour."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from unlearnkit.report import mask_section as masks
from unlearnkit.report import phrases as w
from unlearnkit.report import strong_section as ensembles
from unlearnkit.report.schema import Estimate, MetricRow, Report, StrongSummary
from unlearnkit.report.terminal import WIDTH, fold, heading, pad, wrap
from unlearnkit.stats.oracle_gap import Judgement

_NARROWEST = 14
_SHOWN = 20
"""Most exposed rows that are printed."""


def render_text(report: Report) -> str:
    """Return the report as plain text of at most 100 columns, without colour.

    Args:
        report: What an audit found.

    Returns:
        Lines: the verdict, what was asked, the table, its footnotes, the cost, provenance and what
        the audit cannot show. Control characters in names are replaced.
    """
    p = report.provenance
    about = f"{report.asked.case}: {report.asked.request}, {p.method}"
    out = [*wrap(f"UNLEARNING AUDIT  {about}"), "=" * WIDTH, ""]
    out += [report.verdict.value, *wrap(report.sentence, "  "), ""]
    for f in report.findings:
        out += wrap(f"{f.verdict.value}: {f.reason}", "  - ")
    for text in report.warnings:
        out += wrap(f"warning: {text}", "  ! ")
    out += heading("What was asked")
    out += _pairs(w.asked_lines(report.asked))
    for name, size in report.asked.headroom.items():
        value = w.UNDEFINED if size is None else f"{w.number(size, 1)} oracle deviations"
        out += wrap(f"headroom of {name}: {value}", "  - ")
    if report.strong is not None:
        out += _strong(report.strong, report.asked.task == "regression")
        out += heading("What this one model shows")
    else:
        out += heading(f"What was found ({w.TIERS[report.tier]})")
    out += _table(report.rows, w.LEGEND if w.compared(report.rows) else w.NO_ORACLE)
    if report.localized is not None:
        out += heading("What might move")
        out += _pairs(masks.told(report.localized))
        for name, scalars, chosen, share, _ in masks.lines(report.localized):
            out += wrap(f"{name}: {share}, {chosen} of {scalars}", "  - ")
    out += heading("Cost")
    out += _columns([("", "unlearning", "retraining"), *w.spent_lines(report.spent)])
    out += wrap(w.spent_sentence(report.spent))
    out += heading("Provenance")
    out += _pairs(w.provenance_lines(report))
    out += [ln for k, v in w.settings_lines(p.settings) for ln in wrap(f"{k} = {v}", "  - ")]
    out += [ln for note in p.notes for ln in wrap(note, "  ! ")]
    out += heading("What this audit cannot show")
    for text in report.limits or ("No limit was named.",):
        out += wrap(text, "  - ")
    return "\n".join(ln.rstrip() for ln in out)


def _strong(strong: StrongSummary, real: bool) -> list[str]:
    """Return the table of ensembles, thirds of the forgotten rows, and those that are exposed."""
    out = heading(ensembles.title(strong))
    legend = f"{ensembles.LEGEND} {ensembles.REAL_LEGEND}" if real else ensembles.LEGEND
    out += _table(strong.rows, legend, "this method")
    strata = ensembles.strata(strong)
    if strata:
        out += heading("Thirds of the forgotten rows")
    for order, thirds in strata:
        out += ["", *wrap(order)]
        for name, *cells in (ensembles.STRATA_HEAD, *thirds):
            widths = (6, 11, 12, 16, 11, 8, 11, 9)
            out.append(
                f"{name:<8}" + "".join(f"{c:>{n}}" for c, n in zip(cells, widths, strict=True))
            )
    out += heading("Exposed rows")
    out += wrap(ensembles.exposed_sentence(strong))
    lines = ensembles.exposed_lines(strong, _SHOWN)
    if lines:
        head = ensembles.EXPOSED_HEAD
        out += [f"{a:>10}{b:>16}{c:>18}{d:>22}" for a, b, c, d in (head, *lines)]
    if len(strong.exposed) > len(lines):
        out += wrap(f"{len(strong.exposed) - len(lines)} more are in the data file (.json)")
    return out


def _table(shown: Sequence[MetricRow], legend: str, ours: str = "this model") -> list[str]:
    against = w.compared(shown)
    notes: list[str] = []
    head = ["metric", ours, "original"]
    head += ["oracle", "gap", "z", "closed"] if against else []
    blocks: list[list[list[str]]] = [[[h] for h in [*head, "judgement"]]]
    titles: dict[int, str] = {}
    for title, rows in w.by_section(shown):
        titles[len(blocks)] = title
        blocks += [_cells(row, against, notes) for row in rows]
    if len(blocks) == 1:
        return ["The audit has no rows."]
    widths = _widths(blocks)
    out: list[str] = []
    for i, block in enumerate(blocks):
        if i in titles:
            out += ["-" * WIDTH, titles[i].upper()]
        block[0] = [part for line in block[0] for part in fold(line, widths[0])]
        for k in range(max(map(len, block))):
            line = [pad(c[k] if k < len(c) else "", n, j) for j, (c, n) in _across(block, widths)]
            out.append(" ".join(line))
    out.append("-" * WIDTH)
    for i, note in enumerate(notes, 1):
        out += wrap(note, f"[{i}] ")
    out += wrap(legend)
    if any(r.path == "compat" for r in shown):
        out += wrap(w.COMPAT + ".")
    return out


def _cells(row: MetricRow, against: bool, notes: list[str]) -> list[list[str]]:
    places = w.row_decimals(row)
    name = [row.metric] + (["(compat)"] if row.path == "compat" else [])
    block = [name, _estimate(row, row.estimate, places, notes)]
    block.append([w.ABSENT] if row.original is None else [w.number(row.original.value, places)])
    if against:
        oracle = [w.oracle_text(row, places)]
        gap = [w.ABSENT] if row.gap is None else [w.number(row.gap, places, signed=True)]
        gap += _bracket(w.interval(row.gap_low, row.gap_high, places, signed=True))
        block += [oracle, gap]
        block.append([w.ABSENT if row.z is None else w.number(row.z, 1, signed=True)])
        block.append([w.closed_text(row)])
    return [*block, [w.ABSENT if row.judgement is Judgement.NOT_JUDGED else row.judgement.value]]


def _estimate(
    row: MetricRow, estimate: Estimate, places: int | None, notes: list[str]
) -> list[str]:
    mark = ""
    if estimate.note:
        text = f"{row.metric}: {estimate.note}"
        if text not in notes:
            notes.append(text)
        mark = f" [{notes.index(text) + 1}]"
    first = w.number(estimate.value, places) + mark
    return [first, *_bracket(w.interval(estimate.low, estimate.high, places))]


def _bracket(text: str) -> list[str]:
    """Put a long interval on two lines, so that huge numbers still fit."""
    if len(text) <= 18:
        return [text] if text else []
    low, high = text.split(", ")
    return [f"{low},", high]


def _widths(blocks: list[list[list[str]]]) -> list[int]:
    widths = [max(cell_len(x) for b in blocks for x in b[j]) for j in range(len(blocks[0]))]
    spare = WIDTH - sum(widths[1:]) - len(widths) + 1
    widths[0] = max(min(widths[0], spare), _NARROWEST)
    return widths


def _across(block: list[list[str]], widths: list[int]) -> list[tuple[int, tuple[list[str], int]]]:
    return list(enumerate(zip(block, widths, strict=True)))


def _pairs(lines: list[tuple[str, str]]) -> list[str]:
    wide = max(len(k) for k, _ in lines) + 2
    return [ln for k, v in lines for ln in wrap(v, f"{k:<{wide}}")]


def _columns(lines: list[tuple[str, str, str]]) -> list[str]:
    return [f"{a:<16}{b:>16}{c:>16}" for a, b, c in lines]
