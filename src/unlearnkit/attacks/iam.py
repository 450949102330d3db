"""IAM: interpolated membership scores, from retrained (0) to original (1).

A graded answer where an attack says in or out, from as little as one retrained model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from scipy import special  # not scipy.stats: it takes half a second to import
from torch import Tensor

from unlearnkit.core.errors import InputError
from unlearnkit.stats.densities import fit_law
from unlearnkit.stats.matrix_checks import blocks, check_margins

STEPS = 100
OVER = 1.96
"""Deviations beyond the oracles, away from the original, that make an example over-forgotten."""

HEADROOM = 2.0
"""Oracle deviations between original and oracles below which the way is too short to measure."""


@dataclass(frozen=True)
class IamScores:
    """How much each unlearned model still holds of each example."""

    scores: Tensor
    """``(N, E)``: 0 as the oracles, 1 as the original; nan where the way between them is shorter
    than ``headroom``."""

    over_forgotten: Tensor
    """Whether it lies beyond the oracles ``(N, E)``: over-forgotten."""

    floor: Tensor
    """Scores of every second oracle against the rest ``(M // 2, E)``; no rows for fewer than 4."""

    note: str = ""
    """What is left out, or why all is nan."""

    @property
    def value(self) -> float:
        """Return the mean over models and examples that have a score; nan without any."""
        return float(self.scores.nanmean())

    @property
    def oracle_value(self) -> float:
        """Return the same of the held-out oracles: what is not 0 by chance alone."""
        return float(self.floor.nanmean()) if len(self.floor) else math.nan

    @property
    def over_share(self) -> float:
        """Return the share of scored cells that are over-forgotten; by chance about 0.025."""
        known = ~self.scores.isnan()
        return float(self.over_forgotten[known].double().mean()) if bool(known.any()) else math.nan


def iam_scores(
    original: Tensor,
    unlearned: Tensor,
    oracle: Tensor,
    *,
    unseen: tuple[Tensor, Tensor] | None = None,
    headroom: float = HEADROOM,
    weights: Literal["even", "reference"] = "even",
) -> IamScores:
    """Return interpolated membership scores (IAM; USENIX Security 2025, arXiv:2506.06112).

    The oracles' law is moved in steps alpha from where it is (0) to the original's margin (1),
    shrinking on the way. The score is the mean over alpha of the chance that such a model has a
    margin below the unlearned one's, on the original's side. With even weights an example a share t
    of the way along scores t; the published code weighs each step with alpha, which gives t².

    Args:
        original: Margins before: of one model ``(1, E)``, or of the one that each unlearned model
            came from ``(N, E)``.
        unlearned: Margins after ``(N, E)``.
        oracle: Margins of K retrained models ``(K, E)``.
        unseen: Margins of originals ``(L, H)`` and oracles ``(K, H)`` on rows that neither saw: the
            spread between such models, for K = 1, when the oracles cannot show their own.
        headroom: Oracle deviations that must lie between the original and the oracles.
        weights: Of the steps.

    Returns:
        The scores.

    Raises:
        InputError: If shapes do not fit.
    """
    check_margins("degree", original=original, unlearned=unlearned, oracle=oracle)
    if len(original) not in {1, len(unlearned)} or not len(unlearned) or not len(oracle):
        raise InputError(
            "degree: an oracle, and one original or one for each unlearned model, are needed, got"
            f" {len(oracle)}, and {len(original)} for {len(unlearned)}"
        )
    common = None
    if len(oracle) == 1:
        if unseen is None:
            empty = torch.full(unlearned.shape, math.nan, dtype=torch.float64)
            why = "one oracle does not show its spread: give unseen rows, or two oracles"
            return IamScores(empty, torch.zeros_like(empty, dtype=torch.bool), empty[:0], why)
        common = _spread(*unseen)
    scores, over = _scores(original, unlearned, oracle, common, headroom, weights)
    floor = torch.empty(0, oracle.shape[1], dtype=torch.float64)
    if len(oracle) >= 4:
        before = original if len(original) == 1 else original.mean(0, keepdim=True)
        floor, _ = _scores(before, oracle[1::2], oracle[::2], None, headroom, weights)
    if not scores.numel():
        return IamScores(scores, over, floor, "no examples")
    hidden = float(scores.isnan().double().mean())
    note = f"{hidden:.0%} of cells have less than {headroom:g} oracle deviations of headroom"
    return IamScores(scores, over, floor, note if hidden else "")


def _scores(
    original: Tensor,
    unlearned: Tensor,
    oracle: Tensor,
    common: Tensor | None,
    headroom: float,
    weights: Literal["even", "reference"],
) -> tuple[Tensor, Tensor]:
    law = fit_law(oracle, common=common, form="normal")
    alphas = torch.arange(STEPS, dtype=torch.float64) / STEPS
    weight = torch.ones_like(alphas) if weights == "even" else alphas + 1 / STEPS
    scores = torch.empty(unlearned.shape, dtype=torch.float64)
    over = torch.empty(unlearned.shape, dtype=torch.bool)
    for part in blocks(unlearned.shape[1], 4 * len(unlearned)):
        centre, scale = law.centre[part], law.scale[part]
        way = (original[:, part].double() - centre) / scale
        room = way.abs()
        # From the oracles' centre towards the original's side, in oracle deviations.
        along = (unlearned[:, part].double() - centre) / scale * way.sign()
        total = torch.zeros_like(along)
        for a, w in zip(alphas.tolist(), weight.tolist(), strict=True):
            total += w * _normal((along - a * room) / (1 - a))
        scores[:, part] = torch.where(room >= headroom, total / weight.sum(), math.nan)
        over[:, part] = along < -OVER
    return scores, over


def _normal(z: Tensor) -> Tensor:
    return torch.as_tensor(special.ndtr(z.numpy()))


def _spread(original: Tensor, oracle: Tensor) -> Tensor:
    """Return the variance over models, from differences of two on rows that neither saw."""
    check_margins("degree: unseen", original=original, oracle=oracle)
    gaps = original.double()[:, None] - oracle.double()[None]
    return gaps.square().mean() / 2
