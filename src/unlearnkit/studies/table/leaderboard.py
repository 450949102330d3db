"""Leaderboard: the methods of a case over all its forget sets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unlearnkit.report.schema import Verdict
from unlearnkit.stats.oracle_gap import Judgement
from unlearnkit.studies.columns import CLOSED, FORGETTING, UTILITY
from unlearnkit.studies.table_schema import ForgetSetTable, Kind, TableCell, TableData, TableRow

COST = "cost_ratio"
FAULTS = (Verdict.LEAKS, Verdict.OVER_FORGOT, Verdict.DAMAGED)


@dataclass(frozen=True)
class TradeoffPoint:
    """A point of the trade-off figure: remaining gap, utility loss and cost."""

    label: str
    kind: Kind
    remaining_gap: float
    """1 minus the closed share: 0 as an oracle, 1 as the original. Where the share is not known,
    the size of the gap to the oracles over that of the original."""

    remaining_gap_reach: float | None
    """Half the width of its 95 % interval."""

    utility_loss: float
    """What is worse than the oracles in utility: accuracy below theirs, or error above."""

    utility_loss_reach: float | None
    cost: float | None


@dataclass(frozen=True)
class LeaderboardRow:
    """A method over all forget sets of a case."""

    label: str
    kind: Kind
    sets: int
    """Forget sets with a run that is done."""

    all_sets: int
    """Forget sets of the case."""

    faulty: int
    """Runs whose audit says LEAKS, OVER-FORGOT or DAMAGED."""

    equivalent: int
    judged_cells: int
    """Cells compared with the oracles, and those where equivalence is shown."""

    worst: float | None
    """The largest gap to the oracles, on the wrong side, in margins, over columns and sets."""

    remaining_gap: float | None
    """Mean size over forget sets of ``TradeoffPoint.remaining_gap``."""

    utility_loss: float | None
    """The worst over forget sets."""

    cost: float | None
    """Mean over forget sets."""

    done: int
    failed: int
    absent: int


def tradeoff_points(block: ForgetSetTable) -> list[TradeoffPoint]:
    """Return the point of each line that has both numbers, in order, without the oracles."""
    found = []
    for line in block.lines:
        if line.kind == "oracle":
            continue
        left, lost = _left(block, line), _lost(block, line)
        if left is not None and lost is not None:
            cost = line.cells.get(COST)
            found.append(
                TradeoffPoint(line.label, line.kind, *left, *lost, cost=cost.mean if cost else None)
            )
    return found


def measures(block: ForgetSetTable) -> tuple[str, str] | None:
    """Return the columns that a block's picture is drawn from: of forgetting, and of utility."""
    forgetting = next((CLOSED + m for m in FORGETTING if _known(block, CLOSED + m)), None)
    forgetting = forgetting or next((m for m in FORGETTING if _known(block, m)), None)
    utility = next((m for m in UTILITY if m in block.columns), None)
    return None if forgetting is None or utility is None else (forgetting, utility)


def leaderboard(table: TableData, case: str) -> list[LeaderboardRow]:
    """Return the rows of a case, methods in order.

    The order: methods that ran on all forget sets; fewest runs at fault; smallest worst gap;
    smallest remaining gap; smallest cost.

    Returns:
        The original, then the methods.
    """
    blocks = [b for b in table.blocks if b.case == case]
    labels = dict.fromkeys((n.label, n.kind) for b in blocks for n in b.lines if n.kind != "oracle")
    found = [_leader(table, blocks, label, kind) for label, kind in labels]
    return sorted(found, key=_rank)


def _rank(x: LeaderboardRow) -> tuple[bool, bool, float, float, float, float]:
    return (
        x.kind == "method",
        x.sets < x.all_sets,
        x.faulty / x.done if x.done else math.inf,
        math.inf if x.worst is None else x.worst,
        math.inf if x.remaining_gap is None else x.remaining_gap,
        math.inf if x.cost is None else x.cost,
    )


def _leader(
    table: TableData, blocks: Sequence[ForgetSetTable], label: str, kind: Kind
) -> LeaderboardRow:
    mine = [(b, n) for b in blocks for n in b.lines if (n.label, n.kind) == (label, kind)]
    cells = [cell for _, n in mine for cell in n.cells.values()]
    wide = [v for _, n in mine for k, x in n.cells.items() if (v := _gap(table, k, x)) is not None]
    left = [abs(s[0]) for b, n in mine if (s := _left(b, n)) is not None]
    lost = [s[0] for b, n in mine if (s := _lost(b, n)) is not None]
    cost = [v for _, n in mine for v in _means(n, COST)]
    return LeaderboardRow(
        label=label,
        kind=kind,
        sets=sum(n.count > 0 for _, n in mine),
        all_sets=len(blocks),
        faulty=sum(n.verdicts.get(v, 0) for _, n in mine for v in FAULTS),
        equivalent=sum(cell.judgement is Judgement.EQUIVALENT for cell in cells),
        judged_cells=sum(cell.judgement is not Judgement.NOT_JUDGED for cell in cells),
        worst=max(wide, default=None),
        remaining_gap=math.fsum(left) / len(left) if left else None,
        utility_loss=max(lost) if lost else None,
        cost=math.fsum(cost) / len(cost) if cost else None,
        done=sum(n.count for _, n in mine),
        failed=sum(n.failed for _, n in mine),
        absent=sum(n.absent for _, n in mine),
    )


def _gap(table: TableData, name: str, cell: TableCell) -> float | None:
    """Return a judged cell's gap in margins; 0 where it is nearer to the oracles than they are."""
    if cell.judgement is Judgement.NOT_JUDGED or cell.gap is None or not cell.margin:
        return None
    column = table.column(name)
    gap = cell.gap
    if column.distance and column.goal == "low":
        gap = max(gap, 0.0)
    elif column.distance and column.goal == "high":
        gap = min(gap, 0.0)
    return abs(gap) / cell.margin


def _left(block: ForgetSetTable, line: TableRow) -> tuple[float, float | None] | None:
    names = measures(block)
    if names is None or (cell := line.cells.get(names[0])) is None or cell.mean is None:
        return None
    if names[0].startswith(CLOSED):
        return _finite(1 - cell.mean, _reach(cell))
    before = next((n.cells[names[0]].gap for n in block.lines if n.kind == "original"), None)
    if cell.gap is None or not before:
        return None
    reach = _reach(cell)
    return _finite(abs(cell.gap / before), None if reach is None else reach / abs(before))


def _lost(block: ForgetSetTable, line: TableRow) -> tuple[float, float | None] | None:
    names = measures(block)
    if names is None or (cell := line.cells.get(names[1])) is None or cell.gap is None:
        return None
    return _finite(-cell.gap if UTILITY[names[1]] else cell.gap, _reach(cell))


def _known(block: ForgetSetTable, name: str) -> bool:
    return any(n.kind != "oracle" and list(_means(n, name)) for n in block.lines)


def _means(line: TableRow, name: str) -> Iterator[float]:
    cell = line.cells.get(name)
    if cell is not None and cell.mean is not None:
        yield cell.mean


def _finite(value: float, reach: float | None) -> tuple[float, float | None] | None:
    return (value, reach) if math.isfinite(value) else None


def _reach(cell: TableCell) -> float | None:
    return None if cell.low is None or cell.high is None else (cell.high - cell.low) / 2
