"""Memorisation estimate: gain in accuracy on a row from training on it.

Feldman and Zhang, NeurIPS 2020, arXiv:2008.03703: ``mem(i) = Pr[h(x_i) = y_i given i in S] -
Pr[h(x_i) = y_i given i not in S]`` over random subsets S of the training set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit.cache import Cache, CachedTensors
from unlearnkit.core.case import Case
from unlearnkit.core.data import View
from unlearnkit.core.errors import InputError
from unlearnkit.core.inference import predict
from unlearnkit.core.runtime import Runtime
from unlearnkit.difficulty.training_dynamics import start, trainable
from unlearnkit.train.ensemble import EnsembleMember, fit_together

LOCKED = 256
"""Entries of the cache that one process makes at a time; each holds a file open."""


@dataclass(frozen=True)
class MemorizationEstimate:
    """How often models that were trained on a row, and others, got it right."""

    inside: Tensor
    """Share of the models trained on the row that get it right ``(N,)``; nan where there is none.
    """

    outside: Tensor
    """The same of those that were not trained on it ``(N,)``."""

    trained: Tensor
    """How many models were trained on the row ``(N,)``."""

    others: Tensor
    """How many were not ``(N,)``."""

    @property
    def memorised(self) -> Tensor:
        """Return the estimate of each row ``(N,)``, from -1 to 1; nan where a side is empty."""
        return self.inside - self.outside

    @property
    def error(self) -> Tensor:
        """Return its standard error ``(N,)``: ``sqrt(p q / m)`` of both sides, added in squares."""
        sides = ((self.inside, self.trained), (self.outside, self.others))
        return torch.stack([p * (1 - p) / n for p, n in sides]).sum(0).sqrt()


def leave_out(
    case: Case,
    *,
    models: int = 64,
    share: float = 0.7,
    seed: int = 0,
    rt: Runtime | None = None,
    cache: Cache | None = None,
) -> MemorizationEstimate:
    """Train models on random subsets of the training set and read all of them on all rows.

    Subsets are of one size, so that small models train together. Of each model only one bit a row
    is kept, as soon as it is trained: an interrupted call goes on where it stopped, and a longer
    one uses what a shorter one found. Published tables use 400 models.

    Args:
        case: Rows of a classification, model factory, recipe.
        models: How many; with 64, a standard error of up to 0.13 a row.
        share: Size of a subset, of the training set.
        seed: Of the first model; the others follow.
        rt: Where to train; its own seed plays no part.
        cache: Where bits are kept.

    Returns:
        The two rates of each row.

    Raises:
        InputError: If there are fewer than two models, or subsets leave no row out or take none.
    """
    view, place = trainable(case), rt or Runtime()
    size = round(share * len(view))
    if models < 2 or not 0 < size < len(view):
        raise InputError(
            f"leave_out: needs two models or more and a share that takes some rows and leaves some,"
            f" got {models} models and {size} of {len(view)} rows"
        )
    cache = cache or Cache()
    hits = torch.zeros(2, len(view), dtype=torch.float64)
    counts = torch.zeros(2, len(view), dtype=torch.float64)
    for first in range(seed, seed + models, LOCKED):
        seeds = range(first, min(first + LOCKED, seed + models))
        for number, right in zip(seeds, _bits(case, view, seeds, size, place, cache), strict=True):
            out = torch.ones(len(view), dtype=torch.long)
            out[_subset(len(view), size, number)] = 0
            counts.scatter_add_(0, out[None], torch.ones(1, len(view), dtype=torch.float64))
            hits.scatter_add_(0, out[None], right[None].double())
    rates = hits / counts
    return MemorizationEstimate(rates[0], rates[1], counts[0].long(), counts[1].long())


def _bits(
    case: Case, view: View, seeds: range, size: int, rt: Runtime, cache: Cache
) -> Iterator[Tensor]:
    """Yield of each model whether it gets each row right ``(N,)``; train those that are missing."""
    recipe = case.recipe
    assert recipe is not None
    parts = [view.pick(_subset(len(view), size, s)) for s in seeds]
    data = view.data.key()  # read once for all models
    starts = [
        start(case, part, rt.fork(s), "leave out", data)
        for part, s in zip(parts, seeds, strict=True)
    ]
    read = view.key(data)
    keys = [{**key, "read": read} for _, key in starts]

    def make(lacking: list[int]) -> Iterator[tuple[int, dict[str, Tensor], dict[str, Any]]]:
        rt.note(
            f"difficulty: {len(lacking)} models are trained first, once, each on {size:,} of"
            f" {len(view):,} rows for {recipe.epochs} epochs: as much as"
            f" {len(lacking) * size / len(view):.3g} originals"
        )
        members = [
            EnsembleMember(starts[i][0], parts[i], rt.fork(seeds[i]), "leave out", place=seeds[i])
            for i in lacking
        ]
        done = 0
        for few in fit_together(members, case.task, recipe):
            for m in few:
                yield m.rt.seed - seeds[0], {"right": _right(m.model, view, case, m.rt)}, {}
            done += len(few)
            rt.reporter.progress("models on subsets", done, len(members))

    cache.fill(keys, make)
    for key in keys:
        yield _kept(cache, key).tensors["right"]


def _kept(cache: Cache, key: Mapping[str, Any]) -> CachedTensors:
    def gone() -> tuple[dict[str, Tensor], dict[str, Any]]:
        raise InputError("cache: a model's answers were removed while they were used; run again")

    return cache.get(key, gone)


def _subset(count: int, size: int, seed: int) -> Tensor:
    rng = Runtime(seed=seed).rng("leave out/subset")
    return torch.randperm(count, generator=rng)[:size].sort().values


def _right(model: nn.Module, view: View, case: Case, rt: Runtime) -> Tensor:
    out = predict(model, view, case.task, rt)
    return out.argmax(1) == view.y
