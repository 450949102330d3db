"""Kinds of evidence on a model: exact, certified, empirical, each by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlearnkit.core.errors import InputError
from unlearnkit.core.evidence_statement import EvidenceStatement
from unlearnkit.report.report import Report
from unlearnkit.retrieval.retrieval_model import store_statement
from unlearnkit.unlearning.run_method import Unlearned

if TYPE_CHECKING:
    from unlearnkit.linear.certificate import Certificate

OTHER = "pass what unlearn of unlearnkit.linear or unlearnkit.sisa returned"


def read_certificate(
    given: Certificate | EvidenceStatement | None, done: Unlearned
) -> EvidenceStatement | None:
    """Return the statement of a certificate that comes with a model; None without one.

    Args:
        given: As ``audit`` takes it.
        done: The model that it is about.

    Returns:
        The statement.

    Raises:
        InputError: If it is no certificate, guarantees nothing, or is about fewer rows.
    """
    if given is None or isinstance(given, EvidenceStatement):
        if given is not None and given.kind == "empirical":
            raise InputError(f"certificate: an empirical statement is no certificate; {OTHER}")
        return given
    make = getattr(given, "as_statement", None)
    if make is None:
        raise InputError(f"certificate: got {type(given).__name__}; {OTHER}")
    forget, split = done.parts.forget, done.parts
    covered = given.rows if split.corrections is None else given.corrected_labels
    if forget is not None and not given.features and covered < len(forget):
        what = "removed" if split.corrections is None else "corrected"
        raise InputError(
            f"certificate: it is of a model with {covered} {what} rows, and the request names"
            f" {len(forget)}; pass the certificate of this model and this request"
        )
    found: EvidenceStatement = make()
    return found


def with_evidence(report: Report, done: Unlearned, certificate: EvidenceStatement | None) -> Report:
    """Return a report with what is known of the model by each kind of evidence.

    Nothing else in the report changes: a guarantee is no measurement, and a measurement is no
    proof.

    Args:
        report: What the audit found.
        done: The model.
        certificate: What came with it.

    Returns:
        The report.
    """
    found = [s for s in (_by_construction(done), _of_store(done), certificate) if s is not None]
    count = len(report.provenance.oracle_seeds) + len(report.provenance.outside_oracles)
    against = f"{count} retrained models" if count else "no retrained model"
    found.append(
        EvidenceStatement(
            kind="empirical",
            statement=report.sentence,
            assumptions=report.limits,
            source=f"audit, {report.tier.value} tier, {against}",
        )
    )
    order = {"exact": 0, "certified": 1, "empirical": 2}
    found.sort(key=lambda s: order[s.kind])
    return report.model_copy(update={"evidence": tuple(found)})


def _of_store(done: Unlearned) -> EvidenceStatement | None:
    """Return what was checked of a retrieval store; None where there is none to speak of."""
    if done.parts.forget is None:
        return None
    source = f"method {done.method.id}"
    return store_statement(
        done.original, done.model, done.parts.forget, done.parts.corrections, source
    )


def _by_construction(done: Unlearned) -> EvidenceStatement | None:
    info = done.method.info
    if not info.exact:
        return None
    rows = "the forget set" if done.parts.corrections is None else "the rows as they were"
    return EvidenceStatement(
        kind="exact",
        statement=f"no part of the model was trained on {rows}",
        assumptions=info.exact,
        source=f"method {done.method.id}, seed {done.seed}",
    )
