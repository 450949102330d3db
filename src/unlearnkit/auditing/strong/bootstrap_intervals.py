"""Intervals of the strong table: models, then examples, are drawn anew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from unlearnkit.attacks.klom import klom
from unlearnkit.auditing.strong.table_rows import EnsembleEstimate
from unlearnkit.stats.bootstrap import (
    LEAST_DRAWS,
    Statistic,
    drawn_mean,
    resample,
    two_level_bootstrap,
)
from unlearnkit.stats.intervals import z_quantile

MOST_ROWS = 100
"""Examples that KLoM is computed of in each draw, spread evenly; more would narrow the interval."""

TOGETHER = 40
"""Draws whose examples stand side by side, for one call instead of many."""

HOW = "two-level bootstrap over models and rows"

Halves = Sequence[tuple[Tensor, Tensor]]
"""Log ratios of attacked unlearned models and of others ``(models, E)``, for either half."""


def of_mean_gap(
    number: EnsembleEstimate, sides: Sequence[Tensor], rng: torch.Generator
) -> EnsembleEstimate:
    """Return the mean of one side less that of another, with its interval.

    Args:
        number: The number.
        sides: Values ``(models, E)``, of both sides.
        rng: Decides the draws.

    Returns:
        The number.
    """

    def gap(models: Sequence[Tensor], rows: Tensor) -> Tensor:
        ours, theirs = (drawn_mean(s, m, rows) for s, m in zip(sides, models, strict=True))
        return ours - theirs

    return _with_interval(number, sides, gap, rng)


def of_known_mean(
    number: EnsembleEstimate, side: Tensor, rng: torch.Generator, *, given: str
) -> EnsembleEstimate:
    """Return the mean of the cells that are known, with its interval.

    Args:
        number: The number.
        side: Values ``(models, E)``; nan where nothing is known.
        rng: Decides the draws.
        given: What is not drawn anew, in words.

    Returns:
        The number.
    """
    known, values = (~side.isnan()).double(), side.nan_to_num(0.0)

    def mean(models: Sequence[Tensor], rows: Tensor) -> Tensor:
        return drawn_mean(values, models[0], rows) / drawn_mean(known, models[0], rows)

    return _with_interval(number, [side], mean, rng, given=given)


def of_auc(number: EnsembleEstimate, halves: Halves, rng: torch.Generator) -> EnsembleEstimate:
    """Return the AUC of U-LiRA's cells with its interval, fitted laws given.

    Args:
        number: The AUC.
        halves: The cells.
        rng: Decides the draws.

    Returns:
        The number.
    """
    if math.isnan(number.value):
        return number
    sorted_halves = [_SortedCells.of(*half) for half in halves]

    def auc(models: Sequence[Tensor], rows: Tensor) -> Tensor:
        ours, theirs = models[::2], models[1::2]
        found = [
            torch.stack([half.auc(*counts) for counts in zip(a, b, rows, strict=True)])
            for half, a, b in zip(sorted_halves, ours, theirs, strict=True)
        ]
        return torch.stack(found).mean(0)

    return _with_interval(number, [r for h in halves for r in h], auc, rng, given="fitted laws")


def _with_interval(
    number: EnsembleEstimate,
    sides: Sequence[Tensor],
    statistic: Statistic,
    rng: torch.Generator,
    *,
    given: str = "",
) -> EnsembleEstimate:
    """Return a number with the percentile interval of its draws, or why there is none."""
    if math.isnan(number.value):
        return number
    sizes, rows = [len(side) for side in sides], sides[0].shape[1]
    found = two_level_bootstrap(number.value, sizes, rows, statistic, rng=rng)
    how = f"{HOW}, {given} given" if given else HOW
    return replace(number, low=found.low, high=found.high, how=how, note=number.note or found.note)


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

    def accuracy(models: Sequence[Tensor], rows: Tensor) -> Tensor:
        means = [drawn_mean(c, m, rows) for c, m in zip(calls, models, strict=True)]
        return 0.5 + (torch.stack(means[::2]) - torch.stack(means[1::2])).sum(0) / len(calls)

    return _with_interval(number, calls, accuracy, rng, given="fitted laws")


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
    its floor is.

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


@dataclass(frozen=True)
class _SortedCells:
    """The cells of two sides in order, so that an AUC follows from weights without sorting."""

    ours: tuple[Tensor, Tensor]
    """Model and example of each cell of the first side, lowest value first ``(n,)``."""

    theirs: tuple[Tensor, Tensor]
    below: Tensor
    """Cells of the second side below each of the first ``(n,)``."""

    up_to: Tensor
    """The same, with those that are equal."""

    @classmethod
    def of(cls, ours: Tensor, theirs: Tensor) -> _SortedCells:
        (a, mine), (b, others) = (side.flatten().sort() for side in (ours, theirs))
        width = ours.shape[1]
        return cls(
            (mine // width, mine % width),
            (others // width, others % width),
            torch.searchsorted(b, a),
            torch.searchsorted(b, a, right=True),
        )

    def auc(self, ours: Tensor, theirs: Tensor, rows: Tensor) -> Tensor:
        """Return the AUC where models and examples count as given ``(models,)``, ``(E,)``."""
        mine, others = (
            w.index_select(0, model).mul_(rows.index_select(0, example))
            for w, (model, example) in ((ours, self.ours), (theirs, self.theirs))
        )
        steps = others.new_zeros(len(others) + 1)
        torch.cumsum(others, 0, out=steps[1:])
        half = steps.index_select(0, self.below).add_(steps.index_select(0, self.up_to))
        return mine.dot(half) / (2 * mine.sum() * steps[-1])
