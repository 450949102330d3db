"""Study text: the table of a study as plain text for a terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.cells import cell_len

from unlearnkit.report import phrases as w
from unlearnkit.report.terminal import fold, heading, plain, table_lines, wrap
from unlearnkit.studies.table import captions as words
from unlearnkit.studies.table_schema import ForgetSetTable, MethodComparison, TableData, TableRow

WIDTH = 120
"""Widest text: longer lines are hard to read."""

_HEADER = 12
"""Width that the names of columns are folded to, after underscores."""

Cells = list[str]
"""A column: its heading, then a cell for each line; a cell has one line of text or more."""


def render_text(table: TableData, width: int | None = None) -> str:
    """Return a study's table as plain text; ``width`` is that of the terminal, at most 120."""
    if width is None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    width = max(40, min(width, WIDTH))
    out = [*wrap(f"STUDY  {table.study}", width=width), "=" * width]
    about = (table.about, f"Design {words.design(table)}", f"{words.progress(table)}; seeds"
             f" {w.seeds(table.seeds)}; {w.TIERS[table.tier]}")  # fmt: skip
    out += [x for text in about if text for x in wrap(text, width=width)]
    out += [x for note in table.notes for x in wrap(note, "  ! ", width)]
    for block in table.blocks:
        title = f"{block.case}, {words.short_request(block.request)}  (design {table.design})"
        rows = wrap(title, width=width)
        out += ["", *rows, "=" * max(map(cell_len, rows)), *_block(table, block, width)]
    if table.failures:
        out += heading(f"Failed or cancelled: {len(table.failures)}")
    for f in table.failures:
        where = f"{f.case}, {words.short_request(f.request)}, {f.label}, seed {f.seed}"
        out += wrap(f"{where}: {f.status}: {words.reason(f)}", "  - ", width)
    out += heading("How to read this")
    legends = [words.LEGEND, words.JUDGEMENT, words.MARKED]
    legends += [words.PAIRING] if any(b.pairs for b in table.blocks) else []
    legends += [words.CHANCE] if any(b.chances for b in table.blocks) else []
    out += [x for text in legends for x in wrap(text, width=width)]
    for column in table.columns:
        out += wrap(f"{column.doc} {words.goal_text(column)}", f"{column.id}: ", width)
    return "\n".join(line.rstrip() for line in out)


def _block(table: TableData, block: ForgetSetTable, width: int) -> Iterator[str]:
    if not block.columns:
        yield "Nothing was measured yet."
        return
    columns = [_column(table, block, name) for name in block.columns]
    if any(n.verdicts for n in block.lines):
        verdicts = (_folded(words.verdicts(n), width // 5) for n in block.lines)
        columns.append(["verdict\nby audit\n", *verdicts])
    lead = [
        ["\ngood\nideal", *(_folded(n.label, width // 4) for n in block.lines)],
        ["seeds\n\n", *(_folded(words.runs(n), 9) for n in block.lines)],
    ]
    panels = _panels(columns, width - sum(_wide(x) + 1 for x in lead))
    for k, panel in enumerate(panels):
        yield from [""] if k else []
        yield from _table([*lead, *panel], width)
    yield from _pairs(block, width)


def _column(table: TableData, block: ForgetSetTable, name: str) -> Cells:
    column = table.column(name)
    digits = words.shared_decimals(block, name)
    best = column.best
    oracle = next((n.cells[name] for n in block.lines if n.kind == "oracle"), None)
    if best == "oracle" and oracle is not None:
        best = words.mean_text(oracle, digits)
    head = [*fold(plain(name), _HEADER), words.direction(column), best]
    return ["\n".join(head), *(_cell(n, name, digits) for n in block.lines)]


def _cell(line: TableRow, name: str, digits: int | None) -> str:
    cell = line.cells[name]
    mark = words.MARKS[cell.judgement]
    parts = [f"{mark} {words.mean_text(cell, digits)}".lstrip()]
    parts += [spread] if (spread := words.spread_text(line, cell, digits)) else []
    parts += [f"({cell.count} of {line.count})"] if 0 < cell.count < line.count else []
    return "\n".join(parts)


def _panels(columns: list[Cells], room: int) -> Iterator[list[Cells]]:
    """Yield as many columns as fit next to the labels, then the next."""
    panel: list[Cells] = []
    used = 0
    for column in columns:
        if panel and used + _wide(column) > room:
            yield panel
            panel, used = [], 0
        panel.append(column)
        used += _wide(column) + 1
    yield panel


def _table(columns: list[Cells], width: int) -> list[str]:
    """Return columns as a table; headings end on the same line."""
    tall = max(column[0].count("\n") for column in columns)
    head = ["\n" * (tall - column[0].count("\n")) + column[0] for column in columns]
    rows = zip(*(column[1:] for column in columns), strict=True)
    return table_lines(head, rows, width=width, numbers=range(1, len(head)), space=1)


def _pairs(block: ForgetSetTable, width: int) -> Iterator[str]:
    """Yield the paired comparisons: with the best method, and with random masks."""
    best = sorted(words.pairs_with_best(block), key=lambda p: p.metric)
    for (metric, second), pairs in groupby(best, lambda p: (p.metric, p.second)):
        title = f"Paired difference by {metric}, minus {second} (same seeds)"
        yield from _comparisons(title, [*pairs], width)
    for metric, masks in groupby(block.chances, lambda p: p.metric):
        title = f"Paired difference by {metric}, minus a random mask (same seeds)"
        yield from _comparisons(title, [*masks], width)


def _comparisons(title: str, pairs: Sequence[MethodComparison], width: int) -> list[str]:
    said = [getattr(p, "word", "") for p in pairs]
    head = ["", *words.PAIR_HEAD, *(["the mask"] if any(said) else [])]
    rows = [
        (p.first, *words.pair(p), *([x] if x else [])) for p, x in zip(pairs, said, strict=True)
    ]
    return [
        "", *wrap(title, width=width), *table_lines(head, rows, width=width, numbers=range(1, 6))
    ]  # fmt: skip


def _folded(text: str, width: int) -> str:
    return "\n".join(wrap(text, width=width)) if text else ""


def _wide(column: Cells) -> int:
    return max(cell_len(part) for cell in column for part in cell.split("\n"))
