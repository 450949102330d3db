"""Regression on one or several real targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isfinite, prod
from statistics import NormalDist
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unlearnkit.core.data import Batch, Data
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.inference import forward
from unlearnkit.core.task import register_task


@register_task
class Regression:
    """Outputs ``(B, K)``, targets ``(B, K)``; a column of shape ``(B,)`` is read as ``(B, 1)``.

    Sequences ``(B, T)`` and ``(B, T, C)`` are read as ``K = T * C`` targets. The loss is the
    squared, absolute or pinball error, mean over the targets. With Q quantiles a model answers
    ``(B, K, Q)``, which is read as ``(B, K * Q)``.
    """

    name = "regression"

    def __init__(
        self,
        width: int = 1,
        *,
        loss: Literal["l2", "l1", "pinball"] = "l2",
        quantiles: tuple[float, ...] = (0.1, 0.5, 0.9),
        centre: tuple[float, ...] = (0.0,),
        scale: tuple[float, ...] = (1.0,),
    ) -> None:
        """Take the targets' number and statistics, and the loss.

        Args:
            width: Targets a row, K.
            loss: Squared, absolute or pinball error.
            quantiles: Which ones a model answers, each in (0, 1); for the pinball loss alone.
            centre: Mean of each target, or one for all.
            scale: Deviation of each target, or one for all.

        Raises:
            InputError: If a quantile is not between 0 and 1, or the loss does not exist.
        """
        if loss not in {"l2", "l1", "pinball"}:
            raise InputError(f"regression: loss: must be l2, l1 or pinball, got {loss!r}")
        if not quantiles or not all(isfinite(q) and 0 < q < 1 for q in quantiles):
            raise InputError(f"regression: quantiles: name some between 0 and 1, got {quantiles}")
        self.width = width
        self.quantiles = tuple(quantiles) if loss == "pinball" else ()
        self.loss = loss
        self.centre = centre * width if len(centre) == 1 else centre
        self.scale = scale * width if len(scale) == 1 else scale

    @property
    def never_seen(self) -> float:
        """Return the loss of always giving the best constant answer, for Gaussian targets."""
        s = torch.tensor(self.scale, dtype=torch.float64)
        if self.loss == "l2":
            return float(s.square().mean())
        normal = NormalDist()
        if self.loss == "l1":
            return float(2.0 * normal.pdf(0.0) * s.mean())
        lost = [normal.pdf(normal.inv_cdf(q)) for q in self.quantiles]
        return float(s.mean()) * sum(lost) / len(lost)

    @classmethod
    def infer(
        cls,
        data: Data,
        *,
        loss: Literal["l2", "l1", "pinball"] = "l2",
        quantiles: tuple[float, ...] = (0.1, 0.5, 0.9),
    ) -> Regression:
        """Take width, mean and standard deviation from the targets; loss and quantiles as given."""
        y = cls._columns(data.y).double()
        return cls(
            y.shape[1],
            loss=loss,
            quantiles=quantiles,
            centre=tuple(y.mean(0).tolist()),
            scale=tuple(y.std(0, correction=0).tolist()),
        )

    def spec(self) -> Mapping[str, Any]:
        """Return width, loss, and the targets' mean and deviation; quantiles where there are."""
        more = {"quantiles": list(self.quantiles)} if self.quantiles else {}
        return {
            "name": self.name,
            "width": self.width,
            "loss": self.loss,
            "centre": list(self.centre),
            "scale": list(self.scale),
            **more,
        }

    def targets(self, y: Tensor) -> Tensor:
        """Return targets ``(N, K)`` as float32; float64 stays float64."""
        y = self._columns(y)
        if y.shape[1] != self.width:
            raise InputError(f"y: {self.width} targets a row are needed, got {y.shape[1]}")
        return y if y.is_floating_point() else y.float()

    @staticmethod
    def _columns(y: Tensor) -> Tensor:
        if y.ndim not in {1, 2, 3}:
            raise InputError(
                f"y: regression targets have shape (N,), (N, K) or (N, T, C), got {tuple(y.shape)}"
            )
        return y.reshape(len(y), prod(y.shape[1:]))

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return predictions ``(B, K)``, or the Q quantiles of each target in turn ``(B, K * Q)``.

        Raises:
            UnsupportedError: If the model does not return K (times Q) numbers a row.
        """
        out = forward(model, batch)
        wanted = self.width * (len(self.quantiles) or 1)
        if prod(out.shape[1:]) != wanted:
            raise UnsupportedError(
                f"the model returns shape {tuple(out.shape)}; predictions (B, {wanted}) are needed;"
                " give a model with as many outputs, or the targets that it predicts"
            )
        return out.reshape(len(batch), wanted)

    def losses(self, out: Tensor, batch: Batch) -> Tensor:
        """Return the squared, absolute or pinball error, in (squared) target units."""
        y = batch.y.to(out.dtype)
        return self.divergence(out, y.repeat_interleave(len(self.quantiles) or 1, 1))

    def divergence(self, out: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
        """Return the loss with outputs as targets, quantile by quantile; no temperature applies."""
        gap = _same_shape(target, out) - out
        if self.loss == "l2":
            return gap.square().mean(1)
        if self.loss == "l1":
            return gap.abs().mean(1)
        q = gap.new_tensor(self.quantiles).repeat(self.width)
        return torch.maximum(q * gap, (q - 1) * gap).mean(1)

    def margin(self, out: Tensor, batch: Batch) -> Tensor:
        """Return minus the absolute error, mean over targets, in target units."""
        return -self.errors(out, batch)

    def wrong(self, batch: Batch, rng: torch.Generator, *, avoid: Tensor | None = None) -> Batch:
        """Draw targets from a Gaussian with the training targets' mean and deviation."""
        z = torch.randn(batch.y.shape, generator=rng).to(batch.y)
        centre, scale = batch.y.new_tensor(self.centre), batch.y.new_tensor(self.scale)
        return replace(batch, y=centre + z * scale)

    def errors(self, out: Tensor, batch: Batch) -> Tensor:
        """Return the absolute error of the predictions, mean over targets, in target units."""
        out = self.predictions(out)
        return (out - _same_shape(batch.y.to(out.dtype), out)).abs().mean(1)

    def log_probs(self, out: Tensor) -> Tensor | None:
        """Return None: real outputs are not outcomes."""
        return None

    def predictions(self, out: Tensor) -> Tensor:
        """Return the predictions ``(B, K)``; of quantiles, those nearest to the median."""
        if not self.quantiles:
            return out
        middle = min(range(len(self.quantiles)), key=lambda i: abs(self.quantiles[i] - 0.5))
        return out[:, middle :: len(self.quantiles)]


def _same_shape(target: Tensor, out: Tensor) -> Tensor:
    """Refuse what would broadcast: ``(B,)`` against ``(B, 1)`` compares every pair of rows."""
    if target.shape != out.shape:
        raise InputError(
            f"regression: outputs {tuple(out.shape)} and targets {tuple(target.shape)} differ in"
            " shape; give both as (B, K)"
        )
    return target
