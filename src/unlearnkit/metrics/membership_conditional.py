"""Attacks on real targets that know how large an error to expect of a row that was never seen.

What is expected is fitted to half of the never-seen rows, from the inputs and the target of each,
and used with the other half; then the reverse. Unlike matching by target this takes out what the
inputs of a cohort do to its errors, as far as few rows can teach it. The aim is the retrained
model's value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from unlearnkit.attacks.quantile_attack import (
    AttackRows,
    QuantileAttack,
    quantile_threshold_attack,
    scaled_residual_attack,
)
from unlearnkit.core.audit_terms import ReportSection
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.metric import Goal, Score, metric

PAIR = (Split.FORGET, Split.HELD_OUT)
WIDEST = 256
"""Most numbers a row of inputs may have to be read; of wider ones the targets alone are."""

FPR = 0.1
"""Share of never-seen rows that the thresholds of single rows let pass."""

attack = partial(
    metric,
    Goal.ORACLE,
    low=0.0,
    high=1.0,
    splits=PAIR,
    unit="AUC",
    tasks=("regression",),
    models=True,
    section=ReportSection.MEMBERSHIP,
    margin=0.02,
)


@attack()
def quantile_auc(e: Evidence) -> Score:
    """AUC of how far a row's score lies above a high quantile of the scores of rows like it.

    Minus the error is the score, 0.9 the quantile; gradient boosting fits it. Bertran et al.,
    NeurIPS 2023, arXiv:2307.03694. The interval is over forget rows, the rest given.
    """
    return _conditional(e, partial(quantile_threshold_attack, fpr=FPR))


@attack()
def scaled_residual_auc(e: Evidence) -> Score:
    """AUC of minus the error, in units of the error that rows like it have when never seen.

    The interval is over forget rows, the rest given.
    """
    return _conditional(e, scaled_residual_attack)


def _conditional(
    e: Evidence, fn: Callable[[AttackRows, AttackRows, torch.Generator], QuantileAttack]
) -> Score:
    if not e.has_models:
        return Score(math.nan, note="needs the inputs, which stored outputs do not have")
    scores = [e.margins(ModelRole.UNLEARNED, split) for split in PAIR]
    if not all(bool(s.isfinite().all()) for s in scores):
        return Score(math.nan, note="an error is not finite")
    members, unseen = (
        AttackRows(score, _about(e, split)) for score, split in zip(scores, PAIR, strict=True)
    )
    found = fn(members, unseen, e.rt.rng("conditional/halves"))
    if math.isnan(found.auc):
        return Score(found.auc, note=found.note)
    return Score(found.auc, found.members, note=f"{len(unseen.score)} never-seen rows")


def _about(e: Evidence, split: Split) -> Tensor:
    """Return what is known of each row ``(n, D + K)``: its inputs, unless wide, and its target."""
    view, known = e.views[split], []
    for batch in view.batches(512, e.rt):
        if not isinstance(batch.x, Tensor) or batch.x[0].numel() > WIDEST:
            return e.targets(split).reshape(len(view), -1).double()
        known.append(batch.x.reshape(len(batch), -1).cpu().double())
    return torch.cat([torch.cat(known), e.targets(split).reshape(len(view), -1).double()], 1)
