"""Provenance: versions, seeds and digests behind a report."""

from __future__ import annotations

import datetime
import platform

import torch

from unlearnkit.core.case import Case
from unlearnkit.core.digest import NUMERICS, model_digest
from unlearnkit.core.errors import InputError
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.version import __version__
from unlearnkit.oracles import Oracles
from unlearnkit.report.schema import Provenance
from unlearnkit.unlearning.run_method import Unlearned


def provenance(done: Unlearned, oracles: Oracles | None, rt: Runtime) -> Provenance:
    """Return where the numbers of an audit come from.

    Args:
        done: The unlearned model, its original and its method.
        oracles: The retrained models; None where there are none.
        rt: Where the audit ran.

    Returns:
        The provenance, without digests of data and request.
    """
    outside = oracles is not None and oracles.outside
    return Provenance(
        version=__version__,
        torch=str(torch.__version__),
        device=f"{rt.device.type} ({platform.machine()})",
        precision=rt.precision,
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        design="REUSE",
        method=done.method.id,
        settings=done.method.model_dump(mode="json"),
        method_seed=done.seed,
        oracle_seeds=tuple(r.seed for r in oracles.runs) if oracles and not outside else (),
        outside_oracles=tuple(map(model_digest, oracles.models)) if oracles and outside else (),
        training=_training(done.case),
        numerics=NUMERICS,
        original=model_digest(done.original),
        unlearned=model_digest(done.model),
        notes=done.notes,
    )


def _training(case: Case) -> str:
    """Return name and version, or digest, of a case's training loop; empty where it has none."""
    if case.train_model is None:
        return ""
    try:
        spec = case.train_model.spec()
    except InputError:  # it cannot be read, and no model of it was kept
        return case.train_model.name
    return f"train_model {spec['name']}, " + (
        f"version {spec['version']}" if "version" in spec else f"content {spec['content']}"
    )
