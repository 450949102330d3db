"""Command ``study``: plan, run, tune, show, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unlearnkit.cli.options import (
    STORE,
    Jobs,
    Json,
    Place,
    Quiet,
    Ray,
    WholeHelpGroup,
    Yes,
    examples,
)
from unlearnkit.core.errors import UnlearnkitError

if TYPE_CHECKING:
    from unlearnkit.studies.execution.run_study import Outcome
    from unlearnkit.studies.spec import Study
    from unlearnkit.studies.table.study_table import Table

study_app = typer.Typer(
    cls=WholeHelpGroup,
    help="Compare methods as a study file says; no run is repeated.",
    epilog=examples("unlearnkit study run study.yaml --jobs 2"),
    no_args_is_help=True,
    rich_markup_mode=None,
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The study: a YAML file.")]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,...",
        help="Columns: ids of metrics, cost_ratio, cost_seconds, or closed_ and a distance's id.",
    ),
]


@study_app.command(
    "plan",
    epilog=examples("unlearnkit study plan study.yaml --jobs 2"),
)
def plan_study(
    file: File,
    store: Place = STORE,
    jobs: Jobs = 1,
    yes: Yes = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print the cost of a study and what is done; nothing is run."""
    from dataclasses import asdict

    from unlearnkit.cache import Cache
    from unlearnkit.cli.console import Console, print_json, print_table
    from unlearnkit.store import Store
    from unlearnkit.studies.planning.plan import plan, summary

    study = _load(file, yes=yes)
    with Store(store) as kept:
        found = plan(study, kept, Cache())
    for warning in found.warnings:
        Console(quiet=quiet).note(warning)
    if json:
        print_json({"study": study.name, "design": study.design, "jobs": jobs, **asdict(found)})
        return
    rows = {"study": study.name, "design": study.design, **summary(found, jobs)}
    print_table(("what", "how many"), list(rows.items()))


@study_app.command(
    "run",
    epilog=examples(
        "unlearnkit study run study.yaml",
        "unlearnkit study run study.yaml --jobs 4 --store results.sqlite",
        "unlearnkit study run study.yaml --ray 10.0.0.1:6379",
    ),
)
def run_study(
    file: File,
    store: Place = STORE,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes, one thread each; 1, or with --ray all its processors.",
        ),
    ] = None,
    ray: Ray = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try failed runs again.")] = False,
    yes: Yes = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Carry out the runs that are not done; after any stop, run it again to go on.

    Several of these commands on one store share the work.
    """
    from dataclasses import asdict

    from unlearnkit.cache import Cache
    from unlearnkit.cli.console import Console, print_json
    from unlearnkit.store import Store
    from unlearnkit.studies.execution.run_study import run

    Store.check(store)
    study = _load(file, yes=yes)
    with Store(store) as kept, Console(quiet=quiet) as talk:
        outcome = run(
            study,
            kept,
            Cache(),
            jobs=jobs,
            ray=ray,
            retry=retry,
            reporter=talk,
        )
    if json:
        print_json({"study": study.name, **asdict(outcome)})
    else:
        print(f"done {outcome.done}, failed {outcome.failed}, done before {outcome.skipped}")
    _check(outcome, file)


@study_app.command(
    "tune",
    epilog=examples("unlearnkit study tune study.yaml --jobs 2"),
)
def tune_study(
    file: File,
    store: Place = STORE,
    jobs: Jobs = 1,
    retry: Annotated[bool, typer.Option("--retry", help="Try failed trials again.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tune each method on forget sets other than the study's.

    The settings go into files; study run then runs each method with default and tuned settings.
    After any stop, run it again to go on.
    """
    from unlearnkit.cache import Cache
    from unlearnkit.cli.console import Console, print_json, print_table
    from unlearnkit.store import Store
    from unlearnkit.studies.spec import load
    from unlearnkit.studies.tuning.effect import format_objective
    from unlearnkit.studies.tuning.search import tune

    Store.check(store)
    study = load(file)
    with Store(store) as kept, Console(quiet=quiet) as talk:
        found = tune(study, kept, Cache(), jobs=jobs, retry=retry, reporter=talk)
    if json:
        print_json({"study": study.name, "tuned": [x.facts() for x in found]})
        return
    head = ("case", "method", "trials", "failed", "default", "tuned", "file")
    reached = [
        (format_objective(x.default.score), format_objective(x.best.score), str(x.path))
        for x in found
    ]
    counted = [(x.case, x.method, str(len(x.trials)), str(x.failed_trials)) for x in found]
    print_table(head, [(*a, *b) for a, b in zip(counted, reached, strict=True)])
    talk.say_next("study", "run", file)


@study_app.command(
    "show",
    epilog=examples(
        "unlearnkit study show study.yaml",
        "unlearnkit study show study.yaml --metrics accuracy_test,js_forget,cost_seconds",
    ),
)
def show_study(
    file: File,
    store: Place = STORE,
    metrics: Columns = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Print the tables of the results so far."""
    from unlearnkit.cli.console import escape, print_text

    study = _load(file, yes=yes)
    table = _table(study, store, metrics)
    if json:
        print(escape(table.model_dump_json(indent=1)))
    else:
        print_text(table)
    if study.tune is not None and not json:
        _print_tuning(study, store)


@study_app.command(
    "report",
    epilog=examples(
        "unlearnkit study report study.yaml", "unlearnkit study report study.yaml --out table.csv"
    ),
)
def report_study(
    file: File,
    store: Place = STORE,
    metrics: Columns = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Ends in .html, .csv, .parquet, .json or .txt; next to the study by default.",
        ),
    ] = None,
    yes: Yes = False,
) -> None:
    """Write the results so far as a page or as data."""
    from unlearnkit.cli.console import print_text
    from unlearnkit.core.files import check_writable

    check_writable(out or file.with_suffix(".html"), "study")
    table = _table(_load(file, yes=yes), store, metrics)
    print_text(table.save(out or file.with_suffix(".html")))


def _load(file: Path, *, yes: bool) -> Study:
    """Return a study; one of very many runs needs ``yes``."""
    from unlearnkit.studies.planning.plan_size import check_size
    from unlearnkit.studies.spec import load

    study = load(file)
    check_size(study, yes=yes)
    return study


def _table(study: Study, store: Path, metrics: str | None) -> Table:
    from unlearnkit.store import Store
    from unlearnkit.studies.table.build_table import show

    names = None if metrics is None else [name.strip() for name in metrics.split(",")]
    with Store(store) as kept:
        return show(study, kept, names)


def _print_tuning(study: Study, store: Path) -> None:
    from unlearnkit.cli.console import print_table
    from unlearnkit.store import Store
    from unlearnkit.studies.tuning.effect import HEAD, LEGEND, rows, tuning_effect

    with Store(store) as kept:
        found = rows(tuning_effect(study, kept))
    print(f"\nDid tuning help?\n{LEGEND}\n")
    print_table(HEAD, found)


def _check(outcome: Outcome, file: Path) -> None:
    if outcome.failed:
        total = outcome.done + outcome.failed + outcome.skipped
        raise UnlearnkitError(
            f"study: {outcome.failed} of {total} runs failed; unlearnkit study show {file} says why"
        )
