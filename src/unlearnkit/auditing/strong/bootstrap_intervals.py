"""Intervals of the strong table: models, then examples, are drawn anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from unlearnkit.attacks.klom import klom
from unlearnkit.auditing.strong.table_rows import EnsembleEstimate
from unlearnkit.stats.bootstrap import LEAST_DRAWS, BootstrapInterval, resample, two_level_bootstrap
from unlearnkit.stats.intervals import z_quantile

MOST_ROWS = 100
"""Examples that KLoM is computed of in each draw, spread evenly; more would narrow the interval."""

TOGETHER = 40
"""Draws whose examples stand side by side, for one call instead of many."""

HOW = "two-level bootstrap over models and rows"

Halves = Sequence[tuple[Tensor, Tensor]]
"""Log ratios of attacked unlearned models and of others ``(models, E)``, for either half."""


def with_bootstrap_interval(
    number: EnsembleEstimate,
    sides: Sequence[Tensor],
    statistic: Callable[[Sequence[Tensor]], float],
    rng: torch.Generator,
    *,
    given: str = "",
) -> EnsembleEstimate:
    """Return a number with the percentile interval of its draws.

    Args:
        number: The number.
        sides: Values ``(models, E)``, one tensor a side.
        statistic: The number, of tensors shaped as the sides.
        rng: Decides the draws.
        given: What is not drawn anew, in words.

    Returns:
        The number; without an interval, and with the reason, where there are too few models.
    """
    if math.isnan(number.value):
        return number
    found = two_level_bootstrap(sides, statistic, rng=rng)
    return _told(number, found, found.low, found.high, f"{HOW}, {given} given" if given else HOW)


def of_auc(number: EnsembleEstimate, halves: Halves, rng: torch.Generator) -> EnsembleEstimate:
    """Return the AUC of U-LiRA's cells with its interval, fitted laws given.

    Args:
        number: The AUC.
        halves: The cells.
        rng: Decides the draws.

    Returns:
        The number.
    """
    return with_bootstrap_interval(
        number, [r for h in halves for r in _ranks(h)], _auc, rng, given="fitted laws"
    )


@dataclass(frozen=True)
class AucError:
    """AUC of U-LiRA's cells, and its standard error over attacked models."""

    value: float
    error: float
    """nan for fewer than two models a side."""


def auc_with_error(halves: Halves) -> AucError:
    """Return the AUC of U-LiRA's cells with its standard error over attacked models, rows given.

    ``sqrt(sum_h (var A_i / n + var A_k / m) / 4)`` over both halves h, with A_i that of one
    unlearned model's cells and all others', and A_k that of one other's: DeLong, DeLong and
    Clarke-Pearson (Biometrics 44, 1988) with models in the place of cells.

    Args:
        halves: The cells.

    Returns:
        Both.
    """
    total = variance = 0.0
    for ours, theirs in halves:
        sides = (_auc_against(ours, theirs), _auc_against(-theirs, -ours))
        total += float(sides[0].mean())
        variance += sum(float(side.var()) / len(side) for side in sides)
    return AucError(total / len(halves), math.sqrt(variance) / len(halves))


def auc_over_models(halves: Halves) -> EnsembleEstimate:
    """Return the AUC of U-LiRA's cells with its 95 % interval over models, as ``auc_with_error``.

    Args:
        halves: The cells.

    Returns:
        The number; without an interval for fewer than two models a side.
    """
    found = auc_with_error(halves)
    value, reach = found.value, z_quantile(0.95) * found.error
    if math.isnan(reach):
        return EnsembleEstimate(value)
    low, high = max(value - reach, 0.0), min(value + reach, 1.0)
    return EnsembleEstimate(
        value, low=low, high=high, how="DeLong over models, rows and laws given"
    )


def _auc_against(models: Tensor, others: Tensor) -> Tensor:
    """Return the AUC of each model's cells ``(N,)`` against all cells of other models."""
    ladder = others.flatten().sort().values
    below, up_to = (
        torch.stack([torch.searchsorted(ladder, m, right=r).sum() for m in models])
        for r in (False, True)
    )
    return (below + up_to).double() / (2 * models.shape[1] * len(ladder))


def of_accuracy(number: EnsembleEstimate, halves: Halves, rng: torch.Generator) -> EnsembleEstimate:
    """Return U-LiRA's balanced accuracy with its interval, fitted laws given.

    Args:
        number: The accuracy.
        halves: The cells.
        rng: Decides the draws.

    Returns:
        The number.
    """
    calls = [(r > 0).double() for h in halves for r in h]
    return with_bootstrap_interval(number, calls, _accuracy, rng, given="fitted laws")


@dataclass(frozen=True)
class HalfWidths:
    """Half the width of an interval of either number that KLoM gives."""

    median: float
    percentile_95: float

    def about(
        self, number: EnsembleEstimate, which: Literal["median", "percentile_95"]
    ) -> EnsembleEstimate:
        """Return a number with the interval about it."""
        reach = getattr(self, which)
        ends = {"low": max(number.value - reach, 0.0), "high": number.value + reach}
        return replace(number, **ends, how=f"normal, with the deviation of a {HOW}")


def klom_reach(unlearned: Tensor, oracle: Tensor, rng: torch.Generator) -> HalfWidths:
    """Return 1.96 deviations of KLoM's median and 95th percentile over draws.

    Models that are drawn twice make KLoM larger: its floor is that of fewer models. The draws'
    deviation is used and their place is not, so that the interval is that of this many models, as
    the floor beside it is.

    Args:
        unlearned: Margins ``(N, E)``, of enough models for KLoM.
        oracle: Margins ``(M, E)``.
        rng: Decides the draws.

    Returns:
        Both.
    """
    few = [side[:, :: math.ceil(side.shape[1] / MOST_ROWS)] for side in (unlearned, oracle)]
    found = []
    for _ in range(LEAST_DRAWS // TOGETHER):
        drawn = [resample(few, rng) for _ in range(TOGETHER)]
        ours, theirs = (torch.cat([sides[i] for sides in drawn], 1) for i in range(2))
        rows = klom(ours, theirs).rows.view(TOGETHER, -1)
        found.append(rows.quantile(rows.new_tensor([0.5, 0.95]), dim=1))
    reach = z_quantile(0.95) * torch.cat(found, 1).std(1)
    return HalfWidths(*reach.tolist())


def _told(
    number: EnsembleEstimate, found: BootstrapInterval, low: float, high: float, how: str
) -> EnsembleEstimate:
    return replace(number, low=low, high=high, how=how, note=number.note or found.note)


def _ranks(half: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the cells' places in the common order, ties in one place."""
    ours, theirs = half
    place = torch.unique(torch.cat([ours.flatten(), theirs.flatten()]), return_inverse=True)[1]
    return place[: ours.numel()].view_as(ours), place[ours.numel() :].view_as(theirs)


def _auc(sides: Sequence[Tensor]) -> float:
    """Return the mean AUC of the halves, of cells by their place: counted, not sorted."""
    total = 0.0
    for ours, theirs in zip(sides[::2], sides[1::2], strict=True):
        size = int(max(ours.max(), theirs.max())) + 1
        mine, others = (
            torch.bincount(side.flatten(), minlength=size).double() for side in (ours, theirs)
        )
        wins = (mine * (others.cumsum(0) - others / 2)).sum()
        total += float(wins) / (ours.numel() * theirs.numel())
    return total / (len(sides) // 2)


def _accuracy(sides: Sequence[Tensor]) -> float:
    signs = (1.0, -1.0) * (len(sides) // 2)
    return 0.5 + sum(
        sign * float(side.mean()) for sign, side in zip(signs, sides, strict=True)
    ) / len(sides)
