"""Terminal text: wrapped lines and tables of a given width."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from unlearnkit.core.text import plain as plain

WIDTH = 100

UNLIMITED = 100_000
"""Width of a table that nobody reads on a terminal: each line stays whole."""

_NARROWEST = 10
"""Columns that text is never squeezed below, however narrow the terminal."""


def pad(text: str, width: int, column: int) -> str:
    """Fill text up to a width: the first column to the left, the others to the right."""
    space = " " * (width - cell_len(text))
    return text + space if column == 0 else space + text


def fold(name: str, width: int) -> list[str]:
    """Break a metric's name after underscores; a part that is still too long is cut."""
    lines = [""]
    for part in name.replace("_", "_\n").split("\n"):
        if cell_len(lines[-1] + part) > width and lines[-1]:
            lines.append("")
        lines[-1] += part
    return [x[i : i + width] for x in lines for i in range(0, max(len(x), 1), width)]


def heading(title: str) -> list[str]:
    """Return an empty line, a title and a rule under it."""
    return ["", title.upper(), "-" * len(title)]


def wrap(text: str, lead: str = "", width: int = WIDTH) -> list[str]:
    """Break text into lines; the first is led in, the others stand under it."""
    lines = Text(plain(text)).wrap(
        _console(width), max(width - len(lead), _NARROWEST), overflow="fold"
    )
    parts = [line.plain.rstrip() for line in lines] or [""]
    return [(lead if i == 0 else " " * len(lead)) + x for i, x in enumerate(parts)]


def table_lines(
    head: Sequence[str],
    rows: Iterable[Sequence[str] | str],
    *,
    width: int = WIDTH,
    numbers: Sequence[int] = (),
    rule: bool = True,
    space: int = 2,
) -> list[str]:
    """Return a table as lines; long cells continue below, so that nothing is cut.

    Args:
        head: Headings of the columns.
        rows: Cells by line; a text alone is a heading over the lines below it.
        width: Columns of the terminal.
        numbers: Columns that are right-aligned.
        rule: Whether a rule stands below the headings.
        space: Spaces between columns.

    Returns:
        Lines of at most that width; wider only where each column needs its longest word.
    """
    parts: list[tuple[str, list[list[str]]]] = [("", [_safe(head)])]
    for row in rows:
        if isinstance(row, str):
            parts.append((row, []))
        else:
            parts[-1][1].append(_safe(row))
    widths = _widths([line for _, lines in parts for line in lines], width, space)
    line = "-" * (sum(widths) + space * (len(widths) - 1))
    first = _drawn(parts[0][1][:1], widths, numbers, space)
    out = [*first, *([line] if rule else []), *_drawn(parts[0][1][1:], widths, numbers, space)]
    for title, lines in parts[1:]:
        out += ["", *wrap(title, width=width), *_drawn(lines, widths, numbers, space)]
    return out


def _safe(cells: Sequence[str]) -> list[str]:
    return ["\n".join(map(plain, cell.split("\n"))) for cell in cells]


def _drawn(
    lines: Sequence[Sequence[str]], widths: Sequence[int], numbers: Sequence[int], space: int
) -> list[str]:
    if not lines:
        return []
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, space, 0, 0))
    for i, size in enumerate(widths):
        side: Literal["right", "left"] = "right" if i in numbers else "left"
        table.add_column(justify=side, overflow="fold", width=size)
    for line in lines:
        table.add_row(*(Text(_breakable(c, n)) for c, n in zip(line, widths, strict=False)))
    console = _console(sum(widths) + space * len(widths))
    text = "".join(part.text for part in console.render(table))
    return [x.rstrip() for x in text.split("\n")[:-1]]


def _breakable(cell: str, width: int) -> str:
    """Return a cell whose long names are broken after underscores, not inside a word."""
    if "_" not in cell:
        return cell
    return "\n".join(
        " ".join("\n".join(fold(w, width)) if cell_len(w) > width else w for w in line.split(" "))
        for line in cell.split("\n")
    )


def _widths(lines: Sequence[Sequence[str]], width: int, space: int) -> list[int]:
    """Return the columns' widths: as wide as their cells, the widest squeezed first."""
    count = max(map(len, lines))
    columns = [[line[i] for line in lines if i < len(line)] for i in range(count)]
    sizes = [max(cell_len(x) for c in column for x in c.split("\n")) for column in columns]
    least = [
        min(size, max(_NARROWEST, *map(_longest_word, column)))
        for size, column in zip(sizes, columns, strict=True)
    ]
    names = [max(least[0], min(sizes[0], width // 5)), *least[1:]]  # names are looked for
    spare = sum(sizes) + space * (count - 1) - width
    for floor in (names, least, [min(size, _NARROWEST) for size in sizes]):
        while spare > 0 and (loose := [i for i in range(count) if sizes[i] > floor[i]]):
            sizes[max(loose, key=sizes.__getitem__)] -= 1
            spare -= 1
    return sizes


def _longest_word(cell: str) -> int:
    """Return how wide the widest part of a cell is that should stay on one line; 30 at most."""
    words = cell.replace("_", "_ ").replace("/", "/ ").split()
    return min(30, max(map(cell_len, words), default=0))


def _console(width: int) -> Console:
    return Console(
        file=StringIO(),
        width=width,
        color_system=None,
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
    )
