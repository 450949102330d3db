"""Rerun: a deletion repeated from its records, digest by digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from unlearnkit import catalog
from unlearnkit.auto.chooser import unlearn
from unlearnkit.core.case import Case
from unlearnkit.core.digest import model_digest, source_digest
from unlearnkit.core.errors import InputError
from unlearnkit.core.runtime import Reporter, Runtime
from unlearnkit.ledger.deletion_run import (
    EXACT,
    commitment,
    environment,
    load_model,
)
from unlearnkit.ledger.new_ledger import MODELS, ORIGINAL, WEIGHTS
from unlearnkit.ledger.register import Register
from unlearnkit.ledger.subject_rows import KINDS, merge, removals, with_keys
from unlearnkit.ledger.subjects import SubjectKeys
from unlearnkit.unlearning.run_method import fresh_model


@dataclass(frozen=True)
class RerunOutcome:
    """What a repeated deletion shows."""

    batch: str
    same_rows: bool
    """Whether the rows are those that were committed to."""

    same_model: bool
    """Whether the model has the same bits."""

    digest: str
    """Of the model that came out."""

    differences: tuple[str, ...]
    """What is other than it was: code, Python, torch, threads."""


def rerun(
    folder: Path, batch: str, case: Case, *, reporter: Reporter | None = None
) -> RerunOutcome:
    """Carry out a published deletion once more, and compare; nothing is kept.

    Args:
        folder: The ledger.
        batch: Its id.
        case: With the rows of this batch, as on the first day.
        reporter: Hears of progress.

    Returns:
        Whether rows and model are the same, bit by bit.

    Raises:
        InputError: If the batch is unknown, or its rows, key or model before are gone.
    """
    with Register(folder) as register:
        done = {e.body["batch"]: e for e in register.entries("certificate")}
        if batch not in done:
            raise InputError(f"rerun: no batch {batch!r} is done; there are: {', '.join(done)}")
        begun = next(e.body for e in register.entries("batch") if e.body["id"] == batch)
        attempt = register.entry(done[batch].body["attempt"]).body
        order = list(done)
        before = order[: order.index(batch)]
        place = done[before[-1]].body["folder"] if before else f"{MODELS}/{ORIGINAL}"
        keys = SubjectKeys(folder)
        case = with_keys(case)
        names = removals(register, keys, case)
    earlier = {
        kind: list(dict.fromkeys(n for b in before for n in names[b][kind])) for kind in KINDS
    }
    gone, request = merge(case, earlier), merge(case, names[batch])
    if request is None:
        raise InputError(
            "rerun: the case has no rows of this batch, or the key of its pseudonyms is destroyed;"
            " give the case as it was on the first day"
        )
    case = case if gone is None else case.after_deletion(gone)
    rt = Runtime.on(attempt["device"], seed=attempt["seed"], reporter=reporter)
    model = _model_before(folder / place / WEIGHTS, str(begun["model"]), attempt, case, rt)
    how = catalog.method(attempt["id"], None, **attempt["settings"])
    found = model_digest(unlearn(model, case, request, how, rt).model)
    now = {"source": source_digest(), **environment()}
    then = {"source": begun["code"]["source"], **begun["environment"]}
    return RerunOutcome(
        batch,
        commitment(case, request, keys, begun["subject_key"]) == begun["commitment"],
        found == attempt["model"],
        found,
        tuple(f"{k}: {then[k]} then, {now[k]} now" for k in now if now[k] != then[k]),
    )


def _model_before(
    path: Path, want: str, attempt: Mapping[str, Any], case: Case, rt: Runtime
) -> nn.Module:
    """Return the model that the deletion began from; retraining does not read it."""
    if path.is_file():
        return load_model(path, want, case, rt)
    if attempt["id"] == EXACT:
        return fresh_model(case, rt)
    raise InputError(
        f"rerun: the model before {attempt['batch']} was purged, and only retraining can be"
        " repeated without it"
    )
