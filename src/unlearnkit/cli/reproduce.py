"""Command ``reproduce``: repeats published tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unlearnkit.cli.options import STORE, Jobs, Json, Place, Quiet
from unlearnkit.core.errors import UnlearnkitError

if TYPE_CHECKING:
    from unlearnkit.reproduction.reproduce import Comparison


def _names() -> list[str]:
    folder = Path(__file__).parents[1] / "reproduction" / "tables"
    return sorted(p.stem for p in folder.glob("*.yaml"))


def reproduce(
    name: Annotated[
        str | None,
        typer.Argument(help="The table; all are listed when absent.", autocompletion=_names),
    ] = None,
    store: Place = STORE,
    jobs: Jobs = 1,
    device: Annotated[
        str | None, typer.Option(help="Where to compute; as the table says by default.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Repeat a published table and compare it line by line.

    Without a name, list the tables with what came of each when its outcome was last recorded. Stop
    it in any way, and run it again to go on. It ends with 1 where the table cannot be run.
    """
    if name is None:
        _list(json)
        return
    from unlearnkit.cache import Cache
    from unlearnkit.cli.console import Console, print_json
    from unlearnkit.reproduction.published_table import load
    from unlearnkit.reproduction.reproduce import reproduce as repeat
    from unlearnkit.reproduction.reproduce import why_not_runnable
    from unlearnkit.store import Store

    table = load(name)
    Store.check(store)
    with Store(store) as kept, Console(quiet=quiet) as talk:
        found = repeat(table, kept, Cache(), jobs=jobs, device=device, reporter=talk)
    if json:
        print_json(found.model_dump(mode="json"))
    else:
        from unlearnkit.reproduction.tables_markdown import lead

        print(f"{lead(table)}\n")
        _print(found)
    _check(name, why_not_runnable(table, device), table.takes)


def _list(json: bool) -> None:
    from unlearnkit.cli.console import print_json, print_table
    from unlearnkit.reproduction.tables_markdown import facts

    found = facts()
    if json:
        print_json(found)
        return
    head = ("name", "last outcome", "takes", "table")
    print_table(head, [(f["name"], f["outcome"], f["takes"], f["table"]) for f in found])


def _print(found: Comparison) -> None:
    from unlearnkit.cli.console import print_table
    from unlearnkit.reproduction.tables_markdown import HEAD, cells

    print_table(HEAD, [cells(c) for c in found.lines])
    print(f"\n{found.summary()}")


def _check(name: str, why: str | None, takes: str) -> None:
    if why is not None:
        raise UnlearnkitError(f"reproduce: {name} was not run here: {why}; {takes}")
