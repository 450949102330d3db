"""Reproductions: published tables and outcomes as text and Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unlearnkit.report import phrases as w
from unlearnkit.reproduction.published_table import FOLDER, Published, load, names
from unlearnkit.reproduction.reproduce import Compared, last_outcome

HEAD = ("of", "request", "metric", "published", "here", "95 % interval", "n", "outcome", "why")

RULE = (
    "A line is reproduced when our mean lies within its tolerance of the printed value. The"
    " tolerance was fixed before the first run. Where our own interval is wider than the tolerance,"
    " the line is not comparable: more seeds would be needed."
)


def facts(folder: Path = FOLDER) -> list[dict[str, str]]:
    """Return name, last committed outcome, time and source of every table."""
    found = []
    for name in names(folder):
        table, last = load(name, folder), last_outcome(name, folder)
        found.append(
            {
                "name": name,
                "outcome": last.summary() if last else _never(table),
                "takes": table.takes,
                "table": table.where,
            }
        )
    return found


def lead(table: Published) -> str:
    """Return where a table was printed, its setting, and what differs here."""
    more = [f"Differs: {n.of} {n.metric}: {n.differs}." for n in table.lines if n.differs]
    lines = [
        f"Source: {table.where}.",
        f"Its numbers: {table.source.read}.",
        f"Setting: {table.setting}",
        *(f"Differs: {text}." for text in table.differs),
        *dict.fromkeys(more),
    ]
    return "\n".join(lines)


def cells(c: Compared) -> tuple[str, ...]:
    """Return a line of the table, under ``HEAD``."""
    digits = w.decimals([x for x in (c.ours, c.low, c.high) if x is not None])
    return (
        c.line.of,
        c.line.request,
        c.line.metric,
        c.line.printed,
        w.ABSENT if c.ours is None else w.number(c.ours, digits),
        w.interval(c.low, c.high, digits) or w.ABSENT,
        str(c.count or w.ABSENT),
        c.verdict,
        c.reason,
    )


def page(folder: Path = FOLDER) -> str:
    """Return all tables with their last committed outcome, in Markdown."""
    return "\n".join(_page(folder))


def _page(folder: Path) -> Iterator[str]:
    yield "# Reproductions of published tables\n"
    yield "`unlearnkit reproduce NAME` repeats a table; `unlearnkit reproduce` lists them.\n"
    yield f"{RULE}\n"
    for name in names(folder):
        table, last = load(name, folder), last_outcome(name, folder)
        yield f"## `{name}`\n"
        yield "\n".join(f"- {text}" for text in lead(table).splitlines())
        yield f"- Takes: {table.takes}.\n"
        if last is None:
            yield f"Outcome: {_never(table)}.\n"
            yield _rows(("of", "request", "metric", "published", "tolerance", "why"), [
                (n.of, n.request, n.metric, n.printed,
                 w.ABSENT if n.tolerance is None else f"{n.tolerance:g}",
                 n.not_comparable or n.why)
                for n in table.lines
            ])  # fmt: skip
        else:
            yield (
                f"Outcome: {last.summary()} (unlearnkit {last.version}, torch {last.torch},"
                f" {last.device}, {last.machine}).\n"
            )
            yield _rows(HEAD, [cells(c) for c in last.lines])


def _never(table: Published) -> str:
    how = "cannot be run" if table.study is None else "not run yet"
    return f"{how}, so not comparable: {len(table.lines)} printed numbers"


def _rows(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
