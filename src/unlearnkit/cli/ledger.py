"""Command ``ledger``: deletion requests from arrival to a signed certificate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unlearnkit.cli.options import ACase, Json, Quiet, Ray, WholeHelpGroup, examples

if TYPE_CHECKING:
    from unlearnkit.core.case import Case
    from unlearnkit.ledger.deletion_run import BatchOutcome
    from unlearnkit.ledger.register import Register, RequestState

ledger_app = typer.Typer(
    cls=WholeHelpGroup,
    help="Answer deletion requests and certify what was done.",
    epilog=examples(
        "unlearnkit ledger init digits",
        "unlearnkit ledger request rows=12,40 --reason 'Art. 17(1)(b)'",
        "unlearnkit ledger run",
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)

Folder = Annotated[Path, typer.Option("--ledger", metavar="FOLDER", help="The ledger.")]
CaseName = Annotated[
    str | None,
    typer.Option(
        "--case", help="The ledger's case, where it is no built-in one: package.module:function."
    ),
]
TrustLedger = Annotated[
    bool, typer.Option("--trust", help="Import the code that the ledger names as its case.")
]
HERE = Path("ledger")


@ledger_app.command(
    "init",
    epilog=examples(
        "unlearnkit ledger init digits",
        "unlearnkit ledger init my_package.cases:patients --model trained.safetensors",
        "unlearnkit ledger init digits --model models:/digits@champion",
        "unlearnkit ledger init --new-key signing-2.key",
    ),
)
def init(
    case: Annotated[str | None, ACase] = None,
    folder: Folder = HERE,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="The trained weights (.safetensors, .pt) or a registered version of MLflow"
            " (models:/digits/3); trained from scratch when absent.",
        ),
    ] = None,
    tracking_uri: Annotated[
        str, typer.Option(metavar="URI", help="Of MLflow; MLFLOW_TRACKING_URI when absent.")
    ] = "",
    signer: Annotated[
        str, typer.Option(help="The role that signs certificates.")
    ] = "the owner of this ledger",
    new_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Rotate the signing key of a ledger: make a new one."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Make a ledger for one model, or rotate its key. Edit policy.yaml; keep public.pem safe."""
    _needed()
    from unlearnkit.cli.console import Console
    from unlearnkit.ledger.new_ledger import create_ledger, rotate_key

    if (case is None) == (new_key is None):
        raise typer.BadParameter("give a case, or --new-key alone", param_hint="CASE")
    with Console(quiet=quiet) as talk:
        if new_key is not None:
            rotate_key(folder, new_key)
            talk.say(f"name {new_key} in policy.yaml now, and take the old key off this machine")
            return
        assert case is not None
        made = _make_case(case)
        create_ledger(
            folder, case, made, model=model, tracking_uri=tracking_uri, signer=signer, reporter=talk
        ).close()
        elsewhere = () if folder == HERE else ("--ledger", folder)
        talk.say(f"edit {folder / 'policy.yaml'} first")
        talk.say_next("ledger", "request", "rows=12,40", *elsewhere)


@ledger_app.command(
    "request",
    epilog=examples(
        "unlearnkit ledger request rows=12,40",
        "unlearnkit ledger request group=cust-12 --id 2026-117 --reason 'Art. 17(1)(b)'",
        "unlearnkit ledger request rows=@withdrawn.csv:patient --deadline 2027-01-15",
    ),
)
def request(
    forget: Annotated[
        str,
        typer.Argument(
            metavar="REQUEST", help="rows=a17,b03, rows=@file, group=cust-12 or class=3."
        ),
    ],
    folder: Folder = HERE,
    id: Annotated[  # noqa: A002  # the word of the certificate
        str | None, typer.Option(help="Yours; the same id twice is one request. New when absent.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; no names of persons.")] = "",
    deadline: Annotated[
        str | None, typer.Option(metavar="DATE", help="From the policy when absent.")
    ] = None,
    json: Json = False,
) -> None:
    """Put a request into the queue; names are kept as keyed pseudonyms only."""
    _needed()
    from unlearnkit.cli.console import print_json
    from unlearnkit.ledger.deletion_request import receive
    from unlearnkit.ledger.policy import read_policy

    with _open(folder) as register:
        entry, new = receive(
            folder, register, read_policy(folder), forget, id=id, reason=reason, deadline=deadline
        )
        state = register.request(entry.body["id"])
    if json:
        print_json({"new": new, **state.__dict__})
    else:
        _print_requests([state])


@ledger_app.command(
    "run", epilog=examples("unlearnkit ledger run", "unlearnkit ledger run --now --json")
)
def run_requests(
    folder: Folder = HERE,
    case: CaseName = None,
    trust: TrustLedger = False,
    now: Annotated[
        bool, typer.Option("--now", help="Begin although the policy would still wait.")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Try rejected requests again.")] = False,
    ray: Ray = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answer what is due: find rows, unlearn, audit, decide, publish; safe to kill and repeat."""
    _needed()
    from unlearnkit.cli.console import Console, print_json, print_table
    from unlearnkit.core.errors import InputError
    from unlearnkit.ledger.deletion_run import run_batch
    from unlearnkit.ledger.model_registry import RegistryError

    outcomes, down = [], None
    made = _case(folder, case, trust)
    with Console(quiet=quiet) as talk:
        again = retry
        while True:
            try:
                outcome = run_batch(
                    folder, made, at_once=now, retry=again, reporter=talk, ray=ray
                )  # fmt: skip
            except RegistryError as e:  # what was done is printed first
                down = e
                break
            again = False
            if outcome is None:
                break
            outcomes.append(outcome)
            for name, why in outcome.missing.items():
                talk.note(f"request {name}: {why}")
    if json:
        print_json([o.__dict__ for o in outcomes])
    else:
        head = ("batch", "state", "requests", "folder", "why")
        rows = [(o.batch, o.state, str(len(o.requests)), o.folder, o.why) for o in outcomes]
        print_table(head, [r for r in rows if r[0]])
    rejected = [o for o in outcomes if o.state == "rejected"]
    if rejected:
        raise InputError(_refused(folder, rejected))
    if down is not None:
        raise down


def _refused(folder: Path, rejected: list[BatchOutcome]) -> str:
    """Return what was not published, and who decides."""
    from unlearnkit.ledger.policy import read_policy

    who = read_policy(folder).notify or "nobody is named: set notify in policy.yaml"
    return (
        f"ledger: {', '.join(o.batch for o in rejected)}: not published: {rejected[0].why}; to"
        f" decide: {who}; change the policy and run again with --retry"
    )


@ledger_app.command(
    "status", epilog=examples("unlearnkit ledger status", "unlearnkit ledger status --json")
)
def status(
    folder: Folder = HERE,
    id: Annotated[  # noqa: A002  # the word of the certificate
        str | None, typer.Option(help="Of one request alone.")
    ] = None,
    json: Json = False,
) -> None:
    """List the requests, the nearest deadline first, and the drift since the last retraining."""
    _needed()
    from unlearnkit.cli.console import Console, print_json
    from unlearnkit.ledger.drift import published_drift

    with _open(folder) as register:
        found = register.requests() if id is None else [register.request(id)]
        counts, worker, late = register.counts(), register.worker(), _late(register)
        drift = published_drift(register)
    if json:
        print_json(
            {
                "counts": counts,
                "worker": worker,
                "late": sorted(late),
                "drift": None if drift is None else drift.model_dump(mode="json"),
                "requests": [r.__dict__ for r in found],
            }
        )
        return
    _print_requests(found, late)
    if drift is not None:
        Console().say(f"drift: {drift.words()}")


@ledger_app.command(
    "show", epilog=examples("unlearnkit ledger show 7", "unlearnkit ledger show batch-0001")
)
def show_entry(
    name: Annotated[
        str, typer.Argument(help="The number of an entry, a batch, or a request's id.")
    ],
    folder: Folder = HERE,
) -> None:
    """Print an entry; all entries of a batch or of a request, as JSON."""
    _needed()
    from unlearnkit.cli.console import print_json

    with _open(folder) as register:
        if name.isdecimal():
            found = [register.entry(int(name))]
        else:
            found = [
                e
                for e in register.entries()
                if name in {e.body.get("id"), e.body.get("batch")}
                or name in e.body.get("requests", ())
            ]
            if not found:
                register.request(name)  # an unknown id is an error that says what to do
    print_json([e.facts() for e in found])


@ledger_app.command(
    "verify",
    epilog=examples("unlearnkit ledger verify", "unlearnkit ledger verify --head head.json"),
)
def verify_ledger(
    folder: Folder = HERE,
    head: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A head that was exported before, kept elsewhere."),
    ] = None,
    json: Json = False,
) -> None:
    """Check the chain, states, certificates and files; exit 1 where anything is wrong."""
    _needed()
    from unlearnkit.cli.console import print_json
    from unlearnkit.core.errors import InputError
    from unlearnkit.core.files import read_text
    from unlearnkit.ledger.ledger_check import check

    wrong = check(folder, None if head is None else read_text(head, "verify").encode())
    if json:
        print_json({"verified": not wrong, "wrong": wrong})
    elif not wrong:
        print("verified")
    if wrong:
        more = f", and {len(wrong) - 1} more faults" if len(wrong) > 1 else ""
        raise InputError(f"verify: {wrong[0]}{more}; put back a copy of what was changed")


@ledger_app.command("rerun", epilog=examples("unlearnkit ledger rerun batch-0001"))
def rerun_batch(
    batch: Annotated[str, typer.Argument(help="A published batch.")],
    folder: Folder = HERE,
    case: CaseName = None,
    trust: TrustLedger = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Repeat a deletion and compare rows and model with what was recorded."""
    _needed()
    from unlearnkit.cli.console import Console, print_json, print_table
    from unlearnkit.core.errors import InputError
    from unlearnkit.ledger.rerun import rerun

    with Console(quiet=quiet) as talk:
        found = rerun(folder, batch, _case(folder, case, trust), reporter=talk)
    if json:
        print_json(found.__dict__)
    else:
        rows = "the same" if found.same_rows else "OTHERS"
        print_table(("batch", "rows", "model"), [(batch, rows, _same(found.same_model))])
    if not (found.same_rows and found.same_model):
        why = "; ".join(found.differences) or "nothing else differs, so the records or files do"
        raise InputError(f"rerun: {batch}: not what was recorded: {why}")


def _same(holds: bool) -> str:
    return "the same, bit by bit" if holds else "ANOTHER"


@ledger_app.command(
    "carriers", epilog=examples("unlearnkit ledger carriers", "unlearnkit ledger carriers --json")
)
def carriers(
    folder: Folder = HERE, case: CaseName = None, trust: TrustLedger = False, json: Json = False
) -> None:
    """List what still holds deleted data, and what to do with it."""
    _needed()
    from unlearnkit.cli.console import print_facts
    from unlearnkit.ledger.carriers import find_carriers

    found = find_carriers(folder, _case(folder, case, trust))
    facts = [c.model_dump(mode="json") for c in found]
    head = {k: k for k in ("kind", "holds", "ours", "place", "action")}
    print_facts(facts if json else [_said(f) for f in facts], json, head)


def _said(facts: dict[str, Any]) -> dict[str, Any]:
    return facts | {"ours": "yes" if facts["ours"] else "no"}


@ledger_app.command(
    "purge",
    epilog=examples("unlearnkit ledger purge", "unlearnkit ledger purge --destroy-subject-key"),
)
def purge_carriers(
    folder: Folder = HERE,
    case: CaseName = None,
    trust: TrustLedger = False,
    destroy_key: Annotated[
        bool,
        typer.Option(
            "--destroy-subject-key",
            help="Then destroy the key of the pseudonyms: nobody can tell who was deleted.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Remove carriers that are ours, look again, record both; list what others must remove."""
    _needed()
    from unlearnkit.cli.console import print_json
    from unlearnkit.ledger.carriers import purge

    entry = purge(folder, _case(folder, case, trust), destroy_key=destroy_key)
    if json:
        print_json(entry.facts())
        return
    print(f"removed {len(entry.body['removed'])}, left of ours {len(entry.body['left'])}")
    for kind, count in sorted(entry.body["others"].items()):
        print(f"left to you: {kind}: {count}; see unlearnkit ledger carriers")


@ledger_app.command("export", epilog=examples("unlearnkit ledger export --out for_the_auditor"))
def export_ledger(
    out: Annotated[Path, typer.Option(help="A folder.")],
    folder: Folder = HERE,
    json: Json = False,
) -> None:
    """Write entries, signed head, certificates, keys and the program that verifies them."""
    _needed()
    from unlearnkit.cli.console import print_json, print_table
    from unlearnkit.ledger.ledger_check import export

    files = export(folder, out)
    if json:
        print_json(files)
    else:
        print_table(("file", "SHA-256"), list(files.items()))


@ledger_app.command("card", epilog=examples("unlearnkit ledger card --out my_model"))
def model_card(
    out: Annotated[Path, typer.Option(help="The model's folder; its README.md is renewed.")],
    folder: Folder = HERE,
) -> None:
    """Write the section of a Hugging Face model card on what was unlearned; uploads nothing."""
    _needed()
    from unlearnkit.ledger.model_card import write_card

    print(write_card(folder, out))


@ledger_app.command(
    "serve",
    epilog=examples(
        "unlearnkit ledger serve",
        "unlearnkit ledger serve --ledger /srv/ledger --host 10.0.0.5 --port 8470",
    ),
)
def serve_ledger(
    folder: Folder = HERE,
    host: Annotated[
        str, typer.Option(help="Beyond this machine only where the ledger has tokens.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8470,
) -> None:
    """Take requests and show states, reports and certificates over HTTP; run answers them."""
    _needed("fastapi", "uvicorn", "jinja2", extra="service")
    from unlearnkit.cli.console import Console
    from unlearnkit.ledger.service.server import serve

    with Console() as talk:
        serve(folder, host, port, talk)


@ledger_app.command(
    "token",
    epilog=examples(
        "unlearnkit ledger token web-form --role submit",
        "unlearnkit ledger token auditors --role read",
        "unlearnkit ledger token web-form --remove",
    ),
)
def token(
    name: Annotated[str, typer.Argument(help="Of the program or the role that uses it.")],
    folder: Folder = HERE,
    role: Annotated[
        list[str] | None, typer.Option(help="submit, read, or both: give it twice.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Let it permit nothing more.")] = False,
) -> None:
    """Make a token for the service and print it, this once; its hash alone is kept."""
    _needed()
    from unlearnkit.core.errors import UnknownNameError
    from unlearnkit.ledger.service.access import AccessRole, AccessTokens

    _open(folder).close()
    tokens = AccessTokens(folder)
    if remove:
        tokens.remove(name)
        return
    for one in role or ():
        if one not in set(AccessRole):
            raise UnknownNameError("role", one, AccessRole)
    print(tokens.create(name, map(AccessRole, role or ())))


def _needed(*more: str, extra: str = "ledger") -> None:
    from importlib.util import find_spec

    from unlearnkit.core.errors import UnsupportedError

    absent = [name for name in ("cryptography", *more) if find_spec(name) is None]
    if absent:
        raise UnsupportedError(
            f"ledger: it needs {', '.join(absent)}: pip install 'unlearnkit[{extra}]'"
        )


def _open(folder: Path) -> Register:
    from unlearnkit.ledger.register import Register

    return Register(folder)


def _make_case(name: str) -> Case:
    from unlearnkit.job import Job

    return Job(case=name).make_case()


def _case(folder: Path, given: str | None, trust: bool) -> Case:
    """Return the case of a ledger; the code that it names is imported with leave alone."""
    from unlearnkit.job import check_trusted

    with _open(folder) as register:
        name = str(register.entry(1).body["case"])
    if given is None and not trust:
        check_trusted(name, "ledger")
    return _make_case(given or name)


def _late(register: Register) -> set[str]:
    from unlearnkit.ledger.register import stamp

    time = stamp(register.clock())
    return {r.id for r in register.requests("waiting", "running", "rejected") if r.deadline < time}


def _print_requests(found: list[RequestState], late: set[str] | None = None) -> None:
    from unlearnkit.cli.console import print_table

    print_table(
        ("request", "state", "arrival", "deadline", "late"),
        [
            (
                r.id,
                r.state,
                r.arrival[:19],
                r.deadline[:19],
                "LATE" if r.id in (late or ()) else "",
            )
            for r in found
        ],
    )
