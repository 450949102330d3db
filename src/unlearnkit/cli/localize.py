"""Command ``localize``: finds a mask and prints its share of each layer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlearnkit.cli.options import ACase, Forget, Json, Quiet, Weights

Criterion = Annotated[
    str,
    typer.Option(
        help="weighted_grad, grad, weight, weighted_grad_all, critical_memory, deepest,"
        " shallowest or random."
    ),
]
Fraction = Annotated[
    float,
    typer.Option(help="Largest share of the trainable scalars to choose; above 0, at most 1."),
]
Granularity = Annotated[str, typer.Option(help="What is chosen whole: parameter, channel or head.")]


def localize(
    case: Annotated[str, ACase],
    forget: Forget = None,
    criterion: Criterion = "weighted_grad",
    fraction: Fraction = 0.3,
    granularity: Granularity = "channel",
    model: Weights = None,
    seed: Annotated[int, typer.Option(min=0, help="Root of all randomness.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps or auto.")] = "cpu",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to save the mask (.safetensors)."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to plot the share of each layer (.svg)."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace older files.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the weights that matter most for the forget set.

    Shows their share of each layer. The mask may be saved, and given to unlearn.
    """
    from unlearnkit.cli.console import Console, print_json, print_table
    from unlearnkit.cli.runs import run_localize
    from unlearnkit.core.files import write_text
    from unlearnkit.job import MASK, make_job
    from unlearnkit.localize.localizer import Localizer
    from unlearnkit.report.mask_section import HEAD, layer_rows, mask_facts, mask_file, mask_summary
    from unlearnkit.report.templating import check_installed

    for path, ending in ((out, MASK), (plot, ".svg")):
        if path is not None:
            check_place(path, ending, "localize", force=force)
    if plot is not None:
        check_installed()
    _check_fraction(fraction)
    how = Localizer.read({"criterion": criterion, "budget": fraction, "granularity": granularity})
    words = {"case": case, "forget": forget, "model": model, "seed": seed, "device": device}
    job = make_job({**words, "mask": how.model_dump(mode="json")})
    with Console(quiet=quiet) as talk:
        mask = run_localize(job, talk=talk)
    found = mask_summary(mask)
    if out is not None:
        mask.save(out)
    if plot is not None:
        write_text(plot, mask_file(found))
    if json:
        layers = [layer.model_dump() for layer in found.layers]
        print_json({**mask.facts(), "layers": layers})
        return
    print_table(("what", "value"), mask_facts(found))
    print()
    print_table(HEAD, layer_rows(found))
    if out is not None:
        talk.say_next("unlearn", case, "--forget", job.request_text(), "--mask", out)


def _check_fraction(fraction: float) -> None:
    from unlearnkit.core.errors import InputError

    if not 0 < fraction <= 1:
        raise InputError(f"localize: --fraction: must be above 0 and at most 1, got {fraction:g}")


def check_place(path: Path, ending: str, who: str, *, force: bool) -> None:
    """Refuse a file that another ending is for, that is there, or that cannot be written."""
    from unlearnkit.core.errors import InputError
    from unlearnkit.core.files import check_writable

    if path.suffix != ending:
        raise InputError(f"{who}: ends in {ending}, got {path.name!r}")
    if path.exists() and not force:
        raise InputError(
            f"{who}: {str(path)!r} is there; choose another place, or replace it: --force"
        )
    check_writable(path, who)
