"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ACase = typer.Argument(help="A built-in case, or package.module:function that returns a Case.")

Forget = Annotated[
    str | None,
    typer.Option(
        metavar="REQUEST",
        help="class=3, rows=0:100, rows=a17,b03, rows=@file (text, .csv:column, .json, .npy),"
        " group=17, target<30 (in quotes), or a named request of the case.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="The trained weights (.safetensors, .pt); trained from scratch when absent.",
    ),
]
Place = Annotated[
    Path, typer.Option("--store", metavar="PATH", help="Where results are kept: one SQLite file.")
]
Jobs = Annotated[int, typer.Option(min=1, help="How many processes work, a thread each.")]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Use a Ray cluster: its address, auto for the running one, or local for one that is"
        " started for this command.",
    ),
]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Import the code that the run's record names as its case."),
]
Yes = Annotated[
    bool, typer.Option("--yes", help="Do it, however much it is; large work is refused without.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only results and errors.")]
STORE = Path("runs/unlearnkit.sqlite")
