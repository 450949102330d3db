"""Run folders made and audited: what the commands ``unlearn``, ``audit`` and ``demo`` share."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

import unlearnkit
from unlearnkit.auditing.audit import audit
from unlearnkit.auto.driver import AutoFailedError, Chosen, unlearn
from unlearnkit.checkpoint import load_weights, save_weights
from unlearnkit.cli.folder import MASK, MODEL, ORIGINAL, RECORD, Record, check_free, new_folder
from unlearnkit.cli.talk import Talk
from unlearnkit.core.case import Case
from unlearnkit.core.digest import NUMERICS, digest, model_digest
from unlearnkit.core.errors import InputError, UnlearnkitError
from unlearnkit.core.method import Method
from unlearnkit.core.recipe import ASSUMED
from unlearnkit.core.request import ForgetRequest
from unlearnkit.core.runtime import Cost, Runtime
from unlearnkit.job import Job
from unlearnkit.localize.find import Localizer
from unlearnkit.localize.mask import Mask
from unlearnkit.localize.methods import check_maskable
from unlearnkit.oracles import oracle, train_original
from unlearnkit.report.kept import measured
from unlearnkit.report.model import Depth, Report
from unlearnkit.store import Run, Store, write_text
from unlearnkit.unlearning import Unlearned, fresh_model

STORE = "unlearnkit.sqlite"


MANY = 1000
"""Oracles of an audit above which the command asks for ``--yes``."""


def carry_out(job: Job, out: Path, *, force: bool, talk: Talk) -> Record:
    """Make a model forget and leave a run's folder.

    Everything that can be wrong with the job is found before anything is written. What comes of it
    is recorded in the store beside the folder, failures and cancellations included.

    Args:
        job: What is to be done.
        out: The folder.
        force: Whether an older run there is replaced.
        talk: Hears how it comes along.

    Returns:
        The run's record. Where ``auto`` chose, its job names the method that was chosen.

    Raises:
        AutoFailedError: If all that ``auto`` tried failed the fast audit; the folder is there, and
            holds the least bad model, marked as failed.
    """
    check_free(out, force=force)
    rt = Runtime.on(job.device, precision=job.precision, seed=job.seed, reporter=talk)
    case, request = job.resolve(talk)
    method = job.build()
    split = case.partition(request)
    mask = job.build_mask()
    if mask is not None:
        check_maskable(method, mask, split)
    job = job.exact(request, method)
    given = None if job.model is None else load_weights(fresh_model(case, rt), job.model)
    if isinstance(mask, Mask):
        mask.check_form(fresh_model(case, rt) if given is None else given)
    with new_folder(out, force=force) as part, Store(out.parent / STORE) as store:
        if given is None:
            talk.say("training the original, unless it is in the cache")
            given = train_original(case, seed=job.seed, rt=rt).model
        inputs = _inputs(job, case, given, mask)
        run = _run(job, "unlearn", digest(inputs), out)
        with _recorded(store, run):
            talk.say(f"unlearning with {method.id}")
            done, failed = _done(given, case, request, method, mask, rt)
        record = _record(job, run, inputs, done)
        save_weights(done.model, part / MODEL)
        save_weights(done.original, part / ORIGINAL)
        if done.mask is not None:
            done.mask.save(part / MASK)
        write_text(part / RECORD, record.model_dump_json(indent=1) + "\n")
    with Store(out.parent / STORE) as store:
        store.put(
            replace(
                run,
                status="done" if failed is None else "failed",
                error="" if failed is None else str(failed),
                seconds=done.seconds,
                forward=done.cost.forward,
                backward=done.cost.backward,
            ),
            facts={} if record.mask is None else {"mask": json.dumps(record.mask, sort_keys=True)},
        )
    if failed is not None:
        told = f"{failed}; the least bad is in {str(out)!r}, not to be used"
        raise AutoFailedError(told, failed.best)
    return record


def _done(
    model: nn.Module,
    case: Case,
    request: ForgetRequest | None,
    method: Method,
    mask: Mask | Localizer | None,
    rt: Runtime,
) -> tuple[Unlearned, AutoFailedError | None]:
    try:
        return unlearn(model, case, request, method, rt, mask=mask), None
    except AutoFailedError as e:
        return e.best, e


def locate(job: Job, *, talk: Talk) -> Mask:
    """Return the mask of a trained model.

    Args:
        job: Its case, request, weights, seed, device, and how to find the mask.
        talk: Hears how it comes along.

    Returns:
        The mask.
    """
    rt = Runtime.on(job.device, precision=job.precision, seed=job.seed, reporter=talk)
    case, request = job.resolve(talk)
    how = job.build_mask()
    assert isinstance(how, Localizer)
    how.check(case.partition(request))
    if job.model is not None:
        model = load_weights(fresh_model(case, rt), job.model)
    else:
        talk.say("training the original, unless it is in the cache")
        model = train_original(case, seed=job.seed, rt=rt).model
    talk.say(f"looking for the weights by {how.words}")
    return how.find(model.to(rt.device), case, request, rt)


def examine(
    folder: Path,
    *,
    tier: Depth,
    oracles: int,
    models: int = 64,
    device: str | None,
    ray: str | None = None,
    yes: bool = False,
    talk: Talk,
) -> Report:
    """Audit a run and write its report into the folder.

    Args:
        folder: The run's folder.
        tier: Whether to compare with retrained models, and whether with many.
        oracles: How many of them.
        models: How many of each kind at tier strong.
        device: Where to compute; where the run was made when None.
        ray: Address of a Ray cluster that trains models from scratch; they are trained here when
            None.
        yes: Whether more than ``MANY`` oracles are meant.
        talk: Hears how it comes along.

    Returns:
        The report; ``report.json`` and, with the report extra, ``report.html`` are written.

    Raises:
        InputError: If the case's rows or the weights are not those of the run.
    """
    record = Record.read(folder)
    job = record.job
    rt = Runtime.on(device or job.device, precision=job.precision, seed=job.seed, reporter=talk)
    case, request = job.resolve(talk)
    if tier == "reference":
        _tell_cost(case, request, oracles, yes=yes, talk=talk)
    if _rows(case) != record.digests["train"]:
        raise InputError(
            f"audit: the rows of {job.case} are no longer those of the run; run it again"
        )
    done = Unlearned(
        model=_weights(case, rt, folder / MODEL, record.digests["unlearned"]),
        original=_weights(case, rt, folder / ORIGINAL, record.digests["original"]),
        case=case,
        request=request,
        method=job.build(),
        seed=job.seed,
        seconds=record.seconds,
        cost=Cost(record.forward, record.backward, record.peak_bytes),
        notes=record.notes,
        mask=_kept_mask(record, folder / MASK),
    )
    asked = {"run": record.key, "tier": tier, "oracles": oracles}
    asked |= {"models": models} if tier == "strong" else {}
    run = _run(job, "audit", digest(asked), folder)
    with Store(folder.parent / STORE) as store:
        with _recorded(store, run):
            truth = None
            if tier == "reference":
                talk.say("retraining without the forgotten rows, unless it is in the cache")
                truth = oracle(case, request, seeds=oracles, rt=rt, ray=ray)
            talk.say("auditing")
            report = audit(done, oracle=truth, tier=tier, models=models, rt=rt, ray=ray)
        report.save(folder / "report.json")
        if find_spec("jinja2") and find_spec("matplotlib"):
            report.save(folder / "report.html")
        else:
            talk.note("no report.html; it needs: pip install 'unlearnkit[report]'")
        store.put(run, measured(report))
    return report


def _tell_cost(
    case: Case, request: ForgetRequest | None, oracles: int, *, yes: bool, talk: Talk
) -> None:
    """Say what so many oracles take, and refuse very many that nobody has said are meant."""
    retain = case.partition(request).retain
    epochs = (case.recipe or ASSUMED).epochs
    rows = 0 if retain is None else len(retain) * epochs * oracles
    told = f"{oracles:,} models to retrain, {rows:,} rows forward and backward in all"
    if oracles > MANY and not yes:
        raise InputError(
            f"audit: oracles: {told}, and more than {MANY:,} models need --yes; use 5 to 100, or"
            " add --yes"
        )
    talk.say(f"at most {told}; those in the cache are not trained again")


@contextmanager
def _recorded(store: Store, run: Run) -> Iterator[None]:
    """Record what fails or is cancelled."""
    try:
        yield
    except KeyboardInterrupt:
        store.put(replace(run, status="cancelled"))
        raise
    except UnlearnkitError as e:
        store.put(replace(run, status="failed", error=str(e)))
        raise


def _kept_mask(record: Record, path: Path) -> Mask | None:
    if record.mask is None:
        return None
    mask = Mask.load(path)
    if mask.facts() != record.mask:
        raise InputError(f"audit: {str(path)!r} was changed after the run; run it again")
    return mask


def _inputs(
    job: Job, case: Case, original: nn.Module, mask: Mask | Localizer | None
) -> dict[str, Any]:
    named: dict[str, Any] = {"mask": mask.digest()} if isinstance(mask, Mask) else {}
    return {
        "job": job.model_dump(mode="json", exclude={"model", *named}),
        **named,
        "original": model_digest(original),
        "train": _rows(case),
        "numerics": NUMERICS,
        "version": unlearnkit.__version__,
    }


def _rows(case: Case) -> str:
    if case.parts is not None:
        go, stay = case.parts
        return digest({"forget": go.key(), "retain": stay.key() if stay else None})
    return case.train.key() if case.train else ""


def _run(job: Job, kind: str, key: str, folder: Path) -> Run:
    return Run(
        key=key,
        kind=kind,
        case_name=job.case,
        request=job.asked(),
        method=job.method,
        settings=job.settings,
        seed=job.seed,
        status="done",
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        folder=str(folder),
        version=unlearnkit.__version__,
    )


def _record(job: Job, run: Run, inputs: dict[str, Any], done: Unlearned) -> Record:
    choice = done.choice if isinstance(done, Chosen) else None
    if choice is not None:
        settings = done.method.model_dump(mode="json")
        job = job.model_copy(update={"method": done.method.id, "settings": settings})
    return Record(
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
            "original": inputs["original"],
            "unlearned": model_digest(done.model),
            "train": inputs["train"],
        },
        seconds=done.seconds,
        forward=done.cost.forward,
        backward=done.cost.backward,
        peak_bytes=done.cost.peak_bytes,
        notes=done.notes,
        mask=None if done.mask is None else done.mask.facts(),
        auto=choice,
    )


def _weights(case: Case, rt: Runtime, path: Path, want: str) -> nn.Module:
    model = load_weights(fresh_model(case, rt), path).eval()
    if model_digest(model) != want:
        raise InputError(f"audit: {str(path)!r} was changed after the run; run it again")
    return model
