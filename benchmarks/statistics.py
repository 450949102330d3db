"""Vectorised statistics against loops over rows."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.measure import Fact, against
from unlearnkit.stats.entropy import js
from unlearnkit.stats.roc import auc


def run() -> Iterator[Fact]:
    """Yield the AUC over pairs of scores and the Jensen-Shannon divergence over rows."""
    rng = torch.Generator().manual_seed(0)
    members, others = torch.randn(1000, generator=rng), torch.randn(1000, generator=rng)
    torch.testing.assert_close(auc(members, others), naive_auc(members, others))
    yield against(
        "AUC against a loop over pairs",
        lambda: auc(members, others),
        lambda: naive_auc(members, others),
        pairs=5,
        how="1000 by 1000 scores",
    )
    p, q = torch.randn(2, 1000, 10, generator=rng, dtype=torch.float64).log_softmax(-1)
    torch.testing.assert_close(js(p, q), naive_js(p, q))
    yield against(
        "Jensen-Shannon divergence against a loop over rows",
        lambda: js(p, q),
        lambda: naive_js(p, q),
        pairs=5,
        how="1000 rows, 10 classes",
    )


def naive_auc(members: Tensor, others: Tensor) -> float:
    """Return the share of pairs that the member wins, a tie counting one half."""
    ins, outs = members.tolist(), others.tolist()
    won = sum((a > b) + 0.5 * (a == b) for a in ins for b in outs)
    return won / (len(ins) * len(outs))


def naive_js(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return the divergence of each row by its definition, one class at a time."""
    found = []
    for a, b in zip(log_p.exp().tolist(), log_q.exp().tolist(), strict=True):
        middle = [(x + y) / 2 for x, y in zip(a, b, strict=True)]
        both = (
            sum(x * math.log(x / m) for x, m in zip(one, middle, strict=True)) for one in (a, b)
        )
        found.append(sum(both) / 2)
    return torch.tensor(found, dtype=torch.float64)
