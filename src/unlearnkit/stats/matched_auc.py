"""Matched AUC: rows of two kinds compared at like targets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearnkit.core.errors import InputError
from unlearnkit.stats.roc import area_interval

NEIGHBOURS = 5
"""Rows of the other kind, nearest in target, that each row is compared with; ties count in."""

CALIPER = 0.25
"""Largest distance in target of two rows that are compared, in the members' standard deviations."""

AXES = 2
"""Most dimensions in which targets are compared; more are projected on principal axes."""

BINS = 10
"""Most quantile bins of targets."""

ENOUGH = 20
"""Rows of the other kind that each bin needs, or there are fewer bins."""

CELLS = 1 << 20
"""Pairs that are compared at once."""

LEAST_MATCHED = 10
"""Rows on each side that a matched AUC needs; of fewer its interval says nothing."""


@dataclass(frozen=True)
class Matched:
    """An AUC between rows of like targets."""

    auc: float
    """Nan where fewer than ten rows of a side have others of like targets, or a score is nan."""

    interval: tuple[float, float] | None
    """Over draws of rows, the model and the targets given; None where there is no AUC."""

    members: int
    """Members that have others of like targets."""

    others: int
    """Other rows that some member is compared with."""


def matched_auc(
    members: Tensor,
    others: Tensor,
    member_targets: Tensor,
    other_targets: Tensor,
    level: float = 0.95,
) -> Matched:
    """Return the chance that a member scores above another row of like target.

    ``A = sum_ij w_ij h_ij`` where h is 1 if member i scores above row j, one half for a tie, and
    ``w_ij = 1 / (m n_i)`` over the n_i rows that are nearest to i in target and within the
    caliper. Members without such a row do not count. Each pair shares its rows with others, so the
    variance is that of two-way clusters (Cameron et al., Journal of Business and Economic
    Statistics 29, 2011): sums over each member, plus over each other row, minus over each pair;
    with all rows of one target it is nearly that of DeLong. Scores are ``(m,)`` and ``(n,)``,
    targets ``(m, K)`` and ``(n, K)``.
    """
    if len(members) and len(others) and bool(members.isnan().any() | others.isnan().any()):
        return Matched(math.nan, None, 0, 0)
    near = within_caliper(member_targets, other_targets)
    pairs = _matched_pairs(near)
    if pairs.members < LEAST_MATCHED or pairs.others < LEAST_MATCHED:
        return Matched(math.nan, None, pairs.members, pairs.others)
    area, variance = _weighted_share(near, lambda part: _wins(members, others, part))
    area = min(max(area, 0.0), 1.0)
    interval = area_interval(area, variance, pairs.disjoint, level)
    return Matched(area, interval, pairs.members, pairs.others)


@dataclass(frozen=True)
class MatchedDifference:
    """The AUC of one score minus that of another, on the same pairs of rows of like targets."""

    value: float
    """Nan where too few rows have like targets, or a score is not a number."""

    error: float
    """Standard error over draws of rows, both models given; nan with the value."""

    pairs: int
    """Members or other rows that are compared, whichever are fewer."""


def matched_auc_difference(
    members: tuple[Tensor, Tensor],
    others: tuple[Tensor, Tensor],
    member_targets: Tensor,
    other_targets: Tensor,
) -> MatchedDifference:
    """Return the matched AUC of a first score minus that of a second, and its standard error.

    The same pairs and weights as ``matched_auc``, on ``h(first) - h(second)``; scores are ``(m,)``
    and ``(n,)`` each, targets ``(m, K)`` and ``(n, K)``.
    """
    near = within_caliper(member_targets, other_targets)
    pairs = _matched_pairs(near)
    least = min(pairs.members, pairs.others)
    if least < LEAST_MATCHED or any(bool(t.isnan().any()) for t in (*members, *others)):
        return MatchedDifference(math.nan, math.nan, least)

    def wins(part: Tensor) -> Tensor:
        first, second = (_wins(m, o, part) for m, o in zip(members, others, strict=True))
        return first - second

    value, variance = _weighted_share(near, wins)
    return MatchedDifference(value, math.sqrt(variance), least)


@dataclass(frozen=True)
class _Pairs:
    members: int
    others: int
    disjoint: int
    """Pairs that share no row, about."""


def _matched_pairs(near: Tensor) -> _Pairs:
    found = near.sum(1) > 0
    m = int(found.sum())
    if not m:
        return _Pairs(0, 0, 0)
    used = (near[found].double() / (m * near[found].sum(1, keepdim=True))).sum(0)
    disjoint = max(1, min(m, math.floor(1 / float(used.square().sum()) + 1e-9)))
    return _Pairs(m, int((used > 0).sum()), disjoint)


def _wins(members: Tensor, others: Tensor, part: Tensor) -> Tensor:
    mine, theirs = members.double()[part, None], others.double()
    return (mine > theirs).double() + (mine == theirs).double() / 2


def _weighted_share(near: Tensor, wins: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """Return ``sum_ij w_ij h_ij`` over compared rows ``near (m, n)`` and its two-way variance."""
    rows = (near.sum(1) > 0).nonzero()[:, 0]
    m, n = len(rows), near.shape[1]
    parts = torch.split(rows, max(1, CELLS // n))

    def weights(part: Tensor) -> Tensor:
        return near[part].double() / (m * near[part].sum(1, keepdim=True))

    each = torch.cat([(wins(part) * weights(part)).sum(1) for part in parts])
    area = float(each.sum())
    by_other, used = torch.zeros(n).double(), torch.zeros(n).double()
    single = 0.0
    for part in parts:
        over = (wins(part) - area) * weights(part)
        by_other += over.sum(0)
        used += weights(part).sum(0)
        single += float(over.square().sum())
    own = float((each - area / m).square().sum())
    theirs = float(by_other.square().sum())
    least = min(m, int((used > 0).sum()))
    return area, max(own + theirs - single, own, theirs) * least / max(1, least - 1)


def within_caliper(wanted: Tensor, there: Tensor) -> Tensor:
    """Return which rows are compared ``(m, n)``: the five nearest and ties, within the caliper."""
    ours, theirs = project_targets(wanted, there)
    step = max(1, CELLS // max(1, len(theirs)))
    rows = [_near(part, theirs) for part in torch.split(ours, step)]
    return torch.cat(rows) if rows else torch.zeros(0, len(theirs), dtype=torch.bool)


def _near(ours: Tensor, theirs: Tensor) -> Tensor:
    apart = torch.cdist(ours, theirs, compute_mode="donot_use_mm_for_euclid_dist")
    if not apart.shape[1]:
        return apart > 0
    # Distances that are equal but for rounding are ties.
    edge = apart.kthvalue(min(NEIGHBOURS, apart.shape[1]), 1, keepdim=True).values
    return apart <= edge.clamp(max=CALIPER) * (1 + 1e-9)


def project_targets(wanted: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Return targets ``(m, K)`` and ``(n, K)`` in units in which they are compared, float64.

    Each target is divided by its standard deviation among the wanted rows (among all rows where
    that is 0). More than two are projected on the two principal axes of the wanted rows.

    Raises:
        InputError: If the two differ in targets a row, or a target is not finite.
    """
    ours, theirs = (t.double()[:, None].flatten(1) for t in (wanted, there))
    if ours.shape[1] != theirs.shape[1]:
        raise InputError(
            f"matching: rows must have equally many targets, got {ours.shape[1]} and"
            f" {theirs.shape[1]}"
        )
    bad = int((~ours.isfinite()).sum() + (~theirs.isfinite()).sum())
    if bad:
        raise InputError(f"matching: targets must be finite, got {bad} that are not; remove them")
    if not len(ours):
        return ours, theirs
    centre, spread = ours.mean(0), ours.std(0, correction=0)
    every = torch.cat([ours, theirs]).std(0, correction=0)
    spread = torch.where(spread > 0, spread, torch.where(every > 0, every, 1.0))
    ours, theirs = (ours - centre) / spread, (theirs - centre) / spread
    if ours.shape[1] > AXES:
        _, _, v = torch.linalg.svd(ours, full_matrices=False)
        way = v[:AXES].T
        size = (ours @ way[:, :1]).std(correction=0)
        ours, theirs = (t @ way / (size if size > 0 else 1.0) for t in (ours, theirs))
    return ours, theirs


def quantile_bins(wanted: Tensor, there: Tensor) -> tuple[Tensor, Tensor, int]:
    """Return in which bin of targets each row lies ``(m,)``, ``(n,)``, and how many bins there are.

    Bins are quantiles of the wanted rows: as many, up to ten, as leave twenty of the other rows in
    each; several targets are compared along the first principal axis. Other rows beyond the wanted
    ones have bin -1.
    """
    ours, theirs = (t[:, 0] for t in _along(wanted, there))
    low, high = ours.min(), ours.max()
    inside = (theirs >= low) & (theirs <= high)
    for count in range(BINS, 0, -1):
        shares = torch.linspace(0, 1, count + 1, dtype=torch.float64)[1:-1]
        edges = torch.unique_consecutive(torch.quantile(ours, shares)) if count > 1 else ours[:0]
        mine, other = torch.bucketize(ours, edges), torch.bucketize(theirs, edges)
        mix = torch.bincount(other[inside], minlength=len(edges) + 1)
        full = torch.bincount(mine, minlength=len(edges) + 1) > 0
        if count == 1 or int(mix[full].min()) >= ENOUGH:
            break
    return mine, torch.where(inside, other, -1), int(full.sum())


def _along(wanted: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    ours, theirs = project_targets(wanted, there)
    if ours.shape[1] == 1:
        return ours, theirs
    _, _, v = torch.linalg.svd(ours - ours.mean(0), full_matrices=False)
    return ours @ v[:1].T, theirs @ v[:1].T
