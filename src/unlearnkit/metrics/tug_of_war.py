"""Several numbers in one. Read them last: each can hide a large gap behind small ones."""

from __future__ import annotations

import math

from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.metric import Goal, Score, metric

SPLITS = (Split.FORGET, Split.RETAIN, Split.TEST)


@metric(
    Goal.HIGH,
    low=0.0,
    high=1.0,
    reads=[ModelRole.UNLEARNED, ModelRole.ORACLE],
    splits=SPLITS,
    ideal=1.0,
    unit="fraction",
    tasks=["classification"],
    tier=AuditTier.REFERENCE,
)
def tow(e: Evidence) -> Score:
    """Tug of war: product over forget, retain and test of ``1 - |accuracy - oracle's accuracy|``.

    Mean over oracles. Two oracles do not reach 1 against each other, and a model that forgot
    nothing can come close to 1: read it next to both. Zhao et al., NeurIPS 2024, arXiv:2406.01257.
    """

    def error(who: ModelRole, split: Split, k: int = 0) -> float:
        return e.errors(who, split, k).mean().item()

    mine = {s: error(ModelRole.UNLEARNED, s) for s in SPLITS}
    each = [
        math.prod(1 - abs(mine[s] - error(ModelRole.ORACLE, s, k)) for s in SPLITS)
        for k in range(e.oracles)
    ]
    return Score(math.fsum(each) / len(each))
