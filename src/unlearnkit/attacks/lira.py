"""LiRA: likelihood-ratio membership scores from shadow models.

The members and the columns are the caller's choice: forget rows against rows never seen, or
retained rows against them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unlearnkit.core.errors import InputError
from unlearnkit.stats.densities import PRIOR, Centre, fit_law, log_ratio
from unlearnkit.stats.matrix_checks import blocks, check_margins, matrix

LEAST = 4
"""Shadow models that an example needs on a side."""


@dataclass(frozen=True)
class Lira:
    """How much each margin speaks for membership."""

    scores: Tensor
    """``(T, E)``, larger for members; nan for examples with too few shadow models."""

    note: str = ""
    """Which examples have no score, and why."""


def lira(
    target: Tensor,
    shadows: Tensor,
    inside: Tensor | None = None,
    *,
    queries: int = 1,
    prior: float = PRIOR,
    centre: Centre = "auto",
    form: Literal["student", "normal"] = "student",
    least: int = LEAST,
) -> Lira:
    """Return likelihood-ratio scores of membership (Carlini et al., S&P 2022, arXiv:2112.03570).

    Online, with ``inside``: ``log N(phi; in) - log N(phi; out)``. Offline, without: the tail
    probability of the margin among models that were not trained on the example, as log odds, which
    orders as it does. The laws are those of ``fit_law``; with few shadow models the variance is
    mostly that of all examples.

    Args:
        target: Margins of the models under attack ``(T, E)``; or, online, predictions of P numbers
            ``(T, E, P)``.
        shadows: The same of models that the attacker trained ``(k, E)``, or ``(k, E, P)``.
        inside: Which examples each was trained on ``(k, E)``, boolean; None if none of them.
        queries: Margins an example, such as of augmented copies: Q columns in a row each, ``(T, E
            Q)``; their scores are averaged.
        prior: Models that the common variance counts for; ``math.inf`` fixes it for all.
        centre: As in ``fit_law``.
        form: As in ``fit_law``.
        least: Shadow models that an example needs on a side.

    Returns:
        The scores.

    Raises:
        InputError: If shapes do not fit, or vectors are attacked offline.
    """
    used = _checked(target, shadows, inside, queries)
    if inside is None and target.ndim == 3:
        raise InputError("lira: a vector has no tail; give inside, or attack one number at a time")
    sides = [~used] if inside is None else [used, ~used]
    laws = [fit_law(shadows, u, prior=prior, centre=centre, form=form) for u in sides]
    scores = torch.empty(target.shape[:2], dtype=torch.float64)
    for part in blocks(target.shape[1], 6 * target[:, :1].numel()):
        x = target[:, part].double()
        if len(laws) == 1:
            scores[:, part] = laws[0].part(part).log_odds_below(x)
        else:
            scores[:, part] = log_ratio(laws[0].part(part), laws[1].part(part), x)
    count = torch.stack([u.sum(0) for u in sides]).amin(0)
    scores[:, count < least] = math.nan
    scores = _over_queries(scores, queries)
    missing = int(scores.isnan().any(0).sum())
    few = f"{missing} of {scores.shape[1]} examples have fewer than {least} shadow models on a side"
    return Lira(scores, few if missing else "")


def _over_queries(scores: Tensor, queries: int) -> Tensor:
    return scores.reshape(len(scores), -1, queries).mean(-1)


def _checked(target: Tensor, shadows: Tensor, inside: Tensor | None, queries: int) -> Tensor:
    check_margins("lira", target=matrix(target), shadow=matrix(shadows))
    if not len(target) or not len(shadows):
        raise InputError(
            f"lira: at least one target and one shadow model are needed, got {len(target)} and"
            f" {len(shadows)}; train shadow models first"
        )
    cells = tuple(shadows.shape[:2])
    if target.shape[1:] != shadows.shape[1:] or queries < 1 or cells[1] % queries:
        raise InputError(
            f"lira: targets and shadows must have the same columns, {queries} for each example, got"
            f" {tuple(target.shape)} and {tuple(shadows.shape)}"
        )
    if inside is None:
        return torch.zeros(cells, dtype=torch.bool)
    wanted = (cells[0], cells[1] // queries)
    if tuple(inside.shape) != wanted or inside.dtype is not torch.bool:
        raise InputError(
            f"lira: inside must be boolean {wanted}, models by examples, got {inside.dtype}"
            f" {tuple(inside.shape)}"
        )
    return inside.repeat_interleave(queries, 1)
