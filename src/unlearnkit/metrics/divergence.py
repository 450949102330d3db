"""How far the model's answers are from those of retrained models.

Each number is the mean over all oracles of the distance to that oracle, never the distance to
their mean answer, which is smoother than any of them. None means anything without the distance
between two oracles, which the audit shows next to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from unlearnkit.core.audit_terms import AuditTier, ReportSection
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.metric import Goal, MetricRole, Score, mean, metric
from unlearnkit.stats import entropy

SPLITS = (Split.FORGET, Split.RETAIN, Split.TEST)
BOTH = (ModelRole.UNLEARNED, ModelRole.ORACLE)
LABELS = ("classification",)
against_oracles = partial(
    metric,
    reads=BOTH,
    each=SPLITS,
    tier=AuditTier.REFERENCE,
    section=ReportSection.DISTANCE,
    role=MetricRole.DISTANCE,
)


@against_oracles(
    Goal.LOW,
    low=0.0,
    high=math.inf,
    tasks=("regression", "multilabel"),
    unit="as the task",
)
def divergence(e: Evidence, split: Split) -> Score:
    """Mean divergence of the outputs from the oracles', in the task's own measure.

    Several labels: KL(oracle || model) of each, in nats, mean over labels. Regression: squared (or
    absolute) distance of the predictions.
    """
    return _over_oracles(e, split, e.task.divergence)


@against_oracles(
    Goal.LOW,
    low=0.0,
    high=entropy.LOG_2,
    tasks=LABELS,
    unit="nats",
)
def js(e: Evidence, split: Split) -> Score:
    """Mean Jensen-Shannon divergence of the class probabilities from the oracles', in nats."""
    return _over_oracles(e, split, _of_log_probs(e, entropy.js))


@against_oracles(
    Goal.LOW,
    low=0.0,
    high=math.inf,
    tasks=LABELS,
    unit="nats",
)
def kl(e: Evidence, split: Split) -> Score:
    """Mean KL(oracle || model) of the class probabilities, in nats; not clamped.

    Infinite where the model gives no probability to a class that the oracle allows.
    """
    return _over_oracles(e, split, _of_log_probs(e, lambda u, r: entropy.kl(r, u)))


@against_oracles(
    Goal.LOW,
    low=0.0,
    high=math.inf,
    tasks=LABELS,
    unit="nats",
)
def kl_reverse(e: Evidence, split: Split) -> Score:
    """Mean KL(model || oracle) of the class probabilities, in nats; not clamped."""
    return _over_oracles(e, split, _of_log_probs(e, entropy.kl))


@against_oracles(
    Goal.LOW,
    low=0.0,
    high=math.sqrt(2.0),
    tasks=LABELS,
    unit="probability",
)
def activation_distance(e: Evidence, split: Split) -> Score:
    """Mean Euclidean distance of the class probabilities from the oracles'.

    Chundawat et al., AAAI 2023, arXiv:2205.08096.
    """

    def distance(log_p: Tensor, log_q: Tensor) -> Tensor:
        apart: Tensor = torch.linalg.vector_norm(log_p.exp() - log_q.exp(), dim=-1)
        return apart.clamp(max=math.sqrt(2.0))

    return _over_oracles(e, split, _of_log_probs(e, distance))


@against_oracles(
    Goal.HIGH,
    low=0.0,
    high=1.0,
    tasks=LABELS,
    unit="fraction",
)
def agreement(e: Evidence, split: Split) -> Score:
    """Share of rows that have the same top class as in the oracles, whether right or not."""

    def same(out: Tensor, target: Tensor) -> Tensor:
        return (out.argmax(-1) == target.argmax(-1)).double()

    return _over_oracles(e, split, same)


def _over_oracles(e: Evidence, split: Split, fn: Callable[[Tensor, Tensor], Tensor]) -> Score:
    total = torch.zeros(len(e.views[split]), dtype=torch.float64)
    for k in range(e.oracles):
        total += e.map(fn, split, (ModelRole.UNLEARNED, 0), (ModelRole.ORACLE, k))
    return mean(total / e.oracles)


def _of_log_probs(
    e: Evidence, fn: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[Tensor, Tensor], Tensor]:
    def distance(out: Tensor, target: Tensor) -> Tensor:
        log_p, log_q = e.task.log_probs(out), e.task.log_probs(target)
        assert log_p is not None
        assert log_q is not None
        return fn(log_p, log_q)

    return distance
