"""Captions: texts and numbers of a study's table, for terminal and page."""

from __future__ import annotations

from unlearnkit.report import phrases as w
from unlearnkit.stats.oracle_gap import Judgement
from unlearnkit.studies.table.leaderboard import LeaderboardRow
from unlearnkit.studies.table_schema import (
    Column,
    Failure,
    ForgetSetTable,
    MethodComparison,
    TableCell,
    TableData,
    TableRow,
)

ERROR = 300
"""Letters of an error that are shown; the store has all of it."""

MARKS = {
    Judgement.EQUIVALENT: "=",
    Judgement.DIFFERENT: "!",
    Judgement.NOT_SHOWN: "?",
    Judgement.NOT_JUDGED: "",
}
"""Before a mean: the judgement of its gap to the oracles."""

GOALS = {
    "high": "higher is better",
    "low": "lower is better",
    "match retraining": "best when it matches retraining",
    "descriptive": "descriptive, no value is good by itself",
}

LEGEND = (
    "Each method's number is the mean over seeds; ± is half of Student's 95 % interval (three seeds"
    " or more). Oracle: models retrained without the forget set; sd: their standard deviation."
    " Original: the model before unlearning."
)
JUDGEMENT = (
    "Equivalent to retraining: two one-sided tests at level 0.05 put the gap to the oracles within"
    " a margin fixed beforehand (the metric's own, or two oracle deviations; for fractions at least"
    " 0.01). Different: the 95 % interval of the gap is outside the margin. Not shown: neither. No"
    " significant difference is not equivalence. Each column is tested alone, without correction"
    " for their number."
)
MARKED = "Before a mean: = equivalent, ! different, ? not shown."
PAIR_HEAD = ("seeds", "difference", "95 % interval", "p", "smallest p")
PAIRING = (
    "Paired difference: distance from the ideal of the first method minus that of the second, same"
    " seeds; below 0 the first is closer to retraining. p: exact two-sided sign-flip permutation"
    " test, not corrected for the number of pairs. Smallest p: the least that so many seeds can"
    " give; 0.05 needs six seeds."
)

CHANCE = (
    "A method under a mask also runs under a random mask of the same size. The mask beats it where"
    " the 95 % interval of the paired difference is below 0, not corrected for the number of masks."
    " Otherwise the result is no evidence that the chosen weights matter."
)


def design(table: TableData) -> str:
    """Return how models were sampled, in a sentence."""
    return w.DESIGNS[table.design]


def progress(table: TableData) -> str:
    """Return how much of the study is done."""
    failed = sum(f.status == "failed" for f in table.failures)
    return f"{table.done} of {table.planned_runs} runs done, {failed} failed"


def direction(column: Column) -> str:
    """Return which value is good, in a word or two."""
    words = {"match retraining": "oracle", "descriptive": "none"}
    return words.get(column.goal, column.goal)


def goal_text(column: Column) -> str:
    """Return which value is good, in a sentence."""
    if column.distance and column.ideal is None:
        return "Best as between two oracles."
    ideal = "" if column.ideal is None else f"; ideal {column.ideal:g}"
    text = GOALS[column.goal]
    return f"{text[0].upper()}{text[1:]}{ideal}."


def shared_decimals(block: ForgetSetTable, name: str) -> int | None:
    """Return the decimals that a column's numbers share in a block."""
    cells = [n.cells[name] for n in block.lines if name in n.cells]
    near = [x.mean for x in cells if x.mean is not None]
    found = w.decimals(near)
    return None if found is None else min(found, 4)


def mean_text(cell: TableCell, digits: int | None) -> str:
    """Return a cell's number; a dash where there is none."""
    return w.ABSENT if cell.mean is None else w.number(cell.mean, digits)


def spread_text(line: TableRow, cell: TableCell, digits: int | None) -> str:
    """Return half the width of the interval, or the oracles' deviation; nothing without one."""
    if line.kind == "oracle":
        return "" if cell.sd is None else f"sd {_fine(cell.sd, digits)}"
    if cell.low is None or cell.high is None:
        return ""
    return f"± {_fine((cell.high - cell.low) / 2, digits)}"


def runs(line: TableRow | LeaderboardRow) -> str:
    """Return how many runs a line is the mean of, and how many are missing."""
    parts = [str(line.done if isinstance(line, LeaderboardRow) else line.count)]
    if line.failed:
        parts.append(f"{line.failed} failed")
    if line.absent:
        parts.append(f"{line.absent} to do")
    return ", ".join(parts)


def verdicts(line: TableRow) -> str:
    """Return the audit's headlines with the number of seeds that they were given to."""
    order = sorted(line.verdicts.items(), key=lambda kv: (-kv[1], kv[0]))
    return ", ".join(f"{name} {count}/{line.count}" for name, count in order)


def reason(failure: Failure) -> str:
    """Return the last line of an error, cut where it is very long."""
    why = failure.error.strip().splitlines()
    last = why[-1].strip() if why else "no reason was kept"
    return last if len(last) <= ERROR else last[:ERROR] + " ..."


def pairs_with_best(block: ForgetSetTable) -> list[MethodComparison]:
    """Return each method against the one nearest to its ideal, by metric; the best is second."""
    found = []
    for metric in dict.fromkeys(p.metric for p in block.pairs):
        pairs = [p for p in block.pairs if p.metric == metric]
        names = list(dict.fromkeys(n for p in pairs for n in (p.first, p.second)))
        score = {n: sum(_of(p, n) for p in pairs if n in (p.first, p.second)) for n in names}
        best = min(names, key=lambda n: score[n])
        found += [with_second(p, best) for p in pairs if best in (p.first, p.second)]
    return found


def pair(p: MethodComparison) -> tuple[str, str, str, str, str]:
    """Return seeds, difference, interval and both p-values of a pair, as text."""
    digits = w.decimals([p.difference, p.low, p.high])
    return (
        str(p.count),
        w.number(p.difference, digits, signed=True),
        w.interval(p.low, p.high, digits, signed=True) or w.ABSENT,
        w.ABSENT if p.p is None else f"{p.p:.3g}",
        f"{p.least_p:.3g}",
    )


def with_second(pair: MethodComparison, second: str) -> MethodComparison:
    """Return the same comparison with this method as the second."""
    if pair.second == second:
        return pair
    return pair.model_copy(
        update={
            "first": pair.second,
            "second": pair.first,
            "difference": -pair.difference,
            "low": None if pair.high is None else -pair.high,
            "high": None if pair.low is None else -pair.low,
        }
    )


def _of(pair: MethodComparison, name: str) -> float:
    return pair.difference if pair.first == name else -pair.difference


def _fine(value: float, digits: int | None) -> str:
    """Return a spread with the decimals of its mean; more where it would read as 0."""
    text = w.number(value, digits)
    if digits is not None and value > 1e-12 and float(text) == 0:
        return f"{value:.1g}"
    return text


def short_request(words: str) -> str:
    """Return a request in words; of a long list, the first values and how many there are."""
    kind, equals, values = words.partition("=")
    if not equals or len(words) <= LONGEST_REQUEST:
        return words
    listed = values.split(",")
    if len(listed) <= 8:
        return f"{words[: LONGEST_REQUEST - 3]}..."
    return f"{kind}={','.join(listed[:8])},... ({len(listed)} values)"[: 2 * LONGEST_REQUEST]


LONGEST_REQUEST = 80
"""Characters of a request that tables and pages show whole."""
