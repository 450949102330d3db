"""Recovery ratio: the share of the lost accuracy that unlearning brings back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearnkit.core.errors import InputError

LEAST_LOSS = 0.02
"""Least accuracy, or margin in nats, that wrong documents must cost for there to be a ratio."""


@dataclass(frozen=True)
class Recovery:
    """A recovery ratio and its interval over models and subjects."""

    value: float
    """0 is no recovery, 1 full recovery; below 0 unlearning does more damage."""

    low: float
    high: float
    note: str = ""
    """Why there is no ratio or no interval."""


def recovery_ratio(
    unlearned: Tensor,
    corrupted: Tensor,
    clean: Tensor,
    subjects: Sequence[str],
    *,
    rng: torch.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> Recovery:
    """Return ``(Acc(unlearned) - Acc(corrupted)) / (Acc(clean) - Acc(corrupted))``.

    The interval comes from draws with replacement of models (the same in all three, since an
    unlearned model starts at its corrupted one) and of subjects with all of their questions. With
    one model it says nothing about other models.

    Args:
        unlearned: Whether each answer is right ``(models, N)``, or its margin: the log-probability
            of the true option minus that of the claimed one, in nats.
        corrupted: Of the models that read the wrong documents, before unlearning.
        clean: Of the models that never read them.
        subjects: Whom each of the N questions is about.
        rng: Decides the draws.
        draws: Number of draws.
        level: Coverage.

    Returns:
        The ratio; nan where wrong documents cost less than 0.02. Draws in which they do count at
        both ends of the interval; there is none where these are more than half of an end's share.

    Raises:
        InputError: If the shapes differ, or there is not one subject for each question.
    """
    sides = [t.double() for t in (unlearned, corrupted, clean)]
    shapes = {tuple(t.shape) for t in sides}
    if len(shapes) != 1 or sides[0].dim() != 2 or sides[0].shape[1] != len(subjects):
        raise InputError(
            f"recovery_ratio: three answers (models, N) and N subjects are needed, got"
            f" {sorted(shapes)} and {len(subjects)} subjects"
        )
    value = _ratio(*(t.mean() for t in sides))
    if value.isnan():
        note = f"wrong documents cost less than {LEAST_LOSS}"
        return Recovery(math.nan, math.nan, math.nan, note)
    found = _ratio(*_drawn_means(sides, subjects, draws, rng))
    lost, note = int(found.isnan().sum()), ""
    if lost:
        note = f"wrong documents cost less than {LEAST_LOSS} in {lost} of {draws} draws"
    if lost / draws > (1 - level) / 4:
        return Recovery(float(value), math.nan, math.nan, note)
    low, _ = _middle(found.nan_to_num(nan=-math.inf), level)
    _, high = _middle(found.nan_to_num(nan=math.inf), level)
    return Recovery(float(value), low, high, note)


@dataclass(frozen=True)
class Rank:
    """A place among methods, 1 for the best, and its interval; ties share the mean of theirs."""

    value: float
    low: float
    high: float


def recovery_ranks(
    answers: Sequence[Tensor],
    subjects: Sequence[str],
    *,
    rng: torch.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> list[Rank]:
    """Return the place of each method by the share of right answers, which orders recovery too.

    The draws are those of ``recovery_ratio``, the same for all methods.

    Args:
        answers: Of each method: right or not, or margins ``(models, N)``, of the same models.
        subjects: Whom each of the N questions is about.
        rng: Decides the draws.
        draws: Number of draws.
        level: Coverage.
    """
    sides = [a.double() for a in answers]
    drawn = _drawn_means(sides, subjects, draws, rng)
    value = _places(torch.stack([a.mean() for a in sides])[:, None])[:, 0].tolist()
    spread = [_middle(row, level) for row in _places(drawn)]
    return [Rank(v, *ends) for v, ends in zip(value, spread, strict=True)]


def _places(scores: Tensor) -> Tensor:
    """Return the rank of each of K scores ``(K, draws)`` from the largest."""
    above, equal = (op(scores[None], scores[:, None]).sum(1) for op in (torch.gt, torch.eq))
    return above + (equal + 1) / 2


def _middle(values: Tensor, level: float) -> tuple[float, float]:
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=values.dtype)
    low, high = torch.quantile(values, tails).tolist()
    return low, high


def _drawn_means(
    sides: Sequence[Tensor], subjects: Sequence[str], draws: int, rng: torch.Generator
) -> Tensor:
    """Return the mean of each side ``(sides, draws)`` over drawn models and subjects."""
    names = sorted(set(subjects))
    member = torch.tensor([[s == n for n in names] for s in subjects], dtype=torch.float64)
    # Sums by side, model and subject; questions by subject.
    right, sizes = torch.stack(list(sides)) @ member, member.sum(0)
    models = _counts(right.shape[1], draws, rng)
    groups = _counts(len(names), draws, rng)
    total = models.sum(1) * (groups @ sizes)
    return torch.einsum("dm,kmg,dg->kd", models, right, groups) / total


def _ratio(unlearned: Tensor, corrupted: Tensor, clean: Tensor) -> Tensor:
    loss = clean - corrupted
    return torch.where(loss >= LEAST_LOSS, (unlearned - corrupted) / loss, math.nan)


def _counts(size: int, draws: int, rng: torch.Generator) -> Tensor:
    """Return how often each of ``size`` things is drawn ``(draws, size)``."""
    picked = torch.randint(size, (draws, size), generator=rng)
    return torch.nn.functional.one_hot(picked, size).sum(1).double()
