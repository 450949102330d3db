"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from unlearnkit.core.audit_terms import AuditTier

_WHOLE = 10_000


class WholeHelpGroup(TyperGroup):
    """Lists each command with its first sentence, on as many lines as that takes."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list."""
        known = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, c.get_short_help_str(_WHOLE)) for name, c in known if c and not c.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


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
Place = Annotated[Path, typer.Option("--store", metavar="PATH", help="The SQLite file of results.")]
Jobs = Annotated[int, typer.Option(min=1, help="Processes, one thread each.")]
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
Yes = Annotated[bool, typer.Option("--yes", help="Allow large work.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only results and errors.")]
STORE = Path("runs/unlearnkit.sqlite")

MaxCost = Annotated[
    float | None,
    typer.Option(
        min=0, help="Most that --method auto may cost, as a share of retraining; 2 by default."
    ),
]
ModelTask = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="TASK",
        help="causal_lm, masked_lm or seq2seq: CASE is the folder of such a model of transformers;"
        " --forget and --retain are text files (or .jsonl of rows) or patterns.",
    ),
]
Retain = Annotated[
    list[str] | None,
    typer.Option(metavar="FILES", help="With --task: documents that stay; may be repeated."),
]
Preset = Annotated[str | None, typer.Option(help="Named settings to start from, such as paper.")]
Param = Annotated[
    list[str] | None,
    typer.Option(
        "-p", "--param", metavar="KEY=VALUE", help="A hyper-parameter; dots nest: run.lr=2."
    ),
]
MaskOption = Annotated[
    str | None,
    typer.Option(
        "--mask",
        metavar="MASK",
        help="Change only some scalars: criterion:budget:granularity, or a saved mask"
        " (.safetensors).",
    ),
]
Projection = Annotated[
    str | None,
    typer.Option(
        "--projection",
        metavar="SHARE",
        help="Hold the directions that retained inputs use: a share of their energy such as 0.9,"
        " or rule:share:count.",
    ),
]
MomentsFile = Annotated[
    str | None,
    typer.Option(
        "--moments",
        metavar="FILE",
        help="Input moments that unlearnkit moments saved, in place of retained rows"
        " (.safetensors).",
    ),
]
Then = Annotated[
    bool,
    typer.Option(
        "--then",
        help="CASE is a run's folder, or its name in runs/: answer a further request on its"
        " model, with its method unless another is named.",
    ),
]
RunCase = Annotated[
    str | None,
    typer.Option(
        "--case",
        help="With --then: the run's case, where it is no built-in one: package.module:function.",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="A YAML file with these options, or a run's run.json."
    ),
]
Tier = Annotated[
    AuditTier,
    typer.Option(
        help="fast: one model, no retraining; reference: compared with retrained models;"
        " strong: attacks on single records, N unlearned against N retrained models."
    ),
]
Oracles = Annotated[
    int,
    typer.Option(min=1, help="Of --tier reference: how many models to retrain; they are cached."),
]
OracleWeights = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE...",
        help="Of --tier reference: weights of models that you retrained yourself, without the"
        " removed rows; nothing is retrained then. One or more files.",
    ),
]
Robustness = Annotated[
    bool,
    typer.Option(
        "--robustness",
        help="Attack what a language model forgot: rounding to 8 and 4 bits, sampling, other"
        " questions, hints, relearning.",
    ),
]
NoRecipeCheck = Annotated[
    bool,
    typer.Option(
        "--no-recipe-check",
        help="Do not ask first whether the recipe gives models like the original; the check may"
        " train five originals.",
    ),
]
EnsembleSize = Annotated[
    int, typer.Option(min=4, help="Of --tier strong: N, the number of models of each kind.")
]


def examples(*lines: str) -> str:
    """Return the examples of a command, below its help."""
    title = "Example:" if len(lines) == 1 else "Examples:"
    return "\b\n" + "\n  ".join([title, *lines])
