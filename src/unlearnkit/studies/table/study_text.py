"""A study's table in a terminal: plain text, at most 120 columns, no colour."""

from __future__ import annotations

from collections.abc import Iterator

from rich.cells import cell_len

from unlearnkit.report import phrases as w
from unlearnkit.report.terminal import fold, heading, pad, plain, wrap
from unlearnkit.studies.table import captions as words
from unlearnkit.studies.table.captions import short_request
from unlearnkit.studies.table_schema import ForgetSetTable, MethodComparison, TableData, TableRow

Cells = list[list[str]]
"""A column from its head down, each cell of one line or more."""

WIDTH = 120
_LABEL = 30
"""Widest label or verdict; longer ones are folded."""

_HEADER = 12
"""Width that the names of columns are folded to, after underscores."""


def render_text(table: TableData) -> str:
    """Return a study's table as plain text of at most 120 columns, without colour.

    Args:
        table: What the study has found.

    Returns:
        Lines: the design, notes, a table for each forget set with its paired comparisons, failures,
        and how to read them. Control characters in names are replaced.
    """
    out = [*_wrap(f"STUDY  {table.study}"), "=" * WIDTH]
    out += _wrap(table.about) if table.about else []
    out += _wrap(f"Design {words.design(table)}")
    out += _wrap(f"{words.progress(table)}; seeds {w.seeds(table.seeds)}; {w.TIERS[table.tier]}")
    for note in table.notes:
        out += _wrap(note, "  ! ")
    for block in table.blocks:
        title = plain(f"{block.case}, {short_request(block.request)}  (design {table.design})")
        out += ["", *(rows := _wrap(title)), "=" * max(map(cell_len, rows))]
        out += _block(table, block)
    out += _failures(table)
    out += heading("How to read this")
    out += [*_wrap(words.LEGEND), *_wrap(words.JUDGEMENT), *_wrap(words.MARKED)]
    out += _wrap(words.PAIRING) if any(b.pairs for b in table.blocks) else []
    out += _wrap(words.CHANCE) if any(b.chances for b in table.blocks) else []
    for column in table.columns:
        out += _wrap(f"{column.doc} {words.goal_text(column)}", f"{column.id}: ")
    return "\n".join(line.rstrip() for line in out)


def _block(table: TableData, block: ForgetSetTable) -> list[str]:
    if not block.columns:
        return ["Nothing was measured yet."]
    columns = [_column(table, block, name) for name in block.columns]
    if any(n.verdicts for n in block.lines):
        told = [_folded(v) if (v := words.verdicts(n)) else [] for n in block.lines]
        columns.append([["verdict"], ["by audit"], [], *told])
    labels = [
        [[""], ["good"], ["ideal"], *(_folded(n.label) for n in block.lines)],
        [["seeds"], [], [], *(_folded(words.runs(n), 9) for n in block.lines)],
    ]
    out: list[str] = []
    for panel in _panels(columns, WIDTH - sum(_wide(x) + 1 for x in labels)):
        out += [*([""] if out else []), *_panel([*labels, *panel])]
    return [*out, *_pairs(block), *_chances(block)]


def _column(table: TableData, block: ForgetSetTable, name: str) -> Cells:
    column = table.column(name)
    digits = words.shared_decimals(block, name)
    best = column.best
    oracle = next((n.cells[name] for n in block.lines if n.kind == "oracle"), None)
    if best == "oracle" and oracle is not None:
        best = words.mean_text(oracle, digits)
    cells = [_cell(n, name, digits) for n in block.lines]
    return [fold(plain(name), _HEADER), [words.direction(column)], [best], *cells]


def _cell(line: TableRow, name: str, digits: int | None) -> list[str]:
    cell = line.cells[name]
    found = [f"{words.mean_text(cell, digits)} {words.MARKS[cell.judged] or ' '}"]
    found += [f"{spread}  "] if (spread := words.spread_text(line, cell, digits)) else []
    if 0 < cell.count < line.count:
        found.append(f"({cell.count} of {line.count})  ")
    return found


def _panels(columns: list[Cells], room: int) -> Iterator[list[Cells]]:
    """Yield as many columns as fit beside the labels, then the next."""
    panel: list[Cells] = []
    used = 0
    for column in columns:
        if panel and used + _wide(column) > room:
            yield panel
            panel, used = [], 0
        panel.append(column)
        used += _wide(column) + 1
    yield panel


def _panel(columns: list[Cells], head: int = 3) -> list[str]:
    """Return columns side by side, with a rule under the head's rows."""
    widths = [_wide(column) for column in columns]
    out = []
    for k, row in enumerate(zip(*columns, strict=True)):
        for i in range(max(map(len, row))):
            parts = [cell[i] if i < len(cell) else "" for cell in row]
            line = [pad(p, n, j) for j, (p, n) in enumerate(zip(parts, widths, strict=True))]
            out.append(" ".join(line))
        if k == head - 1:
            out.append("-" * (sum(widths) + len(widths) - 1))
    return out


def _pairs(block: ForgetSetTable) -> Iterator[str]:
    found: dict[tuple[str, str], list[MethodComparison]] = {}
    for p in words.pairs_with_best(block):
        found.setdefault((p.metric, p.second), []).append(p)
    for (metric, best), pairs in found.items():
        yield ""
        title = f"Pairs by {metric}: farther from its ideal than {best}, on the same seeds"
        yield from _wrap(title)
        first: Cells = [[""], *(_folded(p.first) for p in pairs)]
        told = [words.pair(p) for p in pairs]
        names = ("seeds", "farther by", "95 % interval", "p", "least p")
        others: list[Cells] = [
            [[name], *([row[i]] for row in told)] for i, name in enumerate(names)
        ]
        yield from _panel([first, *others], head=1)


def _chances(block: ForgetSetTable) -> Iterator[str]:
    for metric in dict.fromkeys(p.metric for p in block.chances):
        pairs = [p for p in block.chances if p.metric == metric]
        yield ""
        yield from _wrap(f"Masks by {metric}: farther from its ideal than a random one")
        first: Cells = [[""], *(_folded(p.first) for p in pairs)]
        names = ("seeds", "farther by", "95 % interval", "p", "least p")
        told = [words.pair(p) for p in pairs]
        others: list[Cells] = [
            [[name], *([row[i]] for row in told)] for i, name in enumerate(names)
        ]
        said: Cells = [["the mask"], *([str(p.word)] for p in pairs)]
        yield from _panel([first, *others, said], head=1)


def _failures(table: TableData) -> Iterator[str]:
    if not table.failures:
        return
    yield from heading(f"Failed or cancelled: {len(table.failures)}")
    for f in table.failures:
        where = f"{f.case}, {short_request(f.request)}, {f.label}, seed {f.seed}"
        yield from _wrap(f"{where}: {f.status}: {words.reason(f)}", "  - ")


def _folded(text: str, width: int = _LABEL) -> list[str]:
    return wrap(text, width=width)


def _wide(column: Cells) -> int:
    return max(cell_len(part) for cell in column for part in cell)


def _wrap(text: str, lead: str = "") -> list[str]:
    return wrap(text, lead, WIDTH)
