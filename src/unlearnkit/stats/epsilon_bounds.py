"""What errors of an attack prove about privacy: lower bounds on epsilon.

A process is (epsilon, delta)-indistinguishable from another when no event is more than
``e^epsilon`` times as likely under one as under the other, up to delta. A bound can refute a claim
of deletion; it never proves one. Thresholds must have been fixed on other data than the errors are
counted on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special  # not scipy.stats: it takes half a second to import
from torch import Tensor

from unlearnkit.core.errors import InputError
from unlearnkit.stats.intervals import clopper_pearson

HALVINGS = 60
"""Steps of every bisection: an interval shrinks below the resolution of float64."""


def epsilon_lower_bound(
    fp: int, n0: int, fn: int, n1: int, *, delta: float = 0.0, level: float = 0.95
) -> float:
    """Return the epsilon that an attack's errors prove, in nats.

    ``max(0, log((1 - delta - u_fpr) / u_fnr), log((1 - delta - u_fnr) / u_fpr))`` with the upper
    ends u of two Clopper-Pearson intervals, each of this level two-sided, so that both hold at once
    with this level (union bound; Nasr et al., USENIX Security 2023, arXiv:2302.07956).

    Args:
        fp: False alarms.
        n0: Trials without the event, such as oracles.
        fn: Misses.
        n1: Trials with it, such as unlearned models.
        delta: Probability of events that are not bounded, in [0, 1).
        level: Chance, at least, that epsilon is no smaller than the bound.

    Returns:
        The bound; 0 where nothing is proven.
    """
    _check("epsilon_lower_bound", delta, level)
    limits = clopper_pearson(fp, n0, level)[1], clopper_pearson(fn, n1, level)[1]
    u_fpr, u_fnr = torch.tensor(limits, dtype=torch.float64)
    return float(_epsilon(u_fpr, u_fnr, delta).clamp(min=0))


def epsilon_table(n0: int, n1: int, *, delta: float = 0.0, level: float = 0.95) -> Tensor:
    """Return the bound of every count of errors, before it is cut at 0.

    Args:
        n0: Trials without the event.
        n1: Trials with it.
        delta: Probability of events that are not bounded.
        level: As in ``epsilon_lower_bound``, which is this table cut at 0.

    Returns:
        ``(n0 + 1, n1 + 1)``: a row for each number of false alarms, a column for each of misses;
        -inf where the limits leave nothing.
    """
    _check("epsilon_table", delta, level)
    u_fpr, u_fnr = upper_limits(n0, level), upper_limits(n1, level)
    return _epsilon(u_fpr[:, None], u_fnr[None, :], delta)


def upper_limits(n: int, level: float = 0.95) -> Tensor:
    """Return the upper end of the Clopper-Pearson interval of each count from 0 to n ``(n + 1,)``.

    As ``clopper_pearson`` gives it, for all at once.
    """
    tail = np.full(n + 1, (1 - level) / 2)
    return torch.from_numpy(_upper(np.arange(n + 1, dtype=np.float64), n, tail))


def leak_p_values(fp: Tensor, n0: int, fn: Tensor, n1: int, *, delta: float = 0.0) -> Tensor:
    """Return for each attack the smallest alpha at which its bound on epsilon is above 0.

    ``inf {alpha: u_fpr(alpha / 2) + u_fnr(alpha / 2) < 1 - delta}``: as the bounds hold with
    ``1 - alpha`` and shrink as alpha falls, a p-value of "epsilon is 0".

    Args:
        fp: False alarms of each attack ``(E,)``.
        n0: Trials without the event, the same for all.
        fn: Misses ``(E,)``.
        n1: Trials with it.
        delta: Probability of events that are not bounded.

    Returns:
        P-values ``(E,)``, to a relative error of 1e-9 or better.
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


@dataclass(frozen=True)
class GaussianBound:
    """A bound that is valid only if the best attack trades its errors as for two normal laws."""

    mu: float
    """Distance of the two laws, in their deviation, at least."""

    epsilon: float
    """What this mu implies at the given delta."""

    delta: float
    note: str = "model-based: valid if the trade-off of errors is Gaussian"


def gaussian_lower_bound(
    fp: int, n0: int, fn: int, n1: int, *, delta: float = 1e-5, level: float = 0.95
) -> GaussianBound:
    """Return the mu of Gaussian differential privacy that an attack's errors prove.

    ``mu = max(0, Phi^-1(1 - u_fpr) - Phi^-1(u_fnr))`` (Dong, Roth and Su, JRSS B 84, 2022; as an
    audit, Nasr et al., 2023). Larger than what ``epsilon_lower_bound`` gives, for it assumes more.

    Args:
        fp: False alarms.
        n0: Trials without the event.
        fn: Misses.
        n1: Trials with it.
        delta: At which epsilon is told.
        level: Chance, at least, that mu is no smaller than the bound, given the model.

    Returns:
        Mu, and the epsilon that it implies.
    """
    _check("gaussian_lower_bound", delta, level)
    u_fpr, u_fnr = clopper_pearson(fp, n0, level)[1], clopper_pearson(fn, n1, level)[1]
    if max(u_fpr, u_fnr) == 1:
        return GaussianBound(0.0, 0.0, delta)
    mu = max(0.0, float(-special.ndtri(u_fpr) - special.ndtri(u_fnr)))
    return GaussianBound(mu, gaussian_epsilon(mu, delta), delta)


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Return the delta of a mu-Gaussian trade-off at an epsilon (Dong, Roth and Su, corollary 1).

    ``Phi(-epsilon / mu + mu / 2) - e^epsilon Phi(-epsilon / mu - mu / 2)``.
    """
    if mu == 0:
        return 0.0
    first, second = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
    return float(special.ndtr(first) - math.exp(epsilon + special.log_ndtr(second)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the epsilon of a mu-Gaussian trade-off at a delta; infinite at 0 if mu is not 0."""
    if gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    if delta == 0:
        return math.inf
    low, high = 0.0, mu * (mu / 2 - float(special.ndtri(delta)))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(mu, middle) > delta else (low, middle)
    return low


def one_run_epsilon(
    correct: int,
    guesses: int,
    *,
    candidates: int | None = None,
    delta: float = 0.0,
    level: float = 0.95,
) -> float:
    """Return the epsilon that guesses about independent coins prove, from a single run.

    Under (epsilon, delta) the chance of v right guesses or more of r is at most ``beta + 2 m delta
    max_i P[v - i <= Bin < v] / i``, with ``Bin ~ Binomial(r, e^epsilon / (1 + e^epsilon))``, ``beta
    = P[Bin >= v]`` and m candidates, guessed or not (Steinke, Nasr and Jagielski, NeurIPS 2023,
    arXiv:2305.08846, theorem 5.2). At delta 0 the bound is the logit of the lower Clopper-Pearson
    limit of v among r. How many guesses are made must be fixed before looking.

    Args:
        correct: v.
        guesses: r.
        candidates: m; needed where delta is above 0.
        delta: Probability of events that are not bounded.
        level: Chance, at least, that epsilon is no smaller than the bound.

    Returns:
        The bound in nats; 0 where nothing is proven.

    Raises:
        InputError: If the counts are impossible, or delta is given without candidates.
    """
    _check("one_run_epsilon", delta, level)
    if not 0 <= correct <= guesses:
        raise InputError(
            f"one_run_epsilon: correct must be between 0 and guesses = {guesses}, got {correct}"
        )
    if candidates is not None and candidates < guesses:
        raise InputError(
            f"one_run_epsilon: candidates must be at least guesses = {guesses}, got {candidates}"
        )
    if delta > 0 and candidates is None:
        raise InputError("one_run_epsilon: delta above 0 needs candidates, all coins")
    if correct == 0:
        return 0.0
    limit = float(special.betaincinv(correct, guesses - correct + 1, 1 - level))
    pure = max(0.0, float(special.logit(limit)))
    if delta == 0 or candidates is None or pure == 0:
        return pure
    if _one_run_p(correct, guesses, candidates, delta, 0.0) > 1 - level:
        return 0.0
    low, high = 0.0, pure
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        p = _one_run_p(correct, guesses, candidates, delta, middle)
        low, high = (middle, high) if p <= 1 - level else (low, middle)
    return low


def _one_run_p(correct: int, guesses: int, candidates: int, delta: float, epsilon: float) -> float:
    """Return the bound on the chance of so many right guesses, or more."""
    k = np.arange(guesses + 1)
    log_ways = (
        special.gammaln(guesses + 1) - special.gammaln(k + 1) - special.gammaln(guesses - k + 1)
    )
    log_right, log_wrong = special.log_expit(epsilon), special.log_expit(-epsilon)
    chance = np.exp(log_ways + k * log_right + (guesses - k) * log_wrong)
    within = np.cumsum(chance[:correct][::-1]) / np.arange(1, correct + 1)
    return float(chance[correct:].sum() + 2 * candidates * delta * within.max())


def _epsilon(u_fpr: Tensor, u_fnr: Tensor, delta: float) -> Tensor:
    first = (1 - delta - u_fpr).clamp(min=0) / u_fnr
    second = (1 - delta - u_fnr).clamp(min=0) / u_fpr
    return torch.maximum(first, second).log()


def _upper(
    k: NDArray[np.float64],
    n: int,
    tail: NDArray[np.float64],
) -> NDArray[np.float64]:
    # The complement keeps its digits where the tail is far below the resolution of 1 - tail.
    some = special.betainccinv(k + 1, np.maximum(n - k, 0.5), tail)
    return np.where(k >= n, 1.0, some)


def _check(who: str, delta: float, level: float) -> None:
    if not 0 <= delta < 1:
        raise InputError(f"{who}: delta must be in [0, 1), got {delta!r}")
    if not 0 < level < 1:
        raise InputError(f"{who}: level must be between 0 and 1, got {level!r}")
