"""RMIA: relative membership scores from a few reference models.

The strongest attack for few retrained models: it takes out how hard an example is with as little as
one. The columns are the caller's choice: forget rows, or retained rows. On retained rows, which the
oracles know as well, a held-out oracle's value is the aim, and it is not one half.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from unlearnkit.core.errors import InputError
from unlearnkit.stats.matrix_checks import blocks, check_margins


@dataclass(frozen=True)
class Rmia:
    """How much each target stands out on each example."""

    scores: Tensor
    """Share of population points that the example beats by a factor gamma ``(T, E)``, in steps of
    1 / Z."""

    log_ratios: Tensor
    """Mean over the population of the log of the likelihood ratio ``(T, E)``: breaks ties.

    Within a target the share grows with it, so that it orders examples as both together do.
    """

    note: str = ""
    """What limits the scores."""


def rmia(
    target: Tensor,
    references: Tensor,
    target_population: Tensor,
    references_population: Tensor,
    *,
    inside: Tensor | None = None,
    a: float = 0.5,
    gamma: float = 1.0,
    ties: Literal["beaten", "unbeaten"] = "beaten",
) -> Rmia:
    """Return relative membership scores (Zarifzadeh et al., ICML 2024, arXiv:2312.03262).

    ``Pr over z [p(x) / mean p(x) >= gamma p(z) / mean p(z)]``, with p the probability of the true
    class and ``mean p = ((1 + a) out + (1 - a)) / 2`` from models that did not see the example. For
    unlearning the references are oracles. With ``inside``, ``mean p = (in + out) / 2`` where an
    example has models on both sides. Population points are strangers to all, and all references
    count for them alike.

    Args:
        target: Margins of the models under attack ``(T, E)``: log-odds of the true class.
        references: Margins of K models ``(K, E)``.
        target_population: Margins of the targets on Z points that no model saw ``(T, Z)``; 1,000 or
            more.
        references_population: Margins of the references on them ``(K, Z)``.
        inside: Which examples each reference was trained on ``(K, E)``, boolean; None if none.
        a: What the unseen half of the mean is taken to be, from 1 (as the seen one) to 0 (sure).
        gamma: Factor by which a population point must be beaten, above 0.
        ties: Whether a point that is met exactly counts as beaten: ``>=``, the paper's definition,
            or ``unbeaten``, the strict ``>`` of some codes.

    Raises:
        InputError: If shapes do not fit, there is no reference or no population point, or a setting
            is out of its range.
    """
    _check(target, references, target_population, references_population)
    if not 0 <= a <= 1 or not 0 < gamma < math.inf:
        raise InputError(f"rmia: a must be in [0, 1] and gamma above 0, got {a} and {gamma}")
    usual = _log_mean(references, a, inside)
    strange = _log_mean(references_population, a, None)
    scores, ratios = (torch.empty(target.shape, dtype=torch.float64) for _ in range(2))
    for t, (seen, unseen) in enumerate(zip(target, target_population, strict=True)):
        ladder = (_log_p(unseen) - strange).sort().values
        own = _log_p(seen) - usual
        beaten = torch.searchsorted(ladder, own - math.log(gamma), right=ties == "beaten")
        scores[t] = beaten.double() / len(ladder)
        ratios[t] = own - ladder.mean()
    missing = int(usual.isnan().sum())
    scores[:, usual.isnan()] = math.nan
    return Rmia(scores, ratios, f"{missing} examples have no reference" if missing else "")


def _check(
    target: Tensor, references: Tensor, target_population: Tensor, references_population: Tensor
) -> None:
    check_margins("rmia", target=target, reference=references)
    check_margins("rmia population", target=target_population, reference=references_population)
    if not len(references) or not target_population.shape[1]:
        raise InputError(
            "rmia: a reference model and a population point are needed, got"
            f" {len(references)} and {target_population.shape[1]}"
        )
    for what, one, two in (
        ("targets", target, target_population),
        ("references", references, references_population),
    ):
        if len(one) != len(two):
            raise InputError(
                f"rmia: {what} must be the same models on population points, got {len(one)} and"
                f" {len(two)}"
            )


def _log_p(margins: Tensor) -> Tensor:
    """Return the log-probability of the true class, from its log-odds."""
    return functional.logsigmoid(margins.double())


def _log_mean(margins: Tensor, a: float, inside: Tensor | None) -> Tensor:
    """Return the log of the mean probability of each example ``(E,)``."""
    found = torch.empty(margins.shape[1], dtype=torch.float64)
    rest = math.log1p(-a) if a < 1 else -math.inf
    for part in blocks(margins.shape[1], 4 * len(margins)):
        logs = _log_p(margins[:, part])
        used = torch.zeros_like(logs, dtype=torch.bool) if inside is None else inside[:, part]
        seen, unseen = (
            torch.where(m, logs, -math.inf).logsumexp(0) - m.sum(0).double().log()
            for m in (used, ~used)
        )
        alone = torch.logaddexp(unseen + math.log1p(a), torch.full_like(unseen, rest))
        both = torch.logaddexp(seen, unseen)
        found[part] = torch.where(used.any(0), both, alone) - math.log(2)
    return found
