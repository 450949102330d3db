"""Command ``cache``: lists or removes cached models and results."""

from __future__ import annotations

from typing import Annotated

import typer

from unlearnkit.cli.options import Json, WholeHelpGroup, examples

cache_app = typer.Typer(
    cls=WholeHelpGroup,
    help="List or remove cached models and results.",
    epilog=examples("unlearnkit cache ls"),
    no_args_is_help=True,
    rich_markup_mode=None,
)


@cache_app.command("ls", epilog=examples("unlearnkit cache ls", "unlearnkit cache ls --json"))
def cache_ls(json: Json = False) -> None:
    """List what is cached, the largest first.

    signals: margins of a strong audit's models. unfinished: left by a killed process.
    """
    from datetime import UTC, datetime

    from unlearnkit.cache import Cache
    from unlearnkit.cli.console import print_facts

    found = sorted(Cache().everything(), key=lambda e: -e.size)
    facts = [
        {
            "name": e.name[:12],
            "kind": e.key.get("kind"),
            "seed": e.key.get("seed"),
            "bytes": e.size,
            "used": datetime.fromtimestamp(e.used, UTC).isoformat(timespec="seconds"),
            "path": str(e.path),
        }
        for e in found
    ]
    print_facts(facts, json, {k: k for k in ("name", "kind", "seed", "bytes", "used", "path")})


@cache_app.command(
    "prune",
    epilog=examples("unlearnkit cache prune --days 30", "unlearnkit cache prune --days 0"),
)
def cache_prune(
    days: Annotated[
        float, typer.Option(min=0, help="Remove what was not used for this long; 0 removes all.")
    ] = 30.0,
    json: Json = False,
) -> None:
    """Remove what was not used lately; it can be made again."""
    import time

    from unlearnkit.cache import Cache
    from unlearnkit.cli.console import print_json

    cache, before = Cache(), time.time() - days * 86400
    old = [e for e in cache.everything() if e.used <= before]
    busy = [e.name for e in old if not cache.remove(e)]
    freed = sum(e.size for e in old if e.name not in busy)
    if json:
        print_json({"removed": len(old) - len(busy), "bytes": freed, "in use": busy})
        return
    print(f"removed {len(old) - len(busy)}, freed {freed} bytes")
    for name in busy:
        print(f"left {name}: another process is at work on it")
