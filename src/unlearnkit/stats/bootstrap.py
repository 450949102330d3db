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


TOGETHER = 16
"""Draws that are counted before numbers are computed of them."""

Statistic = Callable[[Sequence[Tensor], Tensor], Tensor]


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
    value: float,
    models: Sequence[int],
    examples: int,
    statistic: Statistic,
    *,
    rng: torch.Generator,
    draws: int = LEAST_DRAWS,
    level: float = 0.95,
) -> BootstrapInterval:
    """Return a number's interval when models, then examples, are drawn anew with replacement.

    Each side draws its own models; all sides draw the same examples, in the order of ``resample``.
    No side is copied: the number follows from how often each model and each example is drawn.
    Drawing both is somewhat wide (at most by the variance of single cells) where one level alone
    would be too narrow (Owen, Annals of Applied Statistics 1, 2007).

    Args:
        value: The number, of the sides as they are.
        models: Models of each side.
        examples: E, common to all sides.
        statistic: The numbers of d draws ``(d,)``, from counts of the models of each side
            ``(d, models)`` and of the examples ``(d, E)``, all float64.
        rng: Decides the draws.
        draws: Number of draws.
        level: Coverage.

    Returns:
        The number and its interval; nan ends with the reason where there are too few models or the
        number is not finite in every draw.

    Raises:
        InputError: If there are too few draws.
    """
    if draws < LEAST_DRAWS:
        raise InputError(f"two_level_bootstrap: draws must be at least {LEAST_DRAWS}, got {draws}")
    if min(models) < LEAST_MODELS:
        why = f"{min(models)} models on a side; {LEAST_MODELS} are the least for an interval"
        return BootstrapInterval(value, math.nan, math.nan, math.nan, draws, why)
    found = []
    for start in range(0, draws, TOGETHER):
        few = min(TOGETHER, draws - start)
        counts = [torch.zeros(few, n, dtype=torch.float64) for n in (*models, examples)]
        for draw in range(few):
            for into in counts:
                n = into.shape[1]
                into[draw] = torch.bincount(torch.randint(n, (n,), generator=rng), minlength=n)
        found.append(statistic(counts[:-1], counts[-1]))
    return _interval(value, torch.cat(found), level)


def drawn_mean(side: Tensor, models: Tensor, examples: Tensor) -> Tensor:
    """Return the mean ``(d,)`` of a side's cells in d draws, from counts of what was drawn.

    Args:
        side: Values ``(models, E)``.
        models: Counts ``(d, models)``.
        examples: Counts ``(d, E)``.
    """
    return ((models @ side.double()) * examples).sum(1) / side.numel()


def _interval(value: float, found: Tensor, level: float) -> BootstrapInterval:
    draws = len(found)
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
