"""How well scores tell two groups apart: for one list, for each of many rows, for a stream."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unlearnkit.core import statistics

ENOUGH = 10
"""Others that should pass a threshold if its false-positive rate is to be trusted."""

DROPPED = 12
"""Bits of a float32 that a tally ignores; numbers that differ by 1 in 2048 are still told apart."""

BINS = 1 << (32 - DROPPED)


@dataclass(frozen=True)
class AttackPerformance:
    """What a score, larger for members, finds."""

    auc: float
    """Chance that a member scores above another, ties half; 0.5 is nothing, 0 is all again."""

    accuracy: float
    """Balanced accuracy; the threshold is fixed on rows that are not judged with it."""

    tpr_at_1_percent: float
    """Largest share of members caught while at most 1 % of the others are."""

    tpr_at_0_1_percent: float
    """The same at 0.1 %."""

    note: str = ""
    """Why a number is nan."""


def apart(members: Tensor, others: Tensor) -> AttackPerformance:
    """Return what a score finds in one list of members and one of others.

    For the accuracy, every second row of each group sets the threshold for the rest, and the
    reverse.

    Args:
        members: Scores ``(m,)``, larger for members; infinite ones are allowed.
        others: Scores ``(n,)``.

    Returns:
        The findings; nan with a note where there are too few rows: two a group for the accuracy,
        10 / q others for a false-positive rate of q.
    """
    m, n = len(members), len(others)
    if not m or not n:
        return nothing_apart(f"members and others are needed, there are {m} and {n}")
    nan = int(members.isnan().sum() + others.isnan().sum())
    if nan:
        return nothing_apart(f"{nan} scores are not numbers")
    low, high = (_tpr(members, others, q) for q in (0.01, 0.001))
    accuracy, told = math.nan, [w for w in (low[1], high[1]) if w][:1]
    if min(m, n) > 1:
        folds = [(members[i::2], others[i::2]) for i in range(2)]
        accuracy = (
            sum(
                _balanced(*judged, _threshold(*fitted))
                for fitted, judged in zip(folds, folds[::-1], strict=True)
            )
            / 2
        )
    else:
        told.append("an accuracy needs two members and two others")
    return AttackPerformance(
        statistics.auc(members, others), accuracy, low[0], high[0], "; ".join(told)
    )


def apart_each(scores: Tensor, members: Tensor) -> tuple[AttackPerformance, ...]:
    """Return what each target's scores find, over the examples that have one.

    Args:
        scores: ``(T, E)``, larger for members; nan where there is no score.
        members: Which examples each was trained on, boolean ``(T, E)`` or ``(E,)`` for all.

    Returns:
        One finding a target.
    """
    known, truth = ~scores.isnan(), members.expand_as(scores)
    return tuple(apart(s[k & m], s[k & ~m]) for s, k, m in zip(scores, known, truth, strict=True))


def nothing_apart(why: str) -> AttackPerformance:
    """Return findings that are undefined, and why."""
    return AttackPerformance(math.nan, math.nan, math.nan, math.nan, why)


def auc_rows(
    members: Tensor,
    others: Tensor,
    members_used: Tensor | None = None,
    others_used: Tensor | None = None,
) -> Tensor:
    """Return the AUC of each row's two groups.

    Args:
        members: Scores ``(R, m)``.
        others: Scores ``(R, n)``.
        members_used: Which count ``(R, m)``, boolean; all when None.
        others_used: The same for the others ``(R, n)``.

    Returns:
        ``(R,)``, float64; nan where a group is empty.
    """
    if members_used is None:
        members_used = torch.ones_like(members, dtype=torch.bool)
    if others_used is None:
        others_used = torch.ones_like(others, dtype=torch.bool)
    n = others_used.sum(1, keepdim=True)
    ladder = torch.where(others_used, others.double(), math.inf).contiguous().sort(1).values
    mine = members.double().contiguous()
    # Infinite fillers stand at the end: whoever reaches them has beaten all that count.
    wins = sum(torch.searchsorted(ladder, mine, right=r).minimum(n).double() for r in (False, True))
    return torch.where(members_used, wins / 2, 0.0).sum(1) / (members_used.sum(1) * n[:, 0])


@dataclass
class StreamingRoc:
    """Two groups of scores that come in pieces: counted, not kept, so that memory stays flat.

    A score is rounded down to 12 significant bits before it is counted; scores that differ by less
    are ties.
    """

    members: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.int64))
    others: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.int64))

    def add(self, members: Tensor, others: Tensor) -> None:
        """Count scores of both groups, of any shape; those that are nan do not count."""
        self.members += torch.bincount(_bin(members), minlength=BINS)
        self.others += torch.bincount(_bin(others), minlength=BINS)

    @property
    def auc(self) -> float:
        """Return the chance that a member scores above another, ties half; nan without either."""
        ins, outs = self.members.double(), self.others.double()
        total = ins.sum() * outs.sum()
        wins = (ins * (outs.cumsum(0) - outs / 2)).sum()
        return float(wins / total) if total > 0 else math.nan

    def tpr_at_fpr(self, fpr: float) -> float:
        """Return the largest share of members caught while at most a share of others is.

        Args:
            fpr: That share.

        Returns:
            The share of members; nan with fewer than ``10 / fpr`` others, or no member.
        """
        count = int(self.others.sum())
        if count < others_needed(fpr) or not int(self.members.sum()):
            return math.nan
        may_pass = math.floor(fpr * count * (1 + 1e-12))
        allowed = self.others.flip(0).cumsum(0) <= may_pass
        caught = self.members.flip(0).cumsum(0)[allowed]
        return float(caught.max() / self.members.sum()) if len(caught) else 0.0


def others_needed(fpr: float) -> int:
    """Return how many others a threshold of a false-positive rate takes: ten that pass it."""
    return math.ceil(ENOUGH / fpr * (1 - 1e-12))


def _bin(scores: Tensor) -> Tensor:
    kept = scores.flatten()
    kept = kept[~kept.isnan()].float() + 0.0  # minus zero becomes zero
    bits = kept.view(torch.int32)
    rising = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (rising >> DROPPED).long() + BINS // 2


def _tpr(members: Tensor, others: Tensor, fpr: float) -> tuple[float, str]:
    if len(others) >= others_needed(fpr):
        return statistics.tpr_at_fpr(members, others, fpr), ""
    return (
        math.nan,
        f"a rate of {fpr:.1%} needs {others_needed(fpr)} others, there are {len(others)}",
    )


def _threshold(members: Tensor, others: Tensor) -> float:
    """Return the score from which on rows are best called members."""
    curve = statistics.roc_curve(members, others)
    return float(curve.threshold[(curve.tpr - curve.fpr).argmax()])


def _balanced(members: Tensor, others: Tensor, threshold: float) -> float:
    right = (members >= threshold).double().mean() + (others < threshold).double().mean()
    return float(right) / 2
