"""ROC curves and AUC: of scores, of rows, of streams."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import NormalDist

import torch
from torch import Tensor

ENOUGH = 10
"""Others that should pass a threshold if its false-positive rate is to be trusted."""

DROPPED = 12
"""Bits of a float32 that a tally ignores; numbers that differ by 1 in 2048 are still distinct."""

BINS = 1 << (32 - DROPPED)


@dataclass(frozen=True)
class RocCurve:
    """Points of a ROC curve, from (0, 0) to (1, 1), one for each distinct score."""

    fpr: Tensor
    """Share of the others at or above the threshold ``(P,)``."""

    tpr: Tensor
    """Share of the members at or above the threshold ``(P,)``."""

    threshold: Tensor
    """Falling thresholds ``(P,)``; the first is infinite."""


def roc_curve(members: Tensor, others: Tensor) -> RocCurve:
    """Return the ROC curve of scores ``(m,)``, ``(n,)`` that are larger for members, float64.

    Rows with equal scores enter together, so that their order does not matter.
    """
    ins, outs = members.double(), others.double()
    ladder = torch.cat([ins, outs]).sort(descending=True).values
    levels = torch.unique_consecutive(ladder)
    return RocCurve(
        fpr=_first_zero(_at_or_above(outs, levels)),
        tpr=_first_zero(_at_or_above(ins, levels)),
        threshold=torch.cat([levels.new_full((1,), math.inf), levels]),
    )


def auc(members: Tensor, others: Tensor) -> float:
    """Return the chance that a member ``(m,)`` scores above another row ``(n,)``; ties count half.

    In O(n log n), exact: wins are whole or half numbers. Infinite scores are allowed; nan if there
    are no members, no others, or a nan among them.
    """
    if not _comparable(members, others):
        return math.nan
    return float(placement(members, others).sum()) / (len(members) * len(others))


def placement(scores: Tensor, others: Tensor) -> Tensor:
    """Return how many of ``others (..., n)`` each score ``(..., m)`` beats; ties count half."""
    ladder, mine = others.double().contiguous().sort(-1).values, scores.double().contiguous()
    below = torch.searchsorted(ladder, mine, right=False)
    return (below + torch.searchsorted(ladder, mine, right=True)).double() / 2


def delong_variance(members: Tensor, others: Tensor) -> float:
    """Return the variance of the AUC over draws of rows, the model given; nan below two a side.

    ``var(V10) / m + var(V01) / n``, where V10 is each member's share of others below it and V01
    each other row's share of members above it (DeLong et al., Biometrics 44, 1988; ranks after Sun
    and Xu, IEEE Signal Processing Letters 21, 2014).
    """
    if min(len(members), len(others)) < 2 or not _comparable(members, others):
        return math.nan
    above = placement(members, others) / len(others)
    below = 1 - placement(others, members) / len(members)
    return float(above.var() / len(members) + below.var() / len(others))


def auc_difference(
    members: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor]
) -> tuple[float, float]:
    """Return the AUC of a first score minus that of a second on the same rows, and its error.

    ``var(V10 - W10) / m + var(V01 - W01) / n`` with V of the first and W of the second score: the
    paired form of DeLong et al., Biometrics 44, 1988. Scores are ``(m,)`` and ``(n,)`` each; nan
    for fewer than two rows on a side, or a nan among the scores.
    """
    first, second = zip(members, others, strict=True)
    least = min(len(members[0]), len(others[0]))
    if least < 2 or not (_comparable(*first) and _comparable(*second)):
        return math.nan, math.nan
    m, n = len(members[0]), len(others[0])
    above = (placement(*first) - placement(*second)) / n
    below = (placement(*second[::-1]) - placement(*first[::-1])) / m
    return float(above.mean()), math.sqrt(float(above.var() / m + below.var() / n))


def auc_interval(
    members: Tensor, others: Tensor, level: float = 0.95
) -> tuple[float, float] | None:
    """Return an interval of the AUC over draws of rows, the model given; None without variance.

    DeLong's variance on the logit scale: ``logit(a) ± z se / (a (1 - a))``. Where that variance is
    0 (the scores are all equal, or separate the groups), k = min(m, n) disjoint pairs of a member
    and another row all came out alike, so that their outcome has a chance of at least ``c = ((1 -
    level) / 2) ** (1 / k)``, which bounds the AUC.
    """
    pairs = min(len(members), len(others))
    return area_interval(auc(members, others), delong_variance(members, others), pairs, level)


def area_interval(
    area: float, variance: float, pairs: int, level: float = 0.95
) -> tuple[float, float] | None:
    """Return an interval of an AUC of known variance, as ``auc_interval``, from disjoint pairs."""
    tail = (1 - level) / 2
    if area in {0.0, 1.0} or variance == 0:
        sure = tail ** (1 / pairs)
        if area == 1.0:
            return sure, 1.0
        if area == 0.0:
            return 0.0, 1.0 - sure
        return sure / 2, 1.0 - sure / 2
    if math.isnan(area) or math.isnan(variance):
        return None
    centre = math.log(area / (1 - area))
    reach = NormalDist().inv_cdf(1 - tail) * math.sqrt(variance) / (area * (1 - area))
    return _sigmoid(centre - reach), _sigmoid(centre + reach)


def caught_at_fpr(members: Tensor, others: Tensor, fpr: float) -> Tensor:
    """Return which members a threshold catches that at most a share ``fpr`` of the others passes.

    The lowest such threshold: the largest true-positive rate with a false-positive rate of at most
    ``fpr``. Scores must exceed the ``floor(fpr * n) + 1``-th largest score of the others.
    """
    # The product of a share and a count that is whole must not fall short of it by rounding.
    may_pass = math.floor(fpr * len(others) * (1 + 1e-12))
    edge = others.double().sort(descending=True).values[may_pass]
    return members.double() > edge


def tpr_at_fpr(members: Tensor, others: Tensor, fpr: float) -> float:
    """Return the largest share of members caught while at most a share ``fpr`` of others is."""
    return float(caught_at_fpr(members, others, fpr).double().mean())


def auc_rows(
    members: Tensor,
    others: Tensor,
    members_used: Tensor | None = None,
    others_used: Tensor | None = None,
) -> Tensor:
    """Return the AUC of each row's two groups ``(R,)``, float64; nan where a group is empty.

    Scores are ``(R, m)`` and ``(R, n)``; boolean masks of these shapes say which count.
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

        Nan with fewer than ``10 / fpr`` others, or no member.
        """
        count = int(self.others.sum())
        if count < min_negatives(fpr) or not int(self.members.sum()):
            return math.nan
        may_pass = math.floor(fpr * count * (1 + 1e-12))
        allowed = self.others.flip(0).cumsum(0) <= may_pass
        caught = self.members.flip(0).cumsum(0)[allowed]
        return float(caught.max() / self.members.sum()) if len(caught) else 0.0


def min_negatives(fpr: float) -> int:
    """Return how many others a threshold of a false-positive rate takes: ten that pass it."""
    return math.ceil(ENOUGH / fpr * (1 - 1e-12))


def _bin(scores: Tensor) -> Tensor:
    kept = scores.flatten()
    kept = kept[~kept.isnan()].float() + 0.0  # minus zero becomes zero
    bits = kept.view(torch.int32)
    rising = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (rising >> DROPPED).long() + BINS // 2


def _comparable(members: Tensor, others: Tensor) -> bool:
    if not len(members) or not len(others):
        return False
    return not bool(members.isnan().any() or others.isnan().any())


def _at_or_above(scores: Tensor, levels: Tensor) -> Tensor:
    ladder = scores.sort().values
    return (len(scores) - torch.searchsorted(ladder, levels, right=False)).double() / len(scores)


def _first_zero(shares: Tensor) -> Tensor:
    return torch.cat([shares.new_zeros(1), shares])


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
