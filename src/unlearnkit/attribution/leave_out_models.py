"""Oracle attribution: the shift between models retrained without the rows and with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from unlearnkit.attribution.attributed_model import AttributedModel
from unlearnkit.attribution.predicted_shift import PredictedShift
from unlearnkit.attribution.shift_quality import shift_quality
from unlearnkit.attribution.trained_outputs import PlannedTraining, TrainedOutputs
from unlearnkit.cache import Cache
from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.data import View
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.output_matching import centre_outputs

WITHOUT, WITH = 700_000, 800_000
"""Seeds of the first model of each kind: none is among an audit's originals or oracles."""


@dataclass(frozen=True)
class MeanOutputs:
    """Mean outputs of models of one kind, and of each half of them."""

    mean: Tensor
    """``(N, K)``."""

    halves: Tensor
    """Means of every second model ``(2, N, K)``; ``(1, N, K)`` of a single model."""

    work: int


class OracleAttribution(FrozenModel):
    """Models retrained for this very request: a diagnostic, as dear as what it predicts."""

    kind: Literal["oracle"] = "oracle"
    """From models retrained without the forget set, and as many trained on all rows."""

    models: int = Field(10, ge=1)
    """Models of each kind (paper: 10 oracles)."""

    def predict(
        self, subject: AttributedModel, read: View, rt: Runtime, cache: Cache
    ) -> PredictedShift:
        """Return the shift of mean outputs; its quality is that of one half for the other.

        Args:
            subject: How models are trained; its own weights are not read.
            read: The N rows.
            rt: Where to train.
            cache: Where outputs of the models are kept.

        Returns:
            The shift.
        """
        without = mean_outputs(subject, self.models, read, rt, cache, forget=True)
        whole = mean_outputs(subject, self.models, read, rt, cache, forget=False)
        one, two = without.halves - whole.halves, (without.halves - whole.halves).flip(0)
        return PredictedShift(
            centre_outputs(without.mean - whole.mean, subject.task),
            shift_quality(centre_outputs(one, subject.task), centre_outputs(two, subject.task)),
            f"oracle ({self.models} retrained models, {self.models} originals)",
            rows=subject.train.key(),
            forget=subject.request_digest(),
            read=read.key(),
            work=without.work + whole.work,
        )


def mean_outputs(
    subject: AttributedModel, models: int, read: View, rt: Runtime, cache: Cache, *, forget: bool
) -> MeanOutputs:
    """Return mean outputs of models trained from scratch, on all rows or without the forget set.

    Args:
        subject: How they are trained.
        models: How many.
        read: The N rows.
        rt: Where to train.
        cache: Where outputs are kept.
        forget: Whether the forget set is left out.

    Returns:
        The means.
    """
    stay = ~subject.forget if forget else torch.ones_like(subject.forget)
    first = WITHOUT if forget else WITH
    rows = stay.nonzero()[:, 0]
    plan = tuple(PlannedTraining(first + k, rows) for k in range(models))
    outs, work = [], 0
    for block, spent in TrainedOutputs(subject, plan, read, rt, cache).blocks():
        outs.append(block)
        work += spent
    every = torch.cat(outs)
    halves = torch.stack([every[i::2].mean(0) for i in range(min(2, models))])
    return MeanOutputs(every.mean(0), halves, work)
