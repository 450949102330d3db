"""How much the model answers like one that was never trained, on the forget rows.

Chundawat et al., AAAI 2023, arXiv:2205.08096: the zero-retrain forgetting score.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.inference import chunk, map_rows
from unlearnkit.core.metric import Goal, Score, mean, metric
from unlearnkit.stats import entropy

TEACHERS = 5
"""Untrained models that the number is the mean over: a single one adds its own chance."""

NO_TEACHER = "needs untrained models; give the case a model factory (fresh=...)"


@metric(
    Goal.ORACLE,
    low=0.0,
    high=1.0,
    splits=[Split.FORGET],
    tasks=["classification"],
    unit="fraction",
)
def zrf(e: Evidence) -> Score:
    """1 minus the Jensen-Shannon divergence, in bits, from freshly initialised models.

    1 means: answers like a model that was never trained. The aim is the retrained model's value,
    which is lower wherever rows can be predicted without having been seen.
    """
    return _forgetting(e, entropy.LOG_2)


@metric(
    Goal.ORACLE,
    low=1 - entropy.LOG_2,
    high=1.0,
    splits=[Split.FORGET],
    tasks=["classification"],
    unit="fraction",
    path="compat",
)
def zrf_nats(e: Evidence) -> Score:
    """1 minus the Jensen-Shannon divergence, in nats, from freshly initialised models.

    The same quantity as ``zrf`` with the natural logarithm, for tables that use it: from 0.307 to
    1, and ``1 - zrf_nats = log 2 (1 - zrf)``.
    """
    return _forgetting(e, 1.0)


def _forgetting(e: Evidence, unit: float) -> Score:
    """Return 1 minus the divergence from untrained models, divided by a unit in nats."""
    total = torch.zeros(len(e.views[Split.FORGET]), dtype=torch.float64)
    mine = e.outputs(ModelRole.UNLEARNED, Split.FORGET)

    def distance(out: Tensor, target: Tensor) -> Tensor:
        log_p, log_q = e.task.log_probs(out), e.task.log_probs(target)
        assert log_p is not None
        assert log_q is not None
        return entropy.js(log_p, log_q)

    for k in range(TEACHERS):
        random = e.random_outputs(Split.FORGET, k)
        if random is None:
            return Score(math.nan, note=NO_TEACHER)
        total += map_rows(distance, mine, random)
    return mean(1 - total / TEACHERS / unit)


@metric(
    Goal.ORACLE,
    low=-math.inf,
    high=1.0,
    splits=[Split.FORGET],
    tasks=["classification"],
    unit="none",
    path="compat",
)
def zrf_reference(e: Evidence) -> Score:
    """The score as published code computes it, with its errors, for comparison with old tables.

    The mean runs over rows times classes, so that what is subtracted shrinks with the number of
    classes; the divergence is KL(m || p) instead of KL(p || m), in nats, unbounded; a probability
    that underflows makes it infinite or undefined. One random teacher, float32.
    Code: bad-teaching-unlearning, ``UnLearningScore``.
    """
    random = e.random_outputs(Split.FORGET, 0)
    if random is None:
        return Score(math.nan, note=NO_TEACHER)
    mine = e.outputs(ModelRole.UNLEARNED, Split.FORGET)
    # The published mean is one sum over all entries; its bits ask for all of them at once.
    whole = torch.empty(mine.shape, dtype=torch.float32)

    def half(first: Tensor, second: Tensor) -> Tensor:
        for a, b, into in zip(
            *(torch.split(t, chunk(mine)) for t in (first, second, whole)), strict=True
        ):
            p, q = functional.softmax(a.float(), 1), functional.softmax(b.float(), 1)
            into.copy_(functional.kl_div(p.log(), (p + q) / 2, reduction="none"))
        return 0.5 * whole.mean()

    value = (1 - (half(mine, random) + half(random, mine))).item()
    if not math.isfinite(value):
        return Score(math.nan, note="undefined as published: a probability underflows to 0")
    return Score(value)
