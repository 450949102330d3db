"""Commands on kept models."""

from __future__ import annotations

from typing import Annotated

import typer

from unlearnkit.cli.options import Json

cache_app = typer.Typer(
    help="List or remove trained models that are kept for the next time.",
    epilog="\b\nExample:\n  unlearnkit cache ls",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@cache_app.command(
    "ls", epilog="\b\nExamples:\n  unlearnkit cache ls\n  unlearnkit cache ls --json"
)
def cache_ls(json: Json = False) -> None:
    """List what is kept, the largest first."""
    from datetime import UTC, datetime

    from unlearnkit.cache import Cache
    from unlearnkit.cli.talk import print_facts

    found = sorted(Cache().entries(), key=lambda e: -e.size)
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
    epilog="\b\nExamples:\n  unlearnkit cache prune --days 30\n  unlearnkit cache prune --days 0",
)
def cache_prune(
    days: Annotated[
        float, typer.Option(min=0, help="Remove what was not used for so long; 0 removes all.")
    ] = 30.0,
    json: Json = False,
) -> None:
    """Remove kept models that were not used lately; they can be trained again."""
    import time

    from unlearnkit.cache import Cache
    from unlearnkit.cli.talk import print_json

    cache, before = Cache(), time.time() - days * 86400
    old = [e for e in cache.entries() if e.used <= before]
    for entry in old:
        cache.remove(entry)
    freed = sum(e.size for e in old)
    if json:
        print_json({"removed": len(old), "bytes": freed})
    else:
        print(f"removed {len(old)}, freed {freed} bytes")
