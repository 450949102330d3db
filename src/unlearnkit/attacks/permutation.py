"""Permutation test: whether unlearned models differ from oracles."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unlearnkit.core.errors import InputError
from unlearnkit.stats.matrix_checks import blocks, check_margins
from unlearnkit.stats.multiple_testing import max_statistic
from unlearnkit.stats.power import POWER, minimum_detectable_effect

Statistic = Literal["energy", "mean"]

LEAST_MODELS = 2
"""Models a side below which a deviation over models looks like a difference."""

ALPHA = 0.05
"""P-value below which a difference counts as found when power is requested."""

RELABELLINGS = 199
"""Relabellings of each set of made margins when power is requested."""

MOST_EXAMPLES = 100
"""Examples that power is computed on, spread evenly over all; more would rather raise it."""

LARGEST_SHIFT = 64
"""Deviations; a shift that is not seen at this size is never seen."""


@dataclass(frozen=True)
class Relabelled:
    """Whether model labels carry information about margins."""

    p: float
    """Of "unlearned models and oracles have one law", at these examples together."""

    statistic: float
    """Energy distance, or absolute mean difference, in deviations; mean over examples."""

    rows: Tensor
    """Unlearned mean minus oracle mean, in deviations over all models, of each example ``(E,)``:
    above 0 it looks too familiar. 0 where nothing varies."""

    rows_p: Tensor
    """P-values of the absolute values of these, for all examples at once ``(E,)``."""

    labellings: int
    """Relabellings used."""

    complete: bool
    """Whether these are all there are."""

    note: str = ""
    """Why it is undefined, or what limits it."""


def permutation_test(
    unlearned: Tensor,
    oracle: Tensor,
    *,
    rng: torch.Generator,
    statistic: Statistic = "energy",
    draws: int = 999,
) -> Relabelled:
    """Return whether unlearned models differ from oracles, by relabelling models.

    Under "one law" all labellings of the models are equally likely, whatever the law and however
    examples depend on each other: ``p = (1 + #{b: T_b >= T}) / (B + 1)``, or the share of all
    labellings where there are no more than B. T is the mean over examples of the energy distance
    ``2 E|u - o| - E|u - u'| - E|o - o'|`` (Szekely and Rizzo, Journal of Statistical Planning and
    Inference 143, 2013), which sees any difference of laws, or of ``|mean u - mean o|``; both in
    deviations of the example over all models, which relabelling leaves as they are. As energies are
    quadratic in the labels, the distances between models are added up over examples first. Valid
    where models are exchangeable: each unlearned model from its own original.

    Margins are ``(N, E)`` of unlearned models, ``(M, E)`` of oracles; B is ``draws`` at most, and
    ``rng`` is not read where all labellings are taken.

    Raises:
        InputError: If there are no draws.
    """
    check_margins("permutation_test", unlearned=unlearned, oracle=oracle)
    if draws < 1:
        raise InputError(f"permutation_test: draws must be 1 or more, got {draws}")
    (n, examples), m = unlearned.shape, len(oracle)
    if min(n, m) < LEAST_MODELS or not examples:
        few = f"{n} unlearned models and {m} oracles; {LEAST_MODELS} of each are the least"
        empty = torch.full((examples,), math.nan, dtype=torch.float64)
        why = few if examples else "no examples"
        return Relabelled(math.nan, math.nan, empty, empty, 0, complete=False, note=why)
    complete = math.comb(n + m, n) <= draws
    weights = _contrasts(_all(n, m) if complete else _random(n, m, draws + 1, rng), n, m)
    total = torch.zeros(len(weights), dtype=torch.float64)
    largest, rows = total.clone(), torch.zeros(examples, dtype=torch.float64)
    for part in blocks(examples, (n + m) * 4 + len(weights) * 3):
        margins = _standardised(torch.cat([unlearned[:, part], oracle[:, part]]).double())
        total += _total(weights, margins, statistic)
        shifts = weights @ margins
        rows[part] = shifts[0]
        largest = torch.maximum(largest, shifts.abs_().amax(1))
    others = slice(None) if complete else slice(1, None)
    p = float(max_statistic(total[:1], total[others], complete=complete))
    least = 1 / len(weights) * (2 if n == m and complete else 1)
    note = f"{len(weights)} labellings: p cannot be below {least:.2g}" if least > ALPHA else ""
    return Relabelled(
        p=p,
        statistic=float(total[0]) / examples,
        rows=rows,
        rows_p=max_statistic(rows.abs(), largest[others], complete=complete),
        labellings=len(weights) - (not complete),
        complete=complete,
        note=note,
    )


def smallest_shift(
    unlearned: Tensor,
    oracle: Tensor,
    *,
    rng: torch.Generator,
    statistic: Statistic = "energy",
    draws: int = 100,
    power: float = POWER,
) -> float:
    """Return the smallest shift of all examples alike that the test would have found here.

    In deviations over models of one side. Margins without their side's mean are dealt to new sides,
    which keeps the spread of examples and their dependence; one side is shifted at each example,
    and the share of ``draws`` such sides with p below 0.05 is the power (0.8 is met within 0.08 by
    100 draws). Nan where so few models, or margins without spread, show nothing.
    """
    check_margins("smallest_shift", unlearned=unlearned, oracle=oracle)
    (n, examples), m = unlearned.shape, len(oracle)
    if min(n, m) < LEAST_MODELS or not examples:
        return math.nan
    few = torch.arange(0, examples, math.ceil(examples / MOST_EXAMPLES))
    margins = torch.cat([_residuals(side[:, few].double()) for side in (unlearned, oracle)])
    varies = (margins != 0).any(0)
    if not bool(varies.any()):
        return math.nan
    margins = _standardised(margins[:, varies])
    complete = math.comb(n + m, n) <= RELABELLINGS
    sides = _random(n, m, draws + 1, rng)[1:]
    labels = [_all(n, m) if complete else _random(n, m, RELABELLINGS + 1, rng) for _ in sides]

    def share(shift: float) -> float:
        found = 0
        for side, relabelled in zip(sides, labels, strict=True):
            weights = _contrasts(torch.cat([side[None], relabelled[not complete :]]), n, m)
            total = _total(weights, margins + shift * side[:, None], statistic)
            found += float(max_statistic(total[:1], total[1:], complete=complete)) < ALPHA
        return found / draws

    high = 1 / 16
    while share(high) < power:
        high *= 2
        if high > LARGEST_SHIFT:
            return math.nan
    return minimum_detectable_effect(share, high, power=power, steps=4)


def _total(weights: Tensor, margins: Tensor, statistic: Statistic) -> Tensor:
    """Return the sum over examples of the statistic, of each labelling ``(B,)``."""
    if statistic == "mean":
        return (weights @ margins).abs_().sum(1)
    apart = torch.cdist(margins, margins, p=1)
    return -((weights @ apart) * weights).sum(1)


def _all(n: int, m: int) -> Tensor:
    """Return all labellings, the given one first ``(B, n + m)``: whether a model is unlearned."""
    members = torch.tensor(list(itertools.combinations(range(n + m), n)))
    return torch.zeros(len(members), n + m, dtype=torch.bool).scatter_(1, members, value=True)


def _random(n: int, m: int, count: int, rng: torch.Generator) -> Tensor:
    """Return the given labelling and random ones after it ``(count, n + m)``."""
    members = torch.rand(count, n + m, generator=rng, dtype=torch.float64).argsort(1)[:, :n]
    members[0] = torch.arange(n)
    return torch.zeros(count, n + m, dtype=torch.bool).scatter_(1, members, value=True)


def _contrasts(labels: Tensor, n: int, m: int) -> Tensor:
    """Return weights of models that make the difference of the two sides' means."""
    return labels.double() * (1 / n + 1 / m) - 1 / m


def _standardised(margins: Tensor) -> Tensor:
    """Return margins without mean and in deviations over all models; 0 where nothing varies."""
    centred = margins - margins.mean(0)
    spread = centred.std(0)
    return centred / torch.where(spread > 0, spread, 1.0)


def _residuals(side: Tensor) -> Tensor:
    """Return margins without their mean, widened so that their spread is the law's."""
    return (side - side.mean(0)) * math.sqrt(len(side) / (len(side) - 1))
