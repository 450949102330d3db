"""Rows of two kinds compared at like targets: what is easy to tell apart by target says nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearnkit.core.errors import InputError
from unlearnkit.core.statistics import area_interval

NEIGHBOURS = 5
"""Rows of the other kind, nearest in target, that each row is compared with; ties count in."""

CALLIPER = 0.25
"""Largest distance in target of two rows that are compared, in the members' standard deviations."""

AXES = 2
"""Most dimensions in which targets are compared; more are projected on principal axes."""

BINS = 10
"""Most quantile bins of targets."""

ENOUGH = 20
"""Rows of the other kind that each bin needs, or there are fewer bins."""

CELLS = 1 << 20
"""Pairs that are looked at at once."""


@dataclass(frozen=True)
class Matched:
    """An AUC between rows of like targets."""

    auc: float
    """Nan where no two rows have like targets, or a score is not a number."""

    interval: tuple[float, float] | None
    """95 %, over draws of rows, the model and the targets given; None where there is no AUC, or a
    single row on a side."""

    members: int
    """Members that have others of like targets."""

    others: int
    """Other rows that some member is compared with."""


def matched_auc(
    members: Tensor, others: Tensor, member_targets: Tensor, other_targets: Tensor
) -> Matched:
    """Return the chance that a member scores above another row of like target.

    ``A = sum_ij w_ij h_ij`` where h is 1 if member i scores above row j, one half for a tie, and
    ``w_ij = 1 / (m n_i)`` over the n_i rows that are nearest to i in target and within the
    calliper. Members without such a row do not count. Each pair shares its rows with others, so
    the variance is that of two-way clusters (Cameron et al., Journal of Business and Economic
    Statistics 29, 2011): sums over each member, plus over each other row, minus over each pair;
    with all rows of one target it is nearly that of DeLong.

    Args:
        members: Scores ``(m,)``.
        others: Scores ``(n,)``.
        member_targets: ``(m, K)``.
        other_targets: ``(n, K)``.

    Returns:
        The AUC and what it rests on.
    """
    if len(members) and len(others) and bool(members.isnan().any() | others.isnan().any()):
        return Matched(math.nan, None, 0, 0)
    near = like(member_targets, other_targets)
    count = near.sum(1)
    found = count > 0
    m = int(found.sum())
    if not m:
        return Matched(math.nan, None, 0, 0)
    near, ins, outs = near[found], members.double()[found], others.double()
    weight = 1.0 / (m * count[found].double())
    step = max(1, CELLS // len(outs))
    parts = [slice(i, i + step) for i in range(0, m, step)]

    def wins(part: slice) -> Tensor:
        mine = ins[part, None]
        return ((mine > outs).double() + (mine == outs).double() / 2) * near[part]

    each = torch.cat([wins(part).sum(1) * weight[part] for part in parts])
    area = min(max(float(each.sum()), 0.0), 1.0)
    by_other, used = torch.zeros(len(outs)).double(), torch.zeros(len(outs)).double()
    pairs = 0.0
    for part in parts:
        over = (wins(part) - area) * near[part] * weight[part, None]
        by_other += over.sum(0)
        used += (near[part] * weight[part, None]).sum(0)
        pairs += float(over.square().sum())
    own = float((each - area / m).square().sum())
    theirs = float(by_other.square().sum())
    seen = int((used > 0).sum())
    interval = None
    if min(m, seen) > 1:
        least = min(m, seen)
        variance = max(own + theirs - pairs, own, theirs) * least / (least - 1)
        disjoint = max(1, min(m, math.floor(1 / float(used.square().sum()) + 1e-9)))
        interval = area_interval(area, variance, disjoint)
    return Matched(area, interval, m, seen)


def like(wanted: Tensor, there: Tensor) -> Tensor:
    """Return which rows are compared with which ``(m, n)``: the nearest ones of like target.

    Args:
        wanted: Targets of the members ``(m, K)``.
        there: Targets of the other rows ``(n, K)``.

    Returns:
        True where the other row is within the calliper and no further than the fifth nearest.
    """
    ours, theirs = axes(wanted, there)
    step = max(1, CELLS // max(1, len(theirs)))
    rows = [_near(part, theirs) for part in torch.split(ours, step)]
    return torch.cat(rows) if rows else torch.zeros(0, len(theirs), dtype=torch.bool)


def _near(ours: Tensor, theirs: Tensor) -> Tensor:
    apart = torch.cdist(ours, theirs, compute_mode="donot_use_mm_for_euclid_dist")
    if not apart.shape[1]:
        return apart > 0
    # Distances that are equal but for rounding are ties.
    edge = apart.kthvalue(min(NEIGHBOURS, apart.shape[1]), 1, keepdim=True).values
    return apart <= edge.clamp(max=CALLIPER) * (1 + 1e-9)


def axes(wanted: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Return targets in units in which they are compared, ``(m, A)`` and ``(n, A)``.

    Each target is divided by its standard deviation among the wanted rows (among all rows where
    that is 0). More than two are projected on the two principal axes of the wanted rows.

    Args:
        wanted: Targets ``(m, K)``.
        there: Targets ``(n, K)``.

    Returns:
        The coordinates, float64.

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
    """Return in which bin of targets each row lies; bins are quantiles of the wanted rows.

    As many bins, up to ten, as leave twenty of the other rows in each; rows of several targets are
    compared along the first principal axis.

    Args:
        wanted: Targets ``(m, K)``, at least one row.
        there: Targets ``(n, K)``.

    Returns:
        Bin numbers ``(m,)`` and ``(n,)``, -1 for other rows beyond the wanted ones, and how many
        bins there are.
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
    ours, theirs = axes(wanted, there)
    if ours.shape[1] == 1:
        return ours, theirs
    _, _, v = torch.linalg.svd(ours - ours.mean(0), full_matrices=False)
    return ours @ v[:1].T, theirs @ v[:1].T
