"""Costs of unlearning: work and time, compared with retraining."""

import math

from unlearnkit.core.audit_terms import AuditTier, ReportSection
from unlearnkit.core.metric import Goal, declare

for _id, _unit, _doc in (
    (
        "cost_ratio",
        "of retraining",
        "Work of unlearning over that of retraining: rows forward plus twice rows backward.",
    ),
    (
        "cost_backward_ratio",
        "of retraining",
        "Rows backward in unlearning over those in retraining.",
    ),
    ("cost_seconds", "seconds", "Wall time of unlearning, on the machine that ran it."),
):
    declare(
        _id,
        Goal.LOW,
        doc=_doc,
        low=0.0,
        high=math.inf,
        unit=_unit,
        tier=AuditTier.FAST,
        section=ReportSection.COST,
        family="cost",
    )
