"""Attacks on real targets that do not mistake the cohort for membership.

Forget rows of a range of targets, or of one owner, are easier or harder than others whether a model
saw them or not. Here each forget row is compared only with never-seen rows of like target: the five
nearest, no further away than a quarter of the forget rows' standard deviation. The aim is still the
retrained model's value, which is then near 0.5 where rows of one target were drawn alike.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from unlearnkit.core.audit_terms import AuditTier, ReportSection
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.metric import Goal, MetricRole, Score, metric
from unlearnkit.stats.matched_auc import CALIPER, LEAST_MATCHED, matched_auc

PAIR = (Split.FORGET, Split.HELD_OUT)
attack = partial(
    metric,
    Goal.ORACLE,
    low=0.0,
    high=1.0,
    splits=PAIR,
    unit="AUC",
    tasks=("regression",),
    section=ReportSection.MEMBERSHIP,
    margin=0.02,
    role=MetricRole.ATTACK,
)


@attack()
def matched_margin_auc(e: Evidence) -> Score:
    """AUC of minus the error between forget rows and never-seen rows of like target."""
    return _matched(e, *(e.margins(ModelRole.UNLEARNED, s) for s in PAIR))


@attack(reads=(ModelRole.UNLEARNED, ModelRole.ORACLE), tier=AuditTier.REFERENCE)
def matched_likelihood_ratio_auc(e: Evidence) -> Score:
    """AUC of how much likelier the model finds a row's target than the retrained models do.

    ``log p_u(y|x) - log mean_k p_k(y|x)``, Gaussians around the predictions; their scale, one a
    target, is the root mean square residual of the retrained models on never-seen rows, pooled.
    It takes out how hard each row is. With the threshold of RMIA at 1, that attack orders rows the
    same way. After Zarifzadeh et al., ICML 2024, arXiv:2312.03262, offline.
    """
    scale = _scale(e)
    if not bool((scale > 0).all() and scale.isfinite().all()):
        return Score(math.nan, note="retrained models leave no residual: there is no scale")

    def score(split: Split) -> Tensor:
        theirs = [_log_likelihood(e, ModelRole.ORACLE, split, scale, k) for k in range(e.oracles)]
        usual = torch.stack(theirs).logsumexp(0) - math.log(e.oracles)
        return _log_likelihood(e, ModelRole.UNLEARNED, split, scale) - usual

    return _matched(e, *map(score, PAIR))


def _scale(e: Evidence) -> Tensor:
    squares = [
        _residuals(e, ModelRole.ORACLE, Split.HELD_OUT, k).square().mean(0)
        for k in range(e.oracles)
    ]
    return torch.stack(squares).mean(0).sqrt()


def _log_likelihood(e: Evidence, who: ModelRole, split: Split, scale: Tensor, k: int = 0) -> Tensor:
    """Return the log-density of each row's target ``(n,)``, but for a constant."""
    return -(_residuals(e, who, split, k) / scale).square().sum(1) / 2


def _residuals(e: Evidence, who: ModelRole, split: Split, k: int = 0) -> Tensor:
    return e.targets(split).double() - e.predictions(who, split, k)


def _matched(e: Evidence, members: Tensor, others: Tensor) -> Score:
    if bool(members.isnan().any() or others.isnan().any()):
        return Score(math.nan, note="a score is not a number: infinite outputs cannot be compared")
    found = matched_auc(members, others, e.targets(Split.FORGET), e.targets(Split.HELD_OUT))
    if math.isnan(found.auc):
        return Score(
            math.nan,
            note=f"{found.members} forget rows and {found.others} never-seen rows have targets"
            f" within {CALIPER} deviations of each other; {LEAST_MATCHED} of each are needed",
        )
    note = (
        f"{found.members} of {len(members)} forget rows against {found.others} never-seen rows of"
        " like target"
    )
    return Score(found.auc, note=note, interval=found.interval, method="two-way clusters, logit")
