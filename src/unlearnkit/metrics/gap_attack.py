"""Gap attack: membership inferred from right answers alone."""

from __future__ import annotations

from unlearnkit.core.audit_terms import ReportSection
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.metric import Goal, MetricRole, Score, metric


@metric(
    Goal.ORACLE,
    low=0.0,
    high=1.0,
    splits=[Split.FORGET, Split.HELD_OUT],
    tasks=["classification"],
    unit="fraction",
    section=ReportSection.MEMBERSHIP,
    margin=0.02,
    role=MetricRole.ATTACK,
)
def gap_attack_accuracy(e: Evidence) -> Score:
    """Accuracy of calling a row a member where its top class is right, on as many members as not.

    ``1/2 + (accuracy on forget rows - accuracy on never-seen rows) / 2``: the weakest attack, which
    any other must beat. Yeom et al., CSF 2018, arXiv:1709.01604.
    """
    forget, unseen = (
        e.errors(ModelRole.UNLEARNED, s).mean().item() for s in (Split.FORGET, Split.HELD_OUT)
    )
    return Score(0.5 + (unseen - forget) / 2)
