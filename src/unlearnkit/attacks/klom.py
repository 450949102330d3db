"""KLoM: divergence of each example's margins from those of oracles."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unlearnkit.stats.matrix_checks import blocks, check_margins

Bins = Literal["quantile", "equal", "easydub", "bench"]

LEAST_MODELS = 20
"""Models a side below which the number is mostly its noise floor."""

TENTHS = 10
"""Bins between the smallest and the largest oracle margin, of equal numbers of oracles."""

EQUAL = 20
"""Bins of the published estimator."""

FLOOR = 1e-5
"""Least share of oracles in a bin, as published; the largest divergence is its logarithm."""

CLIP = 100.0
"""Margins beyond this are cut, as published."""


@dataclass(frozen=True)
class Klom:
    """Divergence of unlearned margins from oracles', example by example."""

    rows: Tensor
    """Nats ``(E,)``; 0 where the two samples fill their bins alike."""

    median: float
    percentile_95: float
    """Over the examples: the number that papers report."""

    note: str = ""
    """Why it is undefined, or what limits it."""


def klom(unlearned: Tensor, oracle: Tensor, *, bins: Bins = "quantile") -> Klom:
    """Return ``KL(P_unlearned || P_oracle)`` of each example's margin over models, by histogram.

    From margins of unlearned models ``(N, E)`` and oracles ``(M, E)`` (Georgiev et al., ICLR 2025,
    arXiv:2410.23232, appendix E.1). Compare it with the same number for a second set of as many
    oracles: its floor is not 0, and shrinks with the number of models.

    ``quantile``: ten bins that hold equal numbers of oracles, one below the smallest oracle margin
    and one above the largest, and 1/2 added to every count of both samples (Jeffreys' prior; of
    Krichevsky and Trofimov). The unlearned models cannot move a bin, a single one that diverged
    changes its own share and no more, and mirrored margins get equal numbers. Two samples of 100
    from one normal law read 0.10 (95th percentile 0.18), and a shift of half a deviation is found
    from that in 90 % of comparisons. ``equal``, the published bins: 20 of equal width over the
    range of both samples, here with the last one closed; oracle shares of at least 1e-5 where
    unlearned models are. It reads 0.34 (0.66) and 78 %, and one stray model stretches all its bins,
    which hides the others. It serves to compare with published numbers. ``easydub`` and ``bench``
    repeat the released codes, which drop the largest margin: a model above all oracles counts as
    none, for a divergence of 0 in one and of nan in the other.
    """
    check_margins("klom", unlearned=unlearned, oracle=oracle)
    (n, examples), m = unlearned.shape, len(oracle)
    rows = torch.full((examples,), math.nan, dtype=torch.float64)
    if min(n, m) < LEAST_MODELS:
        why = f"{n} unlearned models and {m} oracles; {LEAST_MODELS} of each are the least"
        return Klom(rows, math.nan, math.nan, why)
    divergence: Callable[[Tensor, Tensor], Tensor] = _by_quantiles
    if bins != "quantile":
        divergence = _Equal(bins)
    for part in blocks(examples, 4 * (n + m)):
        rows[part] = divergence(unlearned[:, part].double(), oracle[:, part].double())
    lost = int(rows.isnan().sum())
    note = f"undefined for {lost} of {examples} examples" if lost else ""
    if not examples:
        return Klom(rows, math.nan, math.nan, "no examples")
    median, high = torch.quantile(rows, rows.new_tensor([0.5, 0.95])).tolist()
    return Klom(rows, median, high, note)


def _by_quantiles(ours: Tensor, theirs: Tensor) -> Tensor:
    edges = _tenths(theirs)

    def shares(values: Tensor) -> Tensor:
        # One bin below the range, ten within, one above; the smallest and largest oracle are
        # within. A value on an edge between two bins counts half in each, as its mirror image does.
        up_to = [(values < edges[0]).sum(0).double()]
        up_to += [((values < e).sum(0) + (values <= e).sum(0)) / 2 for e in edges[1:-1]]
        up_to += [(values <= edges[-1]).sum(0).double(), torch.full_like(up_to[0], len(values))]
        counts = _counts(up_to) + 0.5
        return counts / counts.sum(0)

    p, q = shares(ours), shares(theirs)
    return (p * (p / q).log()).sum(0).clamp(min=0)


def _tenths(values: Tensor) -> Tensor:
    """Return the edges of ten bins of equal numbers ``(11, E)``; mirrored values, mirrored edges.

    In whole tenths of a step, because a rounded rank would differ from that of its mirror image.
    """
    rising, last = values.sort(0).values, len(values) - 1
    edges = []
    for k in range(TENTHS + 1):
        below, part = divmod(k * last, TENTHS)
        low, high = rising[below], rising[min(below + 1, last)]
        if 2 * part < TENTHS:
            edges.append(low + (high - low) * (part / TENTHS))
        elif 2 * part > TENTHS:
            edges.append(high - (high - low) * ((TENTHS - part) / TENTHS))
        else:
            edges.append((low + high) / 2)
    return torch.stack(edges)


@dataclass(frozen=True)
class _Equal:
    """Twenty bins of equal width over both samples, with the conventions of a code."""

    bins: Literal["equal", "easydub", "bench"]

    def __call__(self, ours: Tensor, theirs: Tensor) -> Tensor:
        ours, theirs = ours.clamp(-CLIP, CLIP), theirs.clamp(-CLIP, CLIP)
        low = torch.minimum(ours.amin(0), theirs.amin(0))
        high = torch.maximum(ours.amax(0), theirs.amax(0))
        high = torch.where(low >= high, low + 1, high)
        # As numpy.linspace computes them, so that margins on an edge fall on the same side.
        edges = [k * ((high - low) / EQUAL) + low for k in range(1, EQUAL)]
        p, q = self._shares(ours, edges, high), self._shares(theirs, edges, high)
        q = torch.where(p > 0, q.clamp(min=FLOOR), q)
        if self.bins == "bench":
            p, q = p / p.sum(0), q / q.sum(0)
        terms = torch.where(p > 0, p * (p / q).log(), torch.zeros_like(p))
        # Without any model in its histogram a side is nan in one code and 0 in the other.
        return torch.where(p.isnan().any(0), math.nan, terms.sum(0))

    def _shares(self, values: Tensor, edges: list[Tensor], high: Tensor) -> Tensor:
        up_to = [(values < edge).sum(0) for edge in edges]
        every = torch.full_like(up_to[0], len(values))
        counts = _counts([*up_to, every if self.bins == "equal" else (values < high).sum(0)])
        return counts / counts.sum(0).clamp(min=1)


def _counts(up_to: list[Tensor]) -> Tensor:
    """Return how many values are in each bin ``(bins, E)``, from how many are below its end."""
    ends = torch.stack(up_to).double()
    return ends.diff(dim=0, prepend=torch.zeros_like(ends[:1]))
