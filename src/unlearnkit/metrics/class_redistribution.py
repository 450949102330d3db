"""Where the rows of forgotten classes go: the model's answers among the classes that remain.

A method that only forbids an answer leaves the runner-up, which tells what the row is; one that
sends all rows to one class leaves a trace of its own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unlearnkit.core.audit_terms import AuditTier, ReportSection
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.metric import Goal, Score, mean, metric
from unlearnkit.stats import entropy

SEEN = (Split.FORGET, Split.RETAIN)
LABELS = ("classification",)
ONE_LEFT = "one class remains: there is nothing to spread over"


@metric(
    Goal.ORACLE,
    low=0.0,
    high=1.0,
    splits=SEEN,
    tasks=LABELS,
    unit="fraction",
    section=ReportSection.DISTANCE,
)
def remaining_entropy_forget(e: Evidence) -> Score:
    """Entropy of the histogram of top answers on the forget rows, among classes that remain.

    Relative to an even spread: 0, all rows are called one class; 1, all classes equally often.
    """
    keep = _remaining(e)
    count = int(keep.sum())
    if count < 2:
        return Score(math.nan, note=ONE_LEFT)
    share = _histogram(e, keep, ModelRole.UNLEARNED)
    entropy = float(-torch.xlogy(share, share).sum()) / math.log(count)
    return Score(min(max(entropy, 0.0), 1.0))


@metric(
    Goal.LOW,
    low=0.0,
    high=1.0,
    reads=[ModelRole.UNLEARNED, ModelRole.ORACLE],
    splits=SEEN,
    tasks=LABELS,
    unit="fraction",
    tier=AuditTier.REFERENCE,
    section=ReportSection.DISTANCE,
)
def remaining_variation_forget(e: Evidence) -> Score:
    """Total variation between the histograms of top answers of the model and of the oracles.

    On the forget rows, among classes that remain: the share of rows that would have to be called
    another class for the histograms to be equal. Mean over oracles.
    """
    keep = _remaining(e)
    if not keep.any():
        return Score(math.nan, note="no class remains")
    mine = _histogram(e, keep, ModelRole.UNLEARNED)
    apart = [
        float((mine - _histogram(e, keep, ModelRole.ORACLE, k)).abs().sum()) / 2
        for k in range(e.oracles)
    ]
    return Score(min(math.fsum(apart) / len(apart), 1.0))


@metric(
    Goal.LOW,
    low=0.0,
    high=math.inf,
    reads=[ModelRole.UNLEARNED, ModelRole.ORACLE],
    splits=SEEN,
    tasks=LABELS,
    unit="nats",
    tier=AuditTier.REFERENCE,
    section=ReportSection.DISTANCE,
)
def remaining_kl_forget(e: Evidence) -> Score:
    """Mean KL(oracle || model) on the forget rows, of probabilities given that a class remains.

    What the model says of a forgotten class itself does not count. Mean over oracles; not clamped.
    """
    keep = _remaining(e)
    if not keep.any():
        return Score(math.nan, note="no class remains")

    def distance(out: Tensor, target: Tensor) -> Tensor:
        return entropy.kl(_given(e, target, keep), _given(e, out, keep))

    total = torch.zeros(len(e.views[Split.FORGET]), dtype=torch.float64)
    for k in range(e.oracles):
        total += e.map(distance, Split.FORGET, (ModelRole.UNLEARNED, 0), (ModelRole.ORACLE, k))
    return mean(total / e.oracles)


def _remaining(e: Evidence) -> Tensor:
    """Return which classes ``(C,)`` some retained row has, or no forget row."""
    keep = torch.ones(e.outputs(ModelRole.UNLEARNED, Split.FORGET).shape[1], dtype=torch.bool)
    keep[e.targets(Split.FORGET)] = False
    keep[e.targets(Split.RETAIN)] = True
    return keep


def _given(e: Evidence, out: Tensor, keep: Tensor) -> Tensor:
    log_p = e.task.log_probs(out[:, keep])
    assert log_p is not None
    return log_p


def _histogram(e: Evidence, keep: Tensor, who: ModelRole, k: int = 0) -> Tensor:
    top = e.outputs(who, Split.FORGET, k)[:, keep].argmax(1)
    return torch.bincount(top, minlength=int(keep.sum())).double() / len(top)
