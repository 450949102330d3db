"""Single-label classification."""

from __future__ import annotations

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
class Classification:
    """Logits ``(B, C)``, targets ``(B,)`` in ``0..C-1``.

    A head with one logit, ``(B, 1)`` or ``(B,)``, is two classes: it is read as logits ``[0, z]``,
    for which cross-entropy, margins and probabilities are those of the sigmoid, exactly.
    """

    name = "classification"

    def __init__(self, classes: int) -> None:
        if classes < 2:
            raise InputError(f"classification: at least two classes are needed, got {classes}")
        self.classes = classes

    @property
    def never_seen(self) -> float:
        """Return ``log C``: the cross-entropy of a uniform guess, in nats."""
        return float(torch.log(torch.tensor(float(self.classes), dtype=torch.float64)))

    @classmethod
    def infer(cls, data: Data) -> Classification:
        """Take as many classes as the largest target says, and no fewer than two."""
        y = cls._integers(data.y)
        if int(y.min()) < 0:
            raise InputError(
                f"y: classes must be numbered from 0, got {int(y.min())}; renumber the targets"
            )
        return cls(max(int(y.max()) + 1, 2))

    def spec(self) -> Mapping[str, Any]:
        """Return the number of classes."""
        return {"name": self.name, "classes": self.classes}

    def targets(self, y: Tensor) -> Tensor:
        """Return classes ``(N,)`` as int64; refuse what is not a class."""
        y = self._integers(y)
        if not len(y):
            return y
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= self.classes:
            bad = low if low < 0 else high
            raise InputError(f"y: class {bad} is not among 0 to {self.classes - 1}")
        return y

    @staticmethod
    def _integers(y: Tensor) -> Tensor:
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        if y.ndim != 1:
            raise InputError(
                f"y: classification needs one class a row, got shape {tuple(y.shape)}; {_remedy(y)}"
            )
        if y.is_floating_point() and not torch.equal(y, y.round()):
            raise InputError("y: classes must be whole numbers; for real targets use regression")
        return y.long()

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return logits ``(B, C)``."""
        out = forward(model, batch)
        if out.ndim == 1 or (out.ndim == 2 and out.shape[1] == 1):
            z = out.reshape(len(batch))
            if self.classes != 2:
                raise UnsupportedError(
                    f"the model has one logit and the targets have {self.classes} classes; give a"
                    f" model with {self.classes} outputs"
                )
            return torch.stack([torch.zeros_like(z), z], 1)
        if out.ndim != 2 or out.shape[1] < self.classes:
            raise UnsupportedError(
                f"the model returns shape {tuple(out.shape)}; logits (B, {self.classes}) are"
                f" needed, because classes go from 0 to {self.classes - 1}: number the targets from"
                f" 0, or give a model with {self.classes} outputs"
            )
        return out

    def losses(self, out: Tensor, batch: Batch) -> Tensor:
        """Return the cross-entropy, in nats."""
        return functional.cross_entropy(out, batch.y, reduction="none")

    def divergence(self, out: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
        """Return KL(target || out) of the softened distributions, in nats."""
        p = functional.log_softmax(target / temperature, -1)
        q = functional.log_softmax(out / temperature, -1)
        return (p.exp() * (p - q)).sum(-1)

    def margin(self, out: Tensor, batch: Batch) -> Tensor:
        """Return ``z_y - logsumexp of the other logits``: the log-odds of the row's class."""
        own = out.gather(1, batch.y[:, None])[:, 0]
        others = out.scatter(1, batch.y[:, None], float("-inf"))
        return own - others.logsumexp(1)

    def wrong(self, batch: Batch, rng: torch.Generator, *, avoid: Tensor | None = None) -> Batch:
        """Draw each target uniformly from the classes that it is not, nor any of ``avoid``."""
        weight = torch.ones(len(batch), self.classes)
        weight.scatter_(1, batch.y.cpu()[:, None], 0.0)
        if avoid is not None and len(avoid):
            weight[:, avoid.cpu()] = 0.0
            stuck = weight.sum(1) == 0
            weight[stuck] = 1.0
            weight[stuck] = weight[stuck].scatter(1, batch.y.cpu()[stuck][:, None], 0.0)
        drawn = torch.multinomial(weight, 1, generator=rng)[:, 0]
        return replace(batch, y=drawn.to(batch.y.device))

    def errors(self, out: Tensor, batch: Batch) -> Tensor:
        """Return 1 where the top class is wrong, else 0."""
        return (out.argmax(-1) != batch.y).to(out.dtype)

    def log_probs(self, out: Tensor) -> Tensor:
        """Return log-probabilities of the classes ``(B, C)``, in nats."""
        return functional.log_softmax(out, -1)

    def predictions(self, out: Tensor) -> Tensor | None:
        """Return None: classes are no numbers."""
        return None


def _remedy(y: Tensor) -> str:
    """Return what to do with targets of several numbers a row."""
    flat = y.reshape(len(y), -1) if len(y) else y
    if y.ndim == 2 and bool((flat >= 0).all()) and bool((flat.sum(1) == 1).all()):
        kind = "one-hot targets" if bool(((flat == 0) | (flat == 1)).all()) else "soft targets"
        return f"these are {kind}: give y.argmax(1)"
    if y.ndim == 2 and bool(((flat == 0) | (flat == 1)).all()):
        return "for several yes-or-no labels a row use the multilabel task"
    return (
        "several answers a row (masks, tokens) are not supported: make each answer a row of its"
        " own, or use the multilabel or the regression task"
    )
