"""Held-out leave-out models: what a predicted shift is checked against."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearnkit.attribution.attributed_model import AttributedModel
from unlearnkit.attribution.shift_quality import LEAST_MODELS, ShiftQuality, shift_quality
from unlearnkit.attribution.trained_outputs import PlannedTraining, TrainedOutputs
from unlearnkit.cache import Cache
from unlearnkit.core.data import View
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.output_matching import centre_outputs

FIRST_HELD_OUT = 900_000
"""Seed of the first held-out model: none is among an audit's models, or in an attribution."""


@dataclass(frozen=True)
class HeldOutShifts:
    """Shifts of models that were trained without random rows, and what is predicted for them."""

    predictions: Tensor
    """``(M, N, K)``."""

    shifts: Tensor
    """Each model's outputs minus the mean outputs of models trained on all rows."""

    work: int
    quality: ShiftQuality


def held_out_quality(
    subject: AttributedModel,
    predict: Callable[[Tensor], Tensor],
    read: View,
    models: int,
    rt: Runtime,
    cache: Cache,
) -> HeldOutShifts:
    """Train models without random rows, and compare their outputs with predicted ones.

    Args:
        subject: How models are trained. As many rows are left out as its request names.
        predict: From which rows are left out ``(n,)`` to the predicted shift ``(N, K)``.
        read: The N rows.
        models: M; as many are trained on all rows, from the same seeds.
        rt: Where to train.
        cache: Where outputs of the models are kept.

    Returns:
        Both shifts with their quality: NaN with the reason where there are fewer than two models.
    """
    if models < LEAST_MODELS:
        why = f"{models} held-out models, at least {LEAST_MODELS} are needed"
        none = torch.zeros(0)
        return HeldOutShifts(none, none, 0, ShiftQuality(math.nan, math.nan, models, why))
    seeds = range(FIRST_HELD_OUT, FIRST_HELD_OUT + models)
    gone = [random_forget(subject.forget, s) for s in seeds]
    every = torch.arange(len(subject.forget))
    without = [PlannedTraining(s, (~g).nonzero()[:, 0]) for s, g in zip(seeds, gone, strict=True)]
    whole = [PlannedTraining(s, every) for s in seeds]
    plan, outs, work = (*without, *whole), [], 0
    for block, spent in TrainedOutputs(subject, plan, read, rt, cache).blocks():
        outs.append(centre_outputs(block, subject.task))
        work += spent
    all_outs = torch.cat(outs)
    observed = all_outs[:models] - all_outs[models:].mean(0)
    predicted = torch.stack([predict(g) for g in gone])
    return HeldOutShifts(predicted, observed, work, shift_quality(predicted, observed))


def random_forget(forget: Tensor, seed: int) -> Tensor:
    """Return as many random rows as a request names: boolean ``(n,)``."""
    rng = Runtime(seed=seed).rng("attribution/held out")
    chosen = torch.zeros_like(forget)
    chosen[torch.randperm(len(forget), generator=rng)[: int(forget.sum())]] = True
    return chosen
