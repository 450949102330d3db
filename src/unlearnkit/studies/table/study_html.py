"""Study page: leaderboards, figures and every forget set as one HTML file.

Needs matplotlib and jinja2, the extra ``[report]``. The one script sorts leaderboards; the page
says all that it has to say without it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlearnkit.report import phrases as w
from unlearnkit.report.templating import Figure, check_installed, read_resource, render_template
from unlearnkit.stats.oracle_gap import Judgement
from unlearnkit.studies.table import captions as words
from unlearnkit.studies.table.captions import short_request
from unlearnkit.studies.table.leaderboard import (
    LeaderboardRow,
    TradeoffPoint,
    leaderboard,
    measures,
    tradeoff_points,
)
from unlearnkit.studies.table.tradeoff_figure import tradeoff_figure
from unlearnkit.studies.table_schema import (
    ForgetSetTable,
    TableData,
)

if TYPE_CHECKING:
    from markupsafe import Markup

BEATEN = {
    "beats it": "good",
    "loses to it": "bad",
    "no difference shown": "unclear",
    "too few seeds": "none",
}


def render(table: TableData) -> str:
    """Return a study's table as one HTML page without requests; equal tables give equal bytes."""
    check_installed()
    script = read_resource("studies/sort.js").strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    boards = [(case, _board(table, case)) for case in dict.fromkeys(b.case for b in table.blocks)]
    numbers = {case: _numbers(leaderboard(table, case)) for case, _ in boards}
    return render_template(
        "studies/page.html.jinja",
        table=table,
        w=w,
        words=words,
        script=_as_is(script),
        script_hash=f"sha256-{digest}",
        extra=_as_is(read_resource("studies/style.css").strip()),
        boards=boards,
        board_head=BOARD_HEAD,
        sets=[_set(table, b, i, numbers[b.case]) for i, b in enumerate(table.blocks)],
        facts=_facts(table),
    )


def _as_is(text: str) -> Markup:
    """Return a file of ours or a figure as markup: no name or value of a study stands in it raw."""
    from markupsafe import Markup  # of the extra

    return Markup(text)


def _numbers(board: Sequence[LeaderboardRow]) -> dict[str, int]:
    methods = [x for x in board if x.kind == "method"]
    return {x.label: i for i, x in enumerate(methods, 1)}


BOARD_HEAD = (
    *("No.", "At fault", "Worst gap", "Equivalent", "Remaining gap"),
    *("Utility loss", "Cost", "Sets", "Runs"),
)
"""Columns of a leaderboard after the method."""


@dataclass(frozen=True)
class BoardRow:
    """A row of a leaderboard: each cell as text and as the key that it is sorted by."""

    kind: str
    label: str
    cells: list[tuple[str, str]]
    """In the order of ``BOARD_HEAD``."""


def _board(table: TableData, case: str) -> list[BoardRow]:
    found = leaderboard(table, case)
    numbers = _numbers(found)
    return [BoardRow(x.kind, x.label, _board_cells(x, numbers.get(x.label))) for x in found]


def _board_cells(x: LeaderboardRow, number: int | None) -> list[tuple[str, str]]:
    ran = x.kind == "method" and x.done > 0
    return [
        (str(number or ""), _sort(number)),
        (f"{x.faulty} of {x.done}", _sort(x.faulty / x.done)) if ran else (w.ABSENT, ""),
        (_gap(x.worst), _sort(x.worst)),
        (f"{x.equivalent} of {x.judged_cells}", _sort(x.equivalent / x.judged_cells))
        if x.judged_cells
        else (w.ABSENT, ""),
        *((_number(v), _sort(v)) for v in (x.remaining_gap, x.utility_loss, x.cost)),
        (f"{x.sets} of {x.all_sets}", _sort(x.sets)) if x.kind == "method" else (w.ABSENT, ""),
        (words.runs(x), _sort(x.done)),
    ]


def _number(value: float | None) -> str:
    return w.ABSENT if value is None else w.number(value, 3 if abs(value) < 100 else None)


def _gap(value: float | None) -> str:
    return w.ABSENT if value is None else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _sort(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"


def _facts(table: TableData) -> list[tuple[str, str]]:
    most = max((b.oracles for b in table.blocks), default=0)
    return [
        ("Design", words.design(table)),
        ("Seeds", w.seeds(table.seeds)),
        ("Oracles", f"{most} a forget set" if most else "none"),
        ("Runs", words.progress(table)),
        ("Audit", w.TIERS[table.tier]),
    ]


def _set(
    table: TableData, block: ForgetSetTable, index: int, numbers: Mapping[str, int]
) -> dict[str, object]:
    """Return what the page shows of a forget set, by name."""
    digits = {name: words.shared_decimals(block, name) for name in block.columns}
    oracle = next((n for n in block.lines if n.kind == "oracle"), None)
    head = []
    for name in block.columns:
        column = table.column(name)
        best = column.best
        if best == "oracle" and oracle is not None:
            best = words.mean_text(oracle.cells[name], digits[name])
        head.append((name, words.GOALS[column.goal], best))
    lines = []
    for line in block.lines:
        cells = []
        for name in block.columns:
            cell = line.cells[name]
            few = f"{cell.count} of {line.count}" if 0 < cell.count < line.count else ""
            cells.append(
                {
                    "mean": words.mean_text(cell, digits[name]),
                    "spread": words.spread_text(line, cell, digits[name]),
                    "few": few,
                    "light": w.TONES[cell.judgement],
                    "judged": ""
                    if cell.judgement is Judgement.NOT_JUDGED
                    else cell.judgement.value,
                }
            )
        lines.append((line, cells, words.verdicts(line)))
    pairs = [(p.metric, p.first, p.second, words.pair(p)) for p in words.pairs_with_best(block)]
    return {
        "anchor": f"set-{index}",
        "block": block,
        "picture": _picture(table, block, f"set-{index}", numbers),
        "head": head,
        "lines": lines,
        "pairs": pairs,
        "chances": [(x, words.pair(x), BEATEN[x.word]) for x in block.chances],
    }


def _picture(
    table: TableData, block: ForgetSetTable, name: str, numbers: Mapping[str, int]
) -> Figure | None:
    what = measures(block)
    found = tradeoff_points(block)
    if what is None or not found:
        return None
    found.sort(key=lambda s: numbers.get(s.label, 0))
    body = list(_body(found, numbers))
    oracle = next((n.cells[what[1]] for n in block.lines if n.kind == "oracle"), None)
    band = None if oracle is None or oracle.sd is None else 2 * oracle.sd
    title = f"{block.case}, {short_request(block.request)}"
    utility = f"{what[1].replace('_', ' ')} ({table.column(what[1]).unit})"
    parts = (f"{m}: remaining gap {a}, utility loss {b}, cost {c}." for m, _, a, b, c in body)
    svg = tradeoff_figure(
        found, numbers, band=band, utility=utility, name=name, title=title,
        desc=f"The oracle stands at 0, 0. {' '.join(parts)}",
    )  # fmt: skip
    head = ("Method", "No.", "Remaining gap", "Utility loss", "Cost")
    return Figure(_as_is(svg), title, head, body)


def _body(found: Sequence[TradeoffPoint], numbers: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
    for s in found:
        number = str(numbers.get(s.label, "")) if s.kind == "method" else w.ABSENT
        yield s.label, number, _number(s.remaining_gap), _number(s.utility_loss), _number(s.cost)
