"""Plain text of a given width: folded, padded, and without what would move the cursor."""

from __future__ import annotations

from io import StringIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from unlearnkit.core.text import plain as plain

WIDTH = 100


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
    console = Console(file=StringIO(), width=width, color_system=None, legacy_windows=False)
    lines = Text(plain(text)).wrap(console, width - len(lead), overflow="fold")
    parts = [line.plain for line in lines] or [""]
    return [(lead if i == 0 else " " * len(lead)) + x for i, x in enumerate(parts)]
