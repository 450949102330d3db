"""Wasserstein-1 distance of margins from oracles', in the oracles' spread."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearnkit.stats.matrix_checks import blocks, check_margins

LEAST_MODELS = 3
"""Oracles from which on their deviation is used as a unit."""


@dataclass(frozen=True)
class WassersteinShift:
    """Distance of unlearned margins from oracles', example by example."""

    rows: Tensor
    """Oracle deviations ``(E,)``; nan where oracles do not vary."""

    shift: Tensor
    """Unlearned mean minus oracle mean, in oracle deviations ``(E,)``: its sign tells whether an
    example looks too familiar (above 0) or too strange."""

    median: float
    percentile_95: float
    """Over the examples where it is defined."""

    note: str = ""
    """Why it is undefined, and for how many."""


def wasserstein(unlearned: Tensor, oracle: Tensor) -> WassersteinShift:
    """Return the Wasserstein-1 distance of each example's margins to the oracles', in their spread.

    ``int |F_u - F_o| / s_o``, with the two empirical distribution functions (margins ``(N, E)`` and
    ``(M, E)``) and the deviation of the oracles at the same example. It has no bins and no largest
    value, and sees every change of a law; of two equal normal samples of 100 it is 0.18 on average,
    not 0: compare with a second set of as many oracles.
    """
    check_margins("wasserstein", unlearned=unlearned, oracle=oracle)
    (n, examples), m = unlearned.shape, len(oracle)
    rows = torch.full((examples,), math.nan, dtype=torch.float64)
    shift = rows.clone()
    if n < 1 or m < LEAST_MODELS:
        why = f"{n} unlearned models and {m} oracles; 1 and {LEAST_MODELS} are the least"
        return WassersteinShift(rows, shift, math.nan, math.nan, why)
    steps = torch.tensor([1 / n] * n + [-1 / m] * m, dtype=torch.float64)
    for part in blocks(examples, 6 * (n + m)):
        ours, theirs = (side[:, part].T.to(torch.float64) for side in (unlearned, oracle))
        rising, order = torch.cat([ours, theirs], 1).sort(1)
        gap = steps[order].cumsum(1)[:, :-1].abs()
        spread = theirs.std(1)
        unit = torch.where(spread > 0, spread, math.nan)
        rows[part] = (gap * rising.diff(dim=1)).sum(1) / unit
        shift[part] = (ours.mean(1) - theirs.mean(1)) / unit
    known = rows[~rows.isnan()]
    lost = examples - len(known)
    note = f"oracles do not vary at {lost} of {examples} examples" if lost else ""
    if not len(known):
        return WassersteinShift(rows, shift, math.nan, math.nan, note or "no examples")
    median, high = torch.quantile(known, known.new_tensor([0.5, 0.95])).tolist()
    return WassersteinShift(rows, shift, median, high, note)
