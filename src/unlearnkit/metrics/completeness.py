"""Completeness of unlearning: overlap of what the model and retrained models answer."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unlearnkit.core.audit_terms import AuditTier, ReportSection
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.metric import Goal, MetricRole, Score, metric


@metric(
    Goal.HIGH,
    low=0.0,
    high=1.0,
    reads=[ModelRole.UNLEARNED, ModelRole.ORACLE],
    each=[Split.FORGET, Split.RETAIN, Split.TEST],
    ideal=1.0,
    unit="fraction",
    tasks=["classification"],
    tier=AuditTier.REFERENCE,
    section=ReportSection.DISTANCE,
    role=MetricRole.DISTANCE,
)
def completeness(e: Evidence, split: Split) -> Score:
    """Jaccard index of the rows called a class by the model and by the oracles, mean over classes.

    ``|rows called c by both| / |rows called c by either|``; a class that neither names is left out.
    Mean over oracles. Rare classes weigh as much as common ones, which ``agreement`` does not do.
    Two oracles do not reach 1 against each other. After Nguyen et al., 2022, arXiv:2209.02299.
    """
    mine = e.outputs(ModelRole.UNLEARNED, split).argmax(1)
    oracles = (e.outputs(ModelRole.ORACLE, split, k).argmax(1) for k in range(e.oracles))
    return Score(math.fsum(jaccard(mine, theirs) for theirs in oracles) / e.oracles)


def jaccard(a: Tensor, b: Tensor) -> float:
    """Return the mean over classes of the Jaccard index of two labellings ``(n,)`` of rows."""
    classes = int(torch.cat([a, b]).max()) + 1
    both = torch.bincount(a[a == b], minlength=classes).double()
    either = a.bincount(minlength=classes) + b.bincount(minlength=classes) - both
    return float((both / either)[either > 0].mean())
