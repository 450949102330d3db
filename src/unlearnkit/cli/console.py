"""Console: data on stdout, messages on stderr, no control characters."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from unlearnkit.core.text import printable
from unlearnkit.core.torchrun_environment import writes_files

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Console:
    """A reporter that draws progress bars when stderr is a terminal and prints notes."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet or not writes_files()
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import MofNCompleteColumn, Progress

            columns = (*Progress.get_default_columns(), MofNCompleteColumn())
            self._bars = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def progress(self, what: str, done: int, total: int) -> None:
        """Move a bar."""
        if self._bars is None:
            return
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)

    def note(self, text: str) -> None:
        """Print what the user should know."""
        self.say(f"note: {text}")

    def say_next(self, *words: object) -> None:
        """Print the command that comes next, quoted as a shell needs it."""
        self.say(f"next: unlearnkit {shlex.join(map(str, words))}")

    def say(self, text: str) -> None:
        """Print a line on stderr, unless quiet."""
        if self.quiet:
            return
        text = printable(text)
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            try:
                print(text, file=sys.stderr, flush=True)
            except OSError:  # nobody reads what is only talk; the work goes on
                self.quiet = True


def print_json(value: Any) -> None:
    """Print data as JSON."""
    if not writes_files():
        return
    print(escape(json.dumps(value, indent=1, ensure_ascii=False, default=str)))


def escape(text: str) -> str:
    """Return JSON with what is not printable as escapes; it means the same."""
    if text.isprintable():
        return text
    return "".join(c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in text)


def print_text(text: object) -> None:
    """Print text, with control characters replaced."""
    if not writes_files():
        return
    print(printable(str(text)))


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns; on a terminal long cells are wrapped so that all columns fit."""
    if not writes_files():
        return
    from unlearnkit.report.terminal import UNLIMITED, table_lines

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else UNLIMITED
    print("\n".join(table_lines(head, rows, width=width, rule=False)))


def print_page(markdown: str) -> None:
    """Print Markdown: drawn on a terminal, as it is elsewhere."""
    if not writes_files():
        return
    markdown = printable(markdown)
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(markdown))
    else:
        print(markdown, end="")


def print_facts(facts: list[dict[str, Any]], as_json: bool, head: dict[str, str]) -> None:
    """Print facts, one mapping a line, as JSON or as a table with these headings by key."""
    if as_json:
        print_json(facts)
        return

    def cell(value: Any) -> str:
        if isinstance(value, list | dict):
            return ", ".join(value)
        return "" if value is None else str(value)

    print_table(tuple(head.values()), [tuple(cell(f[k]) for k in head) for f in facts])
