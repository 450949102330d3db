"""How far predicted numbers are from those of retrained models, in target units.

Each is the mean over all oracles, and over targets where a row has several. Beside each stands the
floor: the same between two oracles.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from unlearnkit.core.evidence import Evidence, Split, Who
from unlearnkit.core.metric import Goal, Score, mean, metric

SPLITS = (Split.FORGET, Split.RETAIN, Split.TEST)
against_oracles = partial(
    metric,
    Goal.LOW,
    low=0.0,
    high=math.inf,
    reads=(Who.UNLEARNED, Who.ORACLE),
    each=SPLITS,
    unit="as targets",
    tasks=("regression",),
    tier="reference",
    section=2,
)


@against_oracles()
def wasserstein(e: Evidence, split: Split) -> Score:
    """Wasserstein-1 distance between the distributions of the predictions and of the oracles'.

    ``mean |sorted f_u - sorted f_r|``: which row has which prediction does not count, so that a
    model can be at no distance and wrong on every row. Tarun et al., ICML 2023, arXiv:2210.08196.
    """
    mine = _predictions(e, Who.UNLEARNED, split).sort(0).values
    theirs = (_predictions(e, Who.ORACLE, split, k).sort(0).values for k in range(e.oracles))
    each = [float((mine - other).abs().mean()) for other in theirs]
    if not all(map(math.isfinite, each)):
        return Score(math.nan, note="a prediction is not finite")
    return Score(math.fsum(each) / len(each))


@against_oracles()
def paired_difference(e: Evidence, split: Split) -> Score:
    """Mean difference of the predictions from the oracles', row by row: ``mean |f_u(x) - f_r(x)|``.

    At least the Wasserstein distance, which forgets which row is which.
    """

    def apart(ours: Tensor, theirs: Tensor) -> Tensor:
        mine, other = e.task.predictions(ours), e.task.predictions(theirs)
        assert mine is not None
        assert other is not None
        return (mine - other).abs().mean(1)

    total = torch.zeros(len(e.views[split]), dtype=torch.float64)
    for k in range(e.oracles):
        total += e.map(apart, split, (Who.UNLEARNED, 0), (Who.ORACLE, k))
    return mean(total / e.oracles)


def _predictions(e: Evidence, who: Who, split: Split, k: int = 0) -> Tensor:
    found = e.task.predictions(e.outputs(who, split, k).double())
    assert found is not None
    return found
