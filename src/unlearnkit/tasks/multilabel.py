"""Multi-label classification: several yes-or-no labels a row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlearnkit.core.data import Batch, Data
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.inference import forward
from unlearnkit.core.task import register_task


@register_task
class MultiLabel:
    """Logits ``(B, L)``, targets ``(B, L)`` of zeros and ones. Per-row numbers are label means."""

    name = "multilabel"

    def __init__(self, labels: int) -> None:
        if labels < 1:
            raise InputError(f"multilabel: at least one label is needed, got {labels}")
        self.labels = labels

    @property
    def never_seen(self) -> float:
        """Return ``log 2``: the loss of a coin for every label, in nats."""
        return math.log(2.0)

    @classmethod
    def infer(cls, data: Data) -> MultiLabel:
        """Take one label a target column."""
        if data.y.ndim != 2:
            raise InputError(
                f"y: multilabel targets have shape (N, L), got {tuple(data.y.shape)}; masks and"
                " token targets are not supported: make each answer a row of its own"
            )
        return cls(data.y.shape[1])

    def spec(self) -> Mapping[str, Any]:
        """Return the number of labels."""
        return {"name": self.name, "labels": self.labels}

    def targets(self, y: Tensor) -> Tensor:
        """Return targets ``(N, L)`` as float32; refuse what is neither 0 nor 1."""
        if y.ndim != 2 or y.shape[1] != self.labels:
            raise InputError(
                f"y: multilabel targets have shape (N, {self.labels}), got {tuple(y.shape)}"
            )
        if not bool(((y == 0) | (y == 1)).all()):
            raise InputError("y: multilabel targets must be 0 or 1")
        return y.float()

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return logits ``(B, L)``."""
        out = forward(model, batch)
        if out.shape != (len(batch), self.labels):
            raise UnsupportedError(
                f"the model returns shape {tuple(out.shape)}; logits (B, {self.labels}) are needed;"
                " give a model with as many outputs, or the labels that it predicts"
            )
        return out

    def losses(self, out: Tensor, batch: Batch) -> Tensor:
        """Return the binary cross-entropy, in nats, mean over labels."""
        y = batch.y.to(out.dtype)
        return functional.binary_cross_entropy_with_logits(out, y, reduction="none").mean(1)

    def divergence(self, out: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
        """Return KL(target || out) of each label's Bernoulli, in nats, mean over labels."""
        t, q = target / temperature, out / temperature
        p = torch.sigmoid(t)
        yes = functional.logsigmoid(t) - functional.logsigmoid(q)
        no = functional.logsigmoid(-t) - functional.logsigmoid(-q)
        return (p * yes + (1 - p) * no).mean(1)

    def margin(self, out: Tensor, batch: Batch) -> Tensor:
        """Return the log-odds of the right answer, mean over labels."""
        return (out * (2 * batch.y.to(out.dtype) - 1)).mean(1)

    def wrong(self, batch: Batch, rng: torch.Generator, *, avoid: Tensor | None = None) -> Batch:
        """Flip each label with probability one half, and at least one label a row."""
        flip = torch.rand(batch.y.shape, generator=rng) < 0.5
        one = torch.randint(0, self.labels, (len(batch), 1), generator=rng)
        flip = torch.where(flip.any(1)[:, None], flip, torch.zeros_like(flip).scatter(1, one, True))
        return replace(batch, y=torch.where(flip.to(batch.y.device), 1 - batch.y, batch.y))

    def errors(self, out: Tensor, batch: Batch) -> Tensor:
        """Return the share of labels that are wrong (Hamming loss)."""
        return ((out > 0) != (batch.y > 0.5)).to(out.dtype).mean(1)

    def log_probs(self, out: Tensor) -> Tensor | None:
        """Return None: labels do not exclude each other."""
        return None

    def predictions(self, out: Tensor) -> Tensor | None:
        """Return None: labels are no numbers."""
        return None
