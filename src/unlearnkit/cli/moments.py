"""Command ``moments``: measures input moments, to keep in place of rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unlearnkit.cli.localize import check_place
from unlearnkit.cli.options import ACase, Json, Quiet, Weights

if TYPE_CHECKING:
    from unlearnkit.linalg.input_moments import InputMoments

HEAD = ("Weight", "Inputs", "Held at 0.9", "Kept as")


def moments(
    case: Annotated[str, ACase],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to save them (.safetensors).")],
    model: Weights = None,
    seed: Annotated[int, typer.Option(min=0, help="Root of all randomness.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps or auto.")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Replace an older file.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure what layers take in on the training rows.

    Their second moments are kept after training, in place of the rows: unlearn reads them, for
    --method pgu or --projection, and each run writes them without its forget set.
    """
    from unlearnkit.cli.console import Console, print_json, print_table
    from unlearnkit.cli.runs import run_moments
    from unlearnkit.job import MASK, make_job

    check_place(out, MASK, "moments", force=force)
    job = make_job({"case": case, "model": model, "seed": seed, "device": device})
    with Console(quiet=quiet) as talk:
        found = run_moments(job, talk=talk)
    found.save(out)
    if json:
        print_json(moments_facts(found))
        return
    print_table(HEAD, moments_rows(found))
    talk.say_next("unlearn", case, "--forget", "class=3", "--method", "pgu", "--moments", out)


def describe_moments(path: Path) -> tuple[dict[str, Any], str]:
    """Return a file of input moments as facts, JSON-able, and as a page; others are an error."""
    from unlearnkit.core.text import one_line
    from unlearnkit.linalg.input_moments import InputMoments

    found = InputMoments.load(path)
    lines = [
        f"# Input moments {one_line(str(path), 80)}",
        "",
        f"- Training rows in them: {found.rows:,}",
        f"- Digest of the model: {found.model}",
        f"- Digest of the rows: {found.data}",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + "---|" * len(HEAD),
        *("| " + " | ".join(row) + " |" for row in moments_rows(found)),
    ]
    return moments_facts(found), "\n".join(lines) + "\n"


def moments_facts(found: InputMoments) -> dict[str, Any]:
    """Return what input moments are of, with their own digest and the form of each layer's."""
    layers = {name: list(product.shape) for name, product in found.products.items()}
    return {
        "rows": found.rows,
        "model": found.model,
        "data": found.data,
        "digest": found.digest(),
        "layers": layers,
    }


def moments_rows(found: InputMoments) -> list[tuple[str, ...]]:
    """Return a row for each weight, in the order of ``HEAD``."""
    from unlearnkit.linalg.gradient_projection import RetainedSubspace, held_of

    rows = list[tuple[str, ...]]()
    for name, product in found.products.items():
        held = held_of(name, found, RetainedSubspace())
        form = "counts" if product.ndim == 1 else "moment"
        if product.ndim == 3 and product.shape[2] < product.shape[1]:
            form = f"sketch of {product.shape[2]} columns"
        rows.append((name, f"{held.width:,}", f"{held.rank:,}", form))
    return rows
