"""Worst-case forget set: rows that stay correct after unlearning.

In the sense of Fan et al., ECCV 2024, arXiv:2403.07362: at the upper level a forget set is chosen
that an unlearned model still gets right; at the lower level it is unlearned. They weigh rows and
unroll sign-gradient unlearning of all weights. Here the lower level is one step of ascent on the
last layer, which to first order has a closed form, and the set is chosen greedily.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from unlearnkit.core.errors import InputError


def worst_case(
    features: Tensor, log_p: Tensor, y: Tensor, count: int, *, reach: float = 1.0
) -> Tensor:
    """Return rows that keep a low loss when the model unlearns them.

    With ``g_i = (p_i - e_{y_i}) (phi_i, 1)``, the gradient of row i's loss by the last layer, a
    step of ascent on S of length h leaves the set a loss of ``sum l_i + h |sum g_i|^2`` to first
    order. Rows are added one by one, each the one that raises this least: rows that are answered
    surely, and whose gradients cancel.

    Args:
        features: Last-layer inputs ``(N, D)`` of the original.
        log_p: Its log-probabilities ``(N, C)``.
        y: Classes ``(N,)``.
        count: Rows in the set, k.
        reach: How many nats the step would add to the mean loss of k rows drawn at random; sets h.

    Returns:
        Their positions ``(k,)``, in the order of choice.

    Raises:
        InputError: If there are no such k rows.
    """
    if not 0 < count < len(y):
        raise InputError(f"worst case: between 1 and {len(y) - 1} rows can be chosen, got {count}")
    phi = torch.cat([features.double(), torch.ones(len(y), 1, dtype=torch.float64)], 1)
    residual = log_p.double().exp() - functional.one_hot(y, log_p.shape[1])
    losses = functional.nll_loss(log_p.double(), y, reduction="none")
    squares = residual.square().sum(1) * phi.square().sum(1)
    mean = residual.T @ phi / len(y)
    typical = float(squares.mean() + (count - 1) * mean.square().sum())
    step = reach / typical if typical > 0 else 0.0
    rise = losses + step * squares
    chosen = []
    for _ in range(count):
        best = int(rise.argmin())
        chosen.append(best)
        # Gradients are outer products, and so is their inner product with the new row's.
        rise += 2 * step * (residual @ residual[best]) * (phi @ phi[best])
        rise[best] = math.inf
    return torch.tensor(chosen)
