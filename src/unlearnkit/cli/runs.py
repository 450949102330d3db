"""Runs: what ``unlearn``, ``audit``, ``localize``, ``moments`` and ``demo`` do."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

import unlearnkit
from unlearnkit.auditing.audit import audit
from unlearnkit.auditing.recipe_check import ORIGINALS
from unlearnkit.auto.chooser import unlearn
from unlearnkit.auto.selection import AutoFailedError, SelectedModel
from unlearnkit.checkpoint import load_weights, save_weights
from unlearnkit.cli.console import Console
from unlearnkit.cli.continuation import Continuation, check_continued
from unlearnkit.cli.run_checks import case_facts, compare_case, recorded_weights
from unlearnkit.cli.run_folder import (
    MASK,
    MODEL,
    MOMENTS,
    ORIGINAL,
    RECORD,
    ContinuedRun,
    RunFolderRecord,
    check_free,
    new_folder,
)
from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.core.case import Case
from unlearnkit.core.digest import NUMERICS, digest, model_digest
from unlearnkit.core.errors import InputError, UnlearnkitError
from unlearnkit.core.files import check_writable, write_text, write_together
from unlearnkit.core.method import Method
from unlearnkit.core.ranks import is_first
from unlearnkit.core.recipe import ASSUMED
from unlearnkit.core.request import ForgetRequest
from unlearnkit.core.runtime import Cost, Runtime
from unlearnkit.job import Job, check_trusted
from unlearnkit.linalg.gradient_projection import RetainedSubspace
from unlearnkit.linalg.input_moments import InputMoments
from unlearnkit.localize.localizer import Localizer
from unlearnkit.localize.mask import Mask
from unlearnkit.localize.method_masks import check_maskable
from unlearnkit.oracles import Oracles, oracle, train_original
from unlearnkit.report.report import Report
from unlearnkit.report.store_rows import report_measurements
from unlearnkit.store import Run, Store
from unlearnkit.train.shared_run import on_ranks
from unlearnkit.unlearning.projected_steps import check_projectable
from unlearnkit.unlearning.requirements import check_needs
from unlearnkit.unlearning.run_method import Unlearned, fresh_model

STORE = "unlearnkit.sqlite"
REPORT, PAGE = "report.json", "report.html"


MANY = 1000
"""Oracles of an audit above which the command asks for ``--yes``."""


@on_ranks("unlearn")
def run_unlearn(job: Job, out: Path, *, force: bool, talk: Console) -> RunFolderRecord:
    """Unlearn as a job says and write a run folder.

    All errors of the job are found before anything is written. The store next to the folder
    records the run, failures and cancellations included.

    Returns:
        The record. Where ``auto`` chose, its job names the method that was chosen.

    Raises:
        AutoFailedError: If all that ``auto`` tried failed the fast audit; the folder then holds the
            least bad model, marked as failed.
    """
    check_free(out, force=force)
    Store.check(out.parent / STORE)
    rt = Runtime.on(job.device, precision=job.precision, seed=job.seed, reporter=talk)
    made = job.make_case()
    continued = check_continued(job, out, rt, made)
    case, request = job.resolve(talk, made=made)
    method = job.build()
    case, limits = job.with_moments(case, method), _limits(job, case, request, method)
    job = job.with_all_settings(request, method)
    if continued is not None:
        continued.check_moments(case)
    check_needs(method, case, case.partition(request), trained=False)
    given = continued.model if continued else _weights(job, case, rt, talk)
    if isinstance(limits.mask, Mask):
        limits.mask.check_form(fresh_model(case, rt) if given is None else given)
    facts = case_facts(case, request)
    files = _file_digests(limits, case)
    with new_folder(out, force=force) as part, Store(out.parent / STORE) as store:
        if given is None:
            talk.say("training the original, unless cached")
            key = digest(_inputs(job, facts, None, files))
            with _recorded(store, _run(job, "unlearn", key, out)):
                given = train_original(case, seed=job.seed, rt=rt).model
        inputs = _inputs(job, facts, given, files)
        run = _run(job, "unlearn", digest(inputs), out)
        with _recorded(store, run):
            talk.say(f"unlearning with {method.id}")
            done, failed = _done(given, case, request, method, limits, rt)
            facts |= _save(done, part, rt, moments=job.reads_moments(method))
        record = _record(job, run, inputs["original"], facts, done, continued)
        write_text(part / RECORD, record.model_dump_json(indent=1) + "\n")
    _keep(out, run, record, failed)
    if failed is not None:
        told = f"{failed}; the least bad is in {str(out)!r}, not to be used"
        raise AutoFailedError(told, failed.best)
    return record


@dataclass(frozen=True)
class _Limits:
    """What holds a run back: its mask and its projection."""

    mask: Mask | Localizer | None
    projection: RetainedSubspace | None


def _limits(job: Job, case: Case, request: ForgetRequest | None, method: Method) -> _Limits:
    """Return the mask and the projection of a job; those that the method cannot keep to fail."""
    found = _Limits(job.build_mask(), job.build_projection())
    if found.mask is not None:
        check_maskable(method, found.mask, case.partition(request))
    if found.projection is not None:
        check_projectable(method, masked=found.mask is not None)
    return found


def _weights(job: Job, case: Case, rt: Runtime, talk: Console) -> nn.Module | None:
    """Return the model that a job names; None where it is trained from scratch."""
    if job.model is None:
        return None
    return load_weights(fresh_model(case, rt), job.model, reporter=talk)


def _save(done: Unlearned, part: Path, rt: Runtime, *, moments: bool) -> dict[str, str]:
    """Write what a run has made; return the digest of the moments for a further request."""
    save_weights(done.model, part / MODEL)
    save_weights(done.original, part / ORIGINAL)
    if done.mask is not None:
        done.mask.save(part / MASK)
    left = done.input_moments_after_deletion(rt) if moments else None
    if not isinstance(left, InputMoments):
        return {}
    left.save(part / MOMENTS)
    return {"moments": left.digest()}


def _keep(out: Path, run: Run, record: RunFolderRecord, failed: AutoFailedError | None) -> None:
    """Record a run in the store next to its folder."""
    with Store(out.parent / STORE) as store:
        store.save_run(
            replace(
                run,
                status="done" if failed is None else "failed",
                error="" if failed is None else str(failed),
                seconds=record.seconds,
                forward=record.forward,
                backward=record.backward,
            ),
            facts={} if record.mask is None else {"mask": json.dumps(record.mask, sort_keys=True)},
        )


def _done(
    model: nn.Module,
    case: Case,
    request: ForgetRequest | None,
    method: Method,
    limits: _Limits,
    rt: Runtime,
) -> tuple[Unlearned, AutoFailedError | None]:
    mask, projection = limits.mask, limits.projection
    try:
        return unlearn(model, case, request, method, rt, mask=mask, projection=projection), None
    except AutoFailedError as e:
        return e.best, e


@on_ranks("localize")
def run_localize(job: Job, *, talk: Console) -> Mask:
    """Return the mask of a trained model, as a job says."""
    rt = Runtime.on(job.device, precision=job.precision, seed=job.seed, reporter=talk)
    case, request = job.resolve(talk)
    how = job.build_mask()
    assert isinstance(how, Localizer)
    how.check(case.partition(request))
    model = _trained(job, case, rt, talk)
    talk.say(f"finding the mask by {how.words}")
    return how.find(model.to(rt.device), case, request, rt)


@on_ranks("moments")
def run_moments(job: Job, *, talk: Console) -> InputMoments:
    """Return the input moments of a trained model on all training rows, as a job says."""
    rt = Runtime.on(job.device, precision=job.precision, seed=job.seed, reporter=talk)
    case = job.make_case()
    model = _trained(job, case, rt, talk)
    talk.say("measuring what its layers take in")
    return InputMoments.of_case(model.to(rt.device), case, rt)


def _trained(job: Job, case: Case, rt: Runtime, talk: Console) -> nn.Module:
    """Return the model that a job names, or the one that its seed trains."""
    model = _weights(job, case, rt, talk)
    if model is None:
        talk.say("training the original, unless cached")
        model = train_original(case, seed=job.seed, rt=rt).model
    return model


@on_ranks("audit")
def run_audit(
    folder: Path,
    *,
    case: str | None = None,
    trust: bool = False,
    tier: AuditTier,
    oracles: int,
    oracle_weights: Sequence[Path] = (),
    models: int = 64,
    device: str | None,
    ray: str | None = None,
    yes: bool = False,
    list_rows: bool = False,
    recipe_check: bool = True,
    robustness: bool = False,
    talk: Console,
) -> Report:
    """Audit a run and write ``report.json`` and, with the report extra, ``report.html``.

    A ``case`` replaces that of the record; the code that a record names is imported with ``trust``.
    ``oracle_weights`` are files of models retrained elsewhere. ``yes`` allows many oracles.

    Returns:
        The report. Changed weights, a changed case and a place that cannot be written are errors.
    """
    record = RunFolderRecord.read(folder)
    job = record.job
    if case is not None:
        job = job.model_copy(update={"case": case})
    elif not trust:
        check_trusted(job.case, "audit")
    check_writable(folder / REPORT, "audit")
    Store.check(folder.parent / STORE)
    rt = Runtime.on(device or job.device, precision=job.precision, seed=job.seed, reporter=talk)
    subject, request = job.resolve(talk)
    if tier == "reference" and not oracle_weights:
        _print_cost(subject, request, oracles, recipe_check, yes=yes, talk=talk)
    warnings = compare_case(record, subject, request)
    done = _unlearned(folder, record, job, subject, request, rt)
    given = [load_weights(fresh_model(subject, rt), path).eval() for path in oracle_weights]
    digests = [model_digest(m) for m in given]
    inputs = {"run": record.key, "tier": tier, "oracles": digests or oracles}
    inputs |= ({"models": models} if tier == "strong" else {}) | _switches(recipe_check, robustness)
    run = _run(job, "audit", digest(inputs), folder)
    with Store(folder.parent / STORE) as store:
        with _recorded(store, run):
            truth = Oracles.from_models(given, request=request) if given else None
            if truth is None and tier == "reference":
                talk.say("retraining without the forget set, unless cached")
                truth = oracle(subject, request, seeds=oracles, rt=rt, ray=ray)
            talk.say("auditing")
            report = audit(
                done, oracle=truth, tier=tier, models=models, rt=rt, ray=ray, list_rows=list_rows,
                recipe_check=recipe_check, robustness=robustness,
            )  # fmt: skip
            report = report.model_copy(update={"warnings": (*warnings, *report.warnings)})
            _write(report, folder, talk)
        outside = {"oracles": f"from outside, weights {', '.join(digests)}"} if digests else {}
        store.save_run(run, report_measurements(report), facts=outside)
    return report


def _switches(recipe_check: bool, robustness: bool) -> dict[str, int]:
    """Return what an audit's key says of its switches: nothing where they are as usual."""
    switched: dict[str, int] = {} if recipe_check else {"recipe_check": False}
    return switched | {"robustness": True} if robustness else switched


def _unlearned(
    folder: Path,
    record: RunFolderRecord,
    job: Job,
    case: Case,
    request: ForgetRequest | None,
    rt: Runtime,
) -> Unlearned:
    """Return the result that a run folder holds; changed files are an error."""
    return Unlearned(
        model=recorded_weights(case, rt, folder / MODEL, record.digests["unlearned"]).eval(),
        original=recorded_weights(case, rt, folder / ORIGINAL, record.digests["original"]).eval(),
        case=case,
        request=request,
        method=job.build(),
        seed=job.seed,
        seconds=record.seconds,
        cost=Cost(record.forward, record.backward, record.peak_bytes),
        notes=record.notes,
        mask=_kept_mask(record, folder / MASK),
        projection=job.build_projection(),
    )


def _write(report: Report, folder: Path, talk: Console) -> None:
    """Write a report's files together, so that they never mix two audits."""
    page = folder / PAGE
    files = [folder / REPORT]
    if find_spec("jinja2") and find_spec("matplotlib"):
        files.append(page)
    else:
        talk.note("no report.html; it needs: pip install 'unlearnkit[report]'")
    write_together({path: report.content(path) for path in files})
    if page not in files and is_first():
        page.unlink(missing_ok=True)  # it is of an older audit


def _print_cost(
    case: Case,
    request: ForgetRequest | None,
    oracles: int,
    recipe_check: bool,
    *,
    yes: bool,
    talk: Console,
) -> None:
    """Print the cost of the oracles; refuse more than ``MANY`` without ``yes``."""
    retain = case.partition(request).retain
    epochs = (case.recipe or ASSUMED).epochs
    rows = 0 if retain is None else len(retain) * epochs * oracles
    models = f"{oracles:,} model{'s' if oracles > 1 else ''} to retrain"
    cost = f"{models}, {rows:,} rows forward and backward in all"
    if case.train_model is not None:
        cost = f"{models}, one at a time: train_model cannot be stacked"
    if oracles > MANY and not yes:
        raise InputError(
            f"audit: oracles: {cost}, and more than {MANY:,} models need --yes; use 5 to 100, or"
            " add --yes"
        )
    more = f", and up to {ORIGINALS} originals for the recipe check" if recipe_check else ""
    talk.say(f"at most {cost}{more}; those in the cache are reused")


@contextmanager
def _recorded(store: Store, run: Run) -> Iterator[None]:
    """Record what fails or is cancelled."""
    try:
        yield
    except KeyboardInterrupt:
        store.save_run(replace(run, status="cancelled"))
        raise
    except UnlearnkitError as e:
        store.save_run(replace(run, status="failed", error=str(e)))
        raise


def _kept_mask(record: RunFolderRecord, path: Path) -> Mask | None:
    if record.mask is None:
        return None
    mask = Mask.load(path)
    if mask.facts() != record.mask:
        raise InputError(f"audit: {str(path)!r} was changed after the run; run it again")
    return mask


def _file_digests(limits: _Limits, case: Case) -> dict[str, str]:
    """Return the digests of a saved mask and of input moments, which stand for their paths."""
    found = {"mask": limits.mask.digest()} if isinstance(limits.mask, Mask) else {}
    kept = case.input_moments
    return found | ({"moments": kept.digest()} if isinstance(kept, InputMoments) else {})


def _inputs(
    job: Job, facts: dict[str, str], original: nn.Module | None, files: dict[str, str]
) -> dict[str, Any]:
    """Return all that decides a run; its original is None while it is not trained."""
    return {
        "job": job.model_dump(mode="json", exclude={"model", *files}),
        **files,
        "original": None if original is None else model_digest(original),
        "case": facts,
        "numerics": NUMERICS,
        "version": unlearnkit.__version__,
    }


def _run(job: Job, kind: str, key: str, folder: Path) -> Run:
    return Run(
        key=key,
        kind=kind,
        case_name=job.case,
        request=job.request_text(),
        method=job.method,
        settings=job.settings,
        seed=job.seed,
        status="done",
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        folder=str(folder),
        version=unlearnkit.__version__,
    )


def _record(
    job: Job,
    run: Run,
    original: str,
    facts: dict[str, str],
    done: Unlearned,
    continued: Continuation | None,
) -> RunFolderRecord:
    before = None if continued is None else continued.run
    choice = done.choice if isinstance(done, SelectedModel) else None
    if choice is not None:
        settings = done.method.model_dump(mode="json")
        job = job.model_copy(update={"method": done.method.id, "settings": settings})
    return RunFolderRecord(
        job=job,
        key=run.key,
        made=run.started,
        versions={
            "unlearnkit": unlearnkit.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "platform": sys.platform,
        },
        digests={
            "original": original,
            "unlearned": model_digest(done.model),
            **facts,
        },
        seconds=done.seconds,
        forward=done.cost.forward,
        backward=done.cost.backward,
        peak_bytes=done.cost.peak_bytes,
        notes=(*done.notes, *([] if before is None else [_earlier(before)])),
        mask=None if done.mask is None else done.mask.facts(),
        auto=choice,
        continues=before,
    ).sealed()


def _earlier(run: ContinuedRun) -> str:
    many = "s" if run.requests != 1 else ""
    rows = f" ({run.rows:,} rows)" if run.rows else ""
    return (
        f"the model came from a run that had answered {run.requests} request{many}{rows}; retrained"
        " models are without what these removed as well"
    )
