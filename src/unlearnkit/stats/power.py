"""What an audit could have seen: the smallest effects that its tests find most of the time."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import special

from unlearnkit.stats.epsilon_bounds import HALVINGS, epsilon_table
from unlearnkit.stats.intervals import student

POWER = 0.8
"""Chance of finding an effect, from which on it counts as detectable."""


def smallest(
    power_of: Callable[[float], float], high: float, *, power: float = POWER, steps: int = HALVINGS
) -> float:
    """Return the smallest effect that is found with a given chance, by bisection.

    Args:
        power_of: Chance of finding an effect of this size; it rises with the size.
        high: An effect that is surely large enough.
        power: Chance asked for.
        steps: Halvings.

    Returns:
        The effect; nan where even the largest is not found so often.
    """
    if power_of(high) < power:
        return math.nan
    low = 0.0
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if power_of(middle) < power else (low, middle)
    return high


def t_test_power(shift: float, n_a: int, n_b: int, *, alpha: float = 0.05) -> float:
    """Return the chance that a two-sided two-sample t test finds a shift, in deviations.

    From the non-central t law with ``n_a + n_b - 2`` degrees of freedom and non-centrality
    ``shift sqrt(n_a n_b / (n_a + n_b))`` (Cohen, 1988).
    """
    freedom = n_a + n_b - 2
    if freedom < 1:
        return 0.0
    centre = shift * math.sqrt(n_a * n_b / (n_a + n_b))
    edge = student(1 - alpha, freedom)
    # SciPy's law of the far tail is nan where it is below 1e-12.
    far = float(np.nan_to_num(special.nctdtr(freedom, centre, -edge)))
    return 1 - float(special.nctdtr(freedom, centre, edge)) + far


def smallest_shift(n_a: int, n_b: int, *, alpha: float = 0.05, power: float = POWER) -> float:
    """Return the smallest shift of a mean, in deviations over models, that a t test would see.

    For accuracies, gaps, and any number of which there is one a model.

    Args:
        n_a: Unlearned models.
        n_b: Oracles.
        alpha: Chance of a false alarm.
        power: Chance of seeing it.

    Returns:
        The shift; nan for fewer than three models in all.
    """
    return smallest(lambda d: t_test_power(d, n_a, n_b, alpha=alpha), 1e3, power=power)


def smallest_auc_shift(
    members: int, others: int, *, alpha: float = 0.05, power: float = POWER
) -> float:
    """Return the smallest distance of an AUC from 0.5 that a two-sided test on one model would see.

    ``(z_(1 - alpha / 2) + z_power) sqrt((m + n + 1) / (12 m n))``: the deviation of the
    Mann-Whitney statistic without signal, which a small signal hardly changes.

    Args:
        members: m.
        others: n.
        alpha: Chance of a false alarm.
        power: Chance of seeing it.

    Returns:
        The distance; nan where it would exceed the largest there is, 0.5.
    """
    if members < 1 or others < 1:
        return math.nan
    error = math.sqrt((members + others + 1) / (12 * members * others))
    reach = float(special.ndtri(1 - alpha / 2) + special.ndtri(power)) * error
    return reach if reach <= 0.5 else math.nan


def epsilon_power(shift: float, n0: int, n1: int, *, level: float = 0.95) -> float:
    """Return the chance that a bound on epsilon is above 0 for two normal laws of equal spread.

    For the best threshold, half way between them, known from other models: both errors have the
    chance ``Phi(-shift / 2)``, their counts are binomial. A threshold that had to be learned finds
    slightly less.

    Args:
        shift: Distance of the two laws, in their deviation.
        n0: Trials without the event, such as the oracles that were not fitted on.
        n1: Trials with it.
        level: Of the bound; ``1 - 0.05 / E`` where E examples are corrected after Bonferroni.

    Returns:
        The chance.
    """
    error = float(special.ndtr(-shift / 2))
    alarms, misses = (_binomial(n, error) for n in (n0, n1))
    proven = (epsilon_table(n0, n1, level=level) > 0).double().numpy()
    return float(alarms @ proven @ misses)


def smallest_exposure(n0: int, n1: int, *, level: float = 0.95, power: float = POWER) -> float:
    """Return the smallest shift of one example, in deviations over models, that proves epsilon > 0.

    Args:
        n0: As in ``epsilon_power``.
        n1: As there.
        level: As there.
        power: Chance of seeing it.

    Returns:
        The shift; nan where so few models prove nothing, whatever the shift.
    """
    return smallest(lambda d: epsilon_power(d, n0, n1, level=level), 40.0, power=power)


def smallest_one_run_epsilon(guesses: int, *, level: float = 0.95, power: float = POWER) -> float:
    """Return the smallest epsilon that so many guesses would show to be above 0.

    When each guess is right with the chance ``e^epsilon / (1 + e^epsilon)``, the most that epsilon
    allows.

    Args:
        guesses: r.
        level: Of the bound.
        power: Chance of seeing it.

    Returns:
        Nats; nan where so few guesses prove nothing, even if all are right.
    """
    tail = np.cumsum(_binomial(guesses, 0.5)[::-1])[::-1]
    enough = np.flatnonzero(tail < 1 - level)
    if not len(enough):
        return math.nan

    def chance(epsilon: float) -> float:
        return float(_binomial(guesses, float(special.expit(epsilon)))[enough[0] :].sum())

    return smallest(chance, 40.0, power=power)


def _binomial(n: int, p: float) -> NDArray[np.float64]:
    """Return the chance of each count from 0 to n."""
    k = np.arange(n + 1)
    ways = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    terms = np.exp(ways + special.xlogy(k, p) + special.xlog1py(n - k, -p))
    return np.asarray(terms, dtype=np.float64)
