"""How far predicted numbers are from those of retrained models, in target units.

Each is the mean over all oracles, and over targets where a row has several. Next to each stands the
floor: the same between two oracles.
"""

from __future__ import annotations

import math
from functools import partial

import torch

from unlearnkit.core.audit_terms import AuditTier, ReportSection
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.metric import Goal, Score, mean, metric

SPLITS = (Split.FORGET, Split.RETAIN, Split.TEST)
against_oracles = partial(
    metric,
    Goal.LOW,
    low=0.0,
    high=math.inf,
    reads=(ModelRole.UNLEARNED, ModelRole.ORACLE),
    each=SPLITS,
    unit="as targets",
    tasks=("regression",),
    tier=AuditTier.REFERENCE,
    section=ReportSection.DISTANCE,
)


@against_oracles()
def wasserstein(e: Evidence, split: Split) -> Score:
    """Wasserstein-1 distance between the distributions of the predictions and of the oracles'.

    ``mean |sorted f_u - sorted f_r|``: which row has which prediction does not count, so that a
    model can be at no distance and wrong on every row. Tarun et al., ICML 2023, arXiv:2210.08196.
    """
    mine = e.predictions(ModelRole.UNLEARNED, split).sort(0).values
    theirs = (e.predictions(ModelRole.ORACLE, split, k).sort(0).values for k in range(e.oracles))
    each = [float((mine - other).abs().mean()) for other in theirs]
    if not all(map(math.isfinite, each)):
        return Score(math.nan, note="a prediction is not finite")
    return Score(math.fsum(each) / len(each))


@against_oracles()
def paired_difference(e: Evidence, split: Split) -> Score:
    """Mean difference of the predictions from the oracles', row by row: ``mean |f_u(x) - f_r(x)|``.

    At least the Wasserstein distance, which forgets which row is which.
    """
    mine = e.predictions(ModelRole.UNLEARNED, split)
    apart = [
        (mine - e.predictions(ModelRole.ORACLE, split, k)).abs().mean(1) for k in range(e.oracles)
    ]
    return mean(torch.stack(apart).mean(0))
