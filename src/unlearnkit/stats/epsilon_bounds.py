"""Lower bounds on epsilon from the errors of an attack.

A process is (epsilon, delta)-indistinguishable from another when no event is more than
``e^epsilon`` times as likely under one as under the other, up to delta. A bound can refute a claim
of deletion; it never proves one. Thresholds must have been fixed on other data than the errors are
counted on.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special  # not scipy.stats: it takes half a second to import
from torch import Tensor

from unlearnkit.core.errors import InputError

HALVINGS = 60
"""Steps of every bisection: an interval shrinks below the resolution of float64."""


def epsilon_table(n0: int, n1: int, *, delta: float = 0.0, level: float = 0.95) -> Tensor:
    """Return the epsilon ``(n0 + 1, n1 + 1)`` that every count of errors proves, in nats.

    ``max(log((1 - delta - u_fpr) / u_fnr), log((1 - delta - u_fnr) / u_fpr))`` with the upper ends
    u of two Clopper-Pearson intervals, each of this level two-sided, so that both hold at once with
    this level (union bound; Nasr et al., USENIX Security 2023, arXiv:2302.07956). Rows are false
    alarms of n0 trials without the event, columns misses of n1 trials with it; not cut at 0, and
    -inf where the limits leave nothing.
    """
    _check("epsilon_table", delta, level)
    u_fpr, u_fnr = _upper_limits(n0, level), _upper_limits(n1, level)
    return _epsilon(u_fpr[:, None], u_fnr[None, :], delta)


def _upper_limits(n: int, level: float = 0.95) -> Tensor:
    """Return the upper end of the Clopper-Pearson interval of each count from 0 to n ``(n + 1,)``.

    As ``clopper_pearson`` gives it, for all at once.
    """
    tail = np.full(n + 1, (1 - level) / 2)
    return torch.from_numpy(_upper(np.arange(n + 1, dtype=np.float64), n, tail))


def leak_p_values(fp: Tensor, n0: int, fn: Tensor, n1: int, *, delta: float = 0.0) -> Tensor:
    """Return for each attack the smallest alpha at which its bound on epsilon is above 0: ``(E,)``.

    ``inf {alpha: u_fpr(alpha / 2) + u_fnr(alpha / 2) < 1 - delta}``: as the bounds hold with ``1 -
    alpha`` and shrink as alpha falls, a p-value of "epsilon is 0", to a relative error of 1e-9.
    ``fp`` and ``fn`` are false alarms and misses ``(E,)`` of n0 and n1 trials.
    """
    _check("leak_p_values", delta, 0.95)
    pairs, where = torch.unique(torch.stack([fp, fn], 1), dim=0, return_inverse=True)
    alarms, misses = pairs.double().numpy().T
    low, high = np.full(len(pairs), -600.0), np.zeros(len(pairs))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        tail = np.exp(middle) / 2
        total = _upper(alarms, n0, tail) + _upper(misses, n1, tail)
        proven = total < 1 - delta
        low, high = np.where(proven, low, middle), np.where(proven, middle, high)
    return torch.from_numpy(np.exp(high))[where]


def _epsilon(u_fpr: Tensor, u_fnr: Tensor, delta: float) -> Tensor:
    first = (1 - delta - u_fpr).clamp(min=0) / u_fnr
    second = (1 - delta - u_fnr).clamp(min=0) / u_fpr
    return torch.maximum(first, second).log()


def _upper(k: NDArray[np.float64], n: int, tail: NDArray[np.float64]) -> NDArray[np.float64]:
    # The complement keeps its digits where the tail is far below the resolution of 1 - tail.
    some = special.betainccinv(k + 1, np.maximum(n - k, 0.5), tail)
    return np.where(k >= n, 1.0, some)


def _check(who: str, delta: float, level: float) -> None:
    if not 0 <= delta < 1:
        raise InputError(f"{who}: delta must be in [0, 1), got {delta!r}")
    if not 0 < level < 1:
        raise InputError(f"{who}: level must be between 0 and 1, got {level!r}")
