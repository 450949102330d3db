"""Fast verdict: what a fast audit finds, without the rest of its report."""

from __future__ import annotations

from dataclasses import dataclass

from unlearnkit.auditing.audit_evidence import evidence_of
from unlearnkit.auditing.control_models import ControlModels
from unlearnkit.auditing.metric_table import Reference, metric_rows
from unlearnkit.auditing.splits import choose
from unlearnkit.auditing.verdict_metrics import ATTACKS, UTILITY
from unlearnkit.auditing.verdicts_fast import RELEARNING, FastAudit
from unlearnkit.auditing.verdicts_reference import findings_of_fast_audit
from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.core.request_inference import infer_request
from unlearnkit.core.runtime import Runtime
from unlearnkit.report.schema import Finding
from unlearnkit.unlearning.run_method import Unlearned, check_weights


@dataclass(frozen=True)
class FastVerdict:
    """What a fast audit finds."""

    findings: tuple[Finding, ...]
    metrics: frozenset[str]
    """Ids of the numbers that could be had."""


def fast_verdict(
    done: Unlearned,
    rt: Runtime,
    controls: ControlModels,
    *,
    retain_rows: int,
    damage: bool = True,
) -> FastVerdict:
    """Return the findings of a fast audit alone: no number is computed that no verdict reads.

    Args:
        done: A model whose weights are not those of the original, with a forget set.
        rt: Where to run.
        controls: Control models, shared by audits of one request.
        retain_rows: Most retained rows that are looked at.
        damage: Whether to look for damage, and not for leaks alone.
    """
    check_weights(done.model, "unlearned")
    request = infer_request(done.request, done.parts)
    views = choose(done.case, done.parts, rt, request, retain_rows=retain_rows).views
    evidence = evidence_of(done, views, rt)
    alone = (*ATTACKS, RELEARNING, "accuracy_forget")
    known: dict[str, Reference] = dict.fromkeys(alone, (None, None))
    wanted = frozenset({*alone, *(UTILITY if damage else ())})
    rows = tuple(metric_rows(evidence, AuditTier.FAST, known, only=wanted))
    table = {r.metric: r for r in rows}
    gone = bool(done.parts.removed_classes)
    found = findings_of_fast_audit(FastAudit(table, evidence, controls, gone, unchanged=False))
    return FastVerdict(found, frozenset(table))
