"""Two-level bootstrap: intervals over models and examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearnkit.core.errors import InputError

LEAST_DRAWS = 2000
"""Draws from which on the ends of a 95 % interval are steady."""

LEAST_MODELS = 3
"""Models a side from which on there is an interval."""


Statistic = Callable[[Sequence[Tensor]], float]


@dataclass(frozen=True)
class BootstrapInterval:
    """A number and its interval over models and examples."""

    value: float
    low: float
    high: float
    error: float
    """Standard deviation over the draws."""

    draws: int
    note: str = ""
    """Why there is no interval."""


def two_level_bootstrap(
    sides: Sequence[Tensor],
    statistic: Statistic,
    *,
    rng: torch.Generator,
    draws: int = LEAST_DRAWS,
    level: float = 0.95,
) -> BootstrapInterval:
    """Return a number's interval when models, then examples, are drawn anew with replacement.

    ``sides`` are values of several models for the same examples ``(models, E)``, from which
    ``statistic`` computes the number. Each side draws its own models; all sides draw the same
    examples. Drawing both is somewhat wide (at most by the variance of single cells) where one
    level alone would be too narrow (Owen, Annals of Applied Statistics 1, 2007). Ends are nan, with
    the reason, for too few models or a number that is not finite in every draw.

    Raises:
        InputError: If there are too few draws, or the sides differ in examples.
    """
    if draws < LEAST_DRAWS:
        raise InputError(f"two_level_bootstrap: draws must be at least {LEAST_DRAWS}, got {draws}")
    if len({side.shape[1] for side in sides}) != 1:
        shapes = [tuple(side.shape) for side in sides]
        raise InputError(f"two_level_bootstrap: all sides need the same examples, got {shapes}")
    value, fewest = float(statistic(sides)), min(len(side) for side in sides)
    if fewest < LEAST_MODELS:
        why = f"{fewest} models on a side; {LEAST_MODELS} are the least for an interval"
        return BootstrapInterval(value, math.nan, math.nan, math.nan, draws, why)
    found = torch.tensor(
        [statistic(resample(sides, rng)) for _ in range(draws)], dtype=torch.float64
    )
    lost = int((~found.isfinite()).sum()) + (not math.isfinite(value))
    if lost:
        why = f"the number is not finite in {lost} of {draws} draws"
        return BootstrapInterval(value, math.nan, math.nan, math.nan, draws, why)
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = torch.quantile(found, torch.tensor(tails, dtype=torch.float64)).tolist()
    return BootstrapInterval(value, low, high, float(found.std()), draws)


def resample(sides: Sequence[Tensor], rng: torch.Generator) -> list[Tensor]:
    """Return the sides with models, each side its own, and examples, common to all, drawn anew."""
    models = [side[torch.randint(len(side), (len(side),), generator=rng)] for side in sides]
    examples = sides[0].shape[1]
    columns = torch.randint(examples, (examples,), generator=rng)
    return [side[:, columns] for side in models]
