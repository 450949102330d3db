"""Entanglement: overlap of forget and retain set in feature space.

Zhao et al., NeurIPS 2024, arXiv:2406.01257 (RUM).
"""

from __future__ import annotations

import math

from torch import Tensor


def entanglement(forget: Tensor, retain: Tensor) -> float:
    """Return the entanglement score: spread within the two sets over spread between them.

    ``(1/m sum |a_i - r|^2 + 1/n sum |b_j - f|^2) / (|r - c|^2 + |f - c|^2) * 2`` with means r and f
    of the sets and c of all rows. Published code takes the mean of r and f for c, which weighs the
    small set as much as the large one, and means of batch means.

    Args:
        forget: Features ``(n, D)``.
        retain: Features ``(m, D)``.

    Returns:
        Above 0; high where the sets are alike, infinite where their means are equal; nan
        where a set is empty.
    """
    if not len(forget) or not len(retain):
        return math.nan
    f, r = forget.double(), retain.double()
    middle = (f.sum(0) + r.sum(0)) / (len(f) + len(r))
    within = sum(float((x - x.mean(0)).square().sum(1).mean()) for x in (f, r))
    between = sum(float((x.mean(0) - middle).square().sum()) for x in (f, r)) / 2
    if between == 0:
        return math.inf if within else math.nan
    return within / between


def distance_to_mean(features: Tensor) -> Tensor:
    """Return the distance of each row's features ``(N, D)`` to their common mean ``(N,)``.

    RUM orders rows by it and takes a forget set from a low, a middle and a high part of the order:
    far from the middle, rows of few classes with means of their own; near it, rows that are mixed
    with all others.
    """
    f = features.double()
    return (f - f.mean(0)).square().sum(1).sqrt()
