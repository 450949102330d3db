"""Commands and their options; heavy imports are late, for a quick ``--help``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from unlearnkit.cli.cache import cache_app
from unlearnkit.cli.doctor import doctor
from unlearnkit.cli.ledger import ledger_app
from unlearnkit.cli.localize import localize
from unlearnkit.cli.moments import moments
from unlearnkit.cli.options import (
    ACase,
    Config,
    EnsembleSize,
    Forget,
    Json,
    MaskOption,
    MaxCost,
    ModelTask,
    MomentsFile,
    NoRecipeCheck,
    Oracles,
    OracleWeights,
    Param,
    Preset,
    Projection,
    Quiet,
    Ray,
    Retain,
    Robustness,
    RunCase,
    Then,
    Tier,
    Trust,
    Weights,
    WholeHelpGroup,
    Yes,
    examples,
)  # fmt: skip
from unlearnkit.cli.reproduce import reproduce
from unlearnkit.cli.study import study_app
from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.core.precision import Precision

if TYPE_CHECKING:
    from unlearnkit.cli.console import Console
    from unlearnkit.cli.run_folder import RunFolderRecord
    from unlearnkit.job import Job

COMMANDS = (
    "demo", "unlearn", "audit", "ledger", "study", "localize", "moments",
    "methods", "metrics", "cases", "show", "reproduce", "cache", "doctor",
)  # fmt: skip
"""Commands in the order of ``--help``: verbs by first use, then lists, then the rest."""


class _OrderedGroup(WholeHelpGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        known = super().list_commands(ctx)
        return sorted(known, key=lambda c: COMMANDS.index(c) if c in COMMANDS else len(COMMANDS))


app = typer.Typer(
    cls=_OrderedGroup,
    help="Make trained PyTorch models forget chosen training data, and measure whether they did.",
    epilog="Start here: unlearnkit demo",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cache_app, name="cache")
app.add_typer(ledger_app, name="ledger")
app.add_typer(study_app, name="study")
app.command(epilog=examples("unlearnkit doctor", "unlearnkit doctor --json"))(doctor)
app.command(epilog=examples("unlearnkit reproduce", "unlearnkit reproduce digits_bench --jobs 2"))(
    reproduce
)
app.command(
    epilog=examples(
        "unlearnkit localize digits --forget class=3 --out mask.safetensors",
        "unlearnkit localize digits --forget class=3 --criterion grad --fraction 0.1 --plot m.svg",
    )
)(localize)


app.command(
    epilog=examples(
        "unlearnkit moments digits --out moments.safetensors",
        "unlearnkit moments my_package.cases:patients --model in.safetensors --out m.safetensors",
    )
)(moments)


def _ids(folder: str) -> list[str]:
    here = Path(__file__).parents[1] / folder
    return sorted(p.stem for p in here.glob("*.py") if not p.stem.startswith("_"))


def _method_ids() -> list[str]:
    return ["auto", *_ids("methods")]


def _version(wanted: bool) -> None:
    if wanted:
        import unlearnkit

        print(f"unlearnkit {unlearnkit.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


@app.command(epilog=examples("unlearnkit demo", "unlearnkit demo --out 'my runs'"))
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the runs.")] = Path("runs/demo"),
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train, forget, audit and report on bundled data in a minute."""
    from unlearnkit.cli.console import Console, print_json, print_text
    from unlearnkit.cli.demo import demo as run
    from unlearnkit.cli.demo import demo_text

    with Console(quiet=quiet) as talk:
        found = run(out, talk)
    if json:
        print_json({str(k): r.model_dump(mode="json") for k, r in found.items()})
        return
    print_text(demo_text(found))


@app.command(epilog=examples("unlearnkit methods", "unlearnkit methods --json"))
def methods(json: Json = False) -> None:
    """List the methods."""
    _list("method", json, id="id", needs="needs", tasks="tasks", does="what it does")


@app.command(epilog=examples("unlearnkit metrics", "unlearnkit metrics --json"))
def metrics(json: Json = False) -> None:
    """List the metrics, and which value of each is good."""
    _list("metric", json, id="id", goal="goal", unit="unit", tier="audit", does="what it is")


@app.command(epilog=examples("unlearnkit cases", "unlearnkit cases --json"))
def cases(json: Json = False) -> None:
    """List the built-in cases and their named requests."""
    _list("case", json, id="id", requests="requests", does="what it is")


def _list(kind: str, json: bool, **head: str) -> None:
    """Print the entries of a kind; ``head`` names the columns by their key in the facts."""
    from unlearnkit import catalog, describe
    from unlearnkit.cli.console import print_facts

    entries = getattr(catalog, f"{kind}s")().values()
    print_facts([getattr(describe, f"{kind}_facts")(x) for x in entries], json, head)


@app.command(
    epilog=examples(
        "unlearnkit show ssd",
        "unlearnkit show digits --json",
        "unlearnkit show runs/x",
        "unlearnkit show moments.safetensors",
    )
)
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A method, a metric, a case, a run's folder or a file of input moments.",
            autocompletion=_method_ids,
        ),
    ],
    json: Json = False,
) -> None:
    """Describe a method, metric, case, run or file of input moments."""
    from unlearnkit import describe
    from unlearnkit.cli.console import print_json, print_page
    from unlearnkit.cli.moments import describe_moments
    from unlearnkit.cli.run_folder import RECORD, describe_run

    place = Path(name)
    if (place / RECORD).is_file():
        facts, page = describe_run(place)
    elif place.suffix == ".safetensors":
        facts, page = describe_moments(place)
    else:
        facts, page = describe.find(name)
    if json:
        print_json(facts)
    else:
        print_page(page)


@app.command(
    epilog=examples(
        "unlearnkit unlearn digits --forget class=3 --method ssd --out runs/x",
        "unlearnkit unlearn digits --forget random_tenth --method finetune -p run.lr=2",
        "unlearnkit unlearn digits --forget class=3 --method auto --max-cost 0.5",
        "unlearnkit unlearn digits --forget class=3 --mask weighted_grad:0.3",
        "unlearnkit unlearn digits --forget class=3 --method scrub --projection 0.9",
        "unlearnkit unlearn digits --forget class=3 --method pgu --moments moments.safetensors",
        "unlearnkit unlearn my_package.cases:patients --forget group=17 --model in.safetensors",
        "unlearnkit unlearn --config job.yaml",
        "unlearnkit unlearn --config runs/x/run.json --out runs/again",
        "unlearnkit unlearn runs/x --then --forget class=5 --out runs/y",
        "unlearnkit unlearn my_model --task causal_lm --forget docs/a.txt --retain 'docs/*.txt'"
        " --method npo --out clean_model",
    ),
    context_settings={"allow_extra_args": True},
)
def unlearn(
    context: typer.Context,
    case: Annotated[str | None, ACase] = None,
    forget: Forget = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="How; finetune by default. auto chooses, audits and falls back.",
            autocompletion=_method_ids,
        ),
    ] = None,
    max_cost: MaxCost = None,
    preset: Preset = None,
    param: Param = None,
    model: Weights = None,
    mask: MaskOption = None,
    projection: Projection = None,
    moments: MomentsFile = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Root of all randomness; 0.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps or auto; cpu by default.")
    ] = None,
    precision: Annotated[Precision | None, typer.Option(help="fp32 by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.")] = None,
    name: Annotated[str | None, typer.Option(help="The run's name: a folder in runs/.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an older run.")] = False,
    then: Then = False,
    run_case: RunCase = None,
    source: Config = None,
    trust: Trust = False,
    task: ModelTask = None,
    retain: Retain = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a trained model forget; write new weights and a record.

    Options given here win over those of the file. A YAML file may name code that is
    imported, as a program may; a run.json may with --trust alone.

    With --then the rows of all earlier requests are gone: they are named by key, and the
    audit compares with models retrained without them.
    """
    _check_options(context.params, " ".join(context.args))
    if task is not None:
        _unlearn_documents(context)
        return
    from unlearnkit.cli.console import Console, print_json
    from unlearnkit.cli.run_folder import run_folder
    from unlearnkit.cli.runs import run_unlearn

    job = _job(context.params)
    folder = out or run_folder(name or job.name())
    with Console(quiet=quiet) as talk:
        record = run_unlearn(job, folder, force=force, talk=talk)
    if json:
        print_json({"folder": str(folder), **record.model_dump(mode="json")})
    else:
        _print_run(record, folder, talk)


def _unlearn_documents(context: typer.Context) -> None:
    """Forget documents; files that a shell puts after the first one of --forget are taken too."""
    from unlearnkit.cli.console import Console, print_json, print_text
    from unlearnkit.cli.model_folder import unlearn_documents
    from unlearnkit.core.token_rows import TOKEN_TASKS
    from unlearnkit.job import parse_settings

    given = context.params
    _usage(
        given["task"] in TOKEN_TASKS,
        f"models of {', '.join(sorted(TOKEN_TASKS))} are read from a folder",
        "--task",
    )
    _usage(given["case"] is not None, "name the model's folder", "CASE")
    _usage(given["forget"] is not None, "name the documents, such as 'docs/*.txt'", "--forget")
    _usage(given["out"] is not None, "name the folder of the new model", "--out")
    with Console(quiet=given["quiet"]) as talk:
        record = unlearn_documents(
            given["case"],
            [given["forget"], *context.args],
            given["retain"] or (),
            given["out"],
            talk,
            task=given["task"],
            method=given["method"] or "npo",
            preset=given["preset"],
            settings=parse_settings(given["param"] or ()),
            seed=given["seed"] or 0,
            device=given["device"] or "cpu",
            force=given["force"],
        )
    if given["json"]:
        print_json({"folder": str(given["out"]), **record})
    else:
        print_text(
            "\n".join([f"the model without the documents: {given['out']}", *record["notes"]])
        )


def _check_options(given: Mapping[str, Any], extra: str) -> None:
    """Refuse options of ``unlearn`` that do not go together, and extra arguments."""
    files = given["task"] is not None
    _usage(files or not extra, f"one case and its options are taken, got also {extra}", "CASE")
    case, source, then = given["case"], given["source"], given["then"]
    _usage(case is not None or source is not None, "give a case, or a file with --config", "CASE")
    _usage(
        given["out"] is None or given["name"] is None, "give --out or --name, not both", "--name"
    )
    _usage(then or given["run_case"] is None, "goes with --then; else CASE is the case", "--case")
    if then:
        _usage(case is not None and source is None, "name one run's folder before it", "--then")
        _usage(given["model"] is None, "with --then the model is the run's", "--model")
        _usage(given["forget"] is not None, "name what must be forgotten next", "--forget")


def _job(options: Mapping[str, Any]) -> Job:
    """Return the job of the options of ``unlearn``; those of a job have its fields' names."""
    from unlearnkit.cli.continuation import next_job
    from unlearnkit.cli.run_folder import find_run_folder
    from unlearnkit.core.auto_method import AUTO
    from unlearnkit.core.settings import deep_merge
    from unlearnkit.job import Job, make_job, parse_settings, read_job

    words: dict[str, Any] = {}
    if options["source"] is not None:
        words = read_job(options["source"], trust=options["trust"] or options["case"] is not None)
    if options["then"]:
        folder = find_run_folder(options["case"])
        words = next_job(folder, case=options["run_case"], trust=options["trust"])
        options = {**options, "case": None}
    if options["method"] is not None or options["preset"] is not None:
        words.pop("settings", None)
    words |= {k: v for k, v in options.items() if k in Job.model_fields and v is not None}
    given = parse_settings(options["param"] or ())
    if options["max_cost"] is not None:
        _usage(words.get("method") == AUTO, "only --method auto has a cost limit", "--max-cost")
        given = deep_merge(given, {"budget": options["max_cost"]})
    if given:
        words["settings"] = deep_merge(words.get("settings", {}), given)
    return make_job(words)


def _print_run(record: RunFolderRecord, folder: Path, talk: Console) -> None:
    from unlearnkit.cli.console import print_table

    facts = {
        "method": record.job.method,
        "rows forward": str(record.forward),
        "rows backward": str(record.backward),
        "seconds": f"{record.seconds:.2f}",
        "folder": str(folder),
    }
    if record.mask is not None:
        facts["mask"] = f"{record.mask['share']:.1%}"
    if record.auto is not None:
        facts["why"] = record.auto.why
    print_table(tuple(facts), [tuple(facts.values())])
    imported = ("--case", record.job.case) if ":" in record.job.case else ()
    talk.say_next("audit", folder, *imported)


class _ManyWeights(TyperCommand):
    """Lets ``--oracle-weights`` be followed by several files."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        spread: list[str] = []
        many = False
        for word in args:
            many = word == "--oracle-weights" or (many and not word.startswith("-"))
            if many and word != "--oracle-weights":
                spread.append(f"--oracle-weights={word}")
            elif not many:
                spread.append(word)
        return super().parse_args(ctx, spread)


@app.command(
    cls=_ManyWeights,
    epilog=examples(
        "unlearnkit audit runs/x",
        "unlearnkit audit runs/x --tier fast --json",
        "unlearnkit audit runs/x --full --list-rows",
        "unlearnkit audit runs/x --oracle-weights a.safetensors b.safetensors",
        "unlearnkit audit runs/x --tier strong --ensemble-size 64",
        "unlearnkit audit runs/y --case my_package.cases:patients",
    ),
)
def audit(
    run: Annotated[str, typer.Argument(help="A run's folder, or its name in runs/.")],
    case: Annotated[
        str | None,
        typer.Option(help="The run's case, where it is no built-in one: package.module:function."),
    ] = None,
    trust: Trust = False,
    tier: Tier = AuditTier.REFERENCE,
    oracles: Oracles = 5,
    oracle_weights: OracleWeights = None,
    ensemble_size: EnsembleSize = 64,
    no_recipe_check: NoRecipeCheck = False,
    robustness: Robustness = False,
    device: Annotated[
        str | None, typer.Option(help="Where to compute; where the run was made by default.")
    ] = None,
    ray: Ray = None,
    yes: Yes = False,
    full: Annotated[
        bool, typer.Option("--full", help="Print the whole report, not only the summary.")
    ] = False,
    list_rows: Annotated[
        bool, typer.Option("--list-rows", help="List the removed rows in the report.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure whether a run forgot; print the verdict and a report.

    Printed are the verdict, what to do next and a summary; with --full the whole report.

    A run's folder is data: code that its record names as the case is imported with --case or
    --trust alone. A Ray cluster trains the models from scratch that are missing; all else is done
    here.
    """
    _usage(
        not oracle_weights or tier is AuditTier.REFERENCE, "goes with --tier reference",
        "--oracle-weights",
    )  # fmt: skip
    from unlearnkit.cli.console import Console, print_json, print_text
    from unlearnkit.cli.run_folder import find_run_folder
    from unlearnkit.cli.runs import run_audit

    folder = find_run_folder(run)
    with Console(quiet=quiet) as talk:
        report = run_audit(
            folder, case=case, trust=trust, tier=tier, oracles=oracles, models=ensemble_size,
            oracle_weights=oracle_weights or (), device=device, ray=ray, yes=yes,
            recipe_check=not no_recipe_check, robustness=robustness, list_rows=list_rows, talk=talk,
        )  # fmt: skip
    if json:
        print_json(report.model_dump(mode="json"))
        return
    print_text(report.full() if full else report)
    talk.say(f"written: {folder / 'report.json'}")


def _usage(holds: bool, text: str, where: str) -> None:
    if not holds:
        raise typer.BadParameter(text, param_hint=where)
