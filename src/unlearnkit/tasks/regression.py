"""Regression on one or several real targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unlearnkit.core.case import Case, toy_case
from unlearnkit.core.data import Batch, Data
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.task import forward, register_task


@register_task
class Regression:
    """Outputs ``(B, K)``, targets ``(B, K)``; a column of shape ``(B,)`` is read as ``(B, 1)``.

    The loss is the squared or absolute error, mean over the K targets.
    """

    name = "regression"

    def __init__(
        self,
        width: int = 1,
        *,
        loss: Literal["l2", "l1"] = "l2",
        centre: tuple[float, ...] = (0.0,),
        scale: tuple[float, ...] = (1.0,),
    ) -> None:
        self.width = width
        self.loss = loss
        self.centre = centre * width if len(centre) == 1 else centre
        self.scale = scale * width if len(scale) == 1 else scale

    @property
    def never_seen(self) -> float:
        """Return the loss of always answering with the mean target of the training set."""
        s = torch.tensor(self.scale, dtype=torch.float64)
        normal_abs = (2.0 / torch.pi) ** 0.5
        return float(s.square().mean() if self.loss == "l2" else normal_abs * s.mean())

    @classmethod
    def infer(cls, data: Data) -> Regression:
        """Take width, mean and standard deviation from the targets."""
        y = cls._columns(data.y).double()
        return cls(
            y.shape[1],
            centre=tuple(y.mean(0).tolist()),
            scale=tuple(y.std(0, correction=0).tolist()),
        )

    def spec(self) -> Mapping[str, Any]:
        """Return width, loss, and the targets' mean and deviation."""
        return {
            "name": self.name,
            "width": self.width,
            "loss": self.loss,
            "centre": list(self.centre),
            "scale": list(self.scale),
        }

    def targets(self, y: Tensor) -> Tensor:
        """Return targets ``(N, K)`` as float32; float64 stays float64."""
        y = self._columns(y)
        if y.shape[1] != self.width:
            raise InputError(f"y: {self.width} targets a row are needed, got {y.shape[1]}")
        return y if y.is_floating_point() else y.float()

    @staticmethod
    def _columns(y: Tensor) -> Tensor:
        if y.ndim not in {1, 2}:
            raise InputError(
                f"y: regression targets have shape (N,) or (N, K), got {tuple(y.shape)}"
            )
        return y[:, None] if y.ndim == 1 else y

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return predictions ``(B, K)``."""
        out = forward(model, batch)
        if out.ndim == 1:
            out = out[:, None]
        if out.shape != (len(batch), self.width):
            raise UnsupportedError(
                f"the model returns shape {tuple(out.shape)}; predictions (B, {self.width}) are"
                " needed"
            )
        return out

    def losses(self, out: Tensor, batch: Batch) -> Tensor:
        """Return the squared (or absolute) error, in squared (or plain) target units."""
        return self.divergence(out, batch.y.to(out.dtype))

    def divergence(self, out: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
        """Return the squared (or absolute) distance; the temperature does not apply."""
        assert out.shape == target.shape, (out.shape, target.shape)
        gap = out - target
        return (gap.square() if self.loss == "l2" else gap.abs()).mean(1)

    def margin(self, out: Tensor, batch: Batch) -> Tensor:
        """Return minus the absolute error, mean over targets, in target units."""
        return -self.errors(out, batch)

    def wrong(self, batch: Batch, rng: torch.Generator, *, avoid: Tensor | None = None) -> Batch:
        """Draw targets from a Gaussian with the training targets' mean and deviation."""
        z = torch.randn(batch.y.shape, generator=rng).to(batch.y)
        centre, scale = batch.y.new_tensor(self.centre), batch.y.new_tensor(self.scale)
        return replace(batch, y=centre + z * scale)

    def errors(self, out: Tensor, batch: Batch) -> Tensor:
        """Return the absolute error, mean over targets, in target units."""
        y = batch.y.to(out.dtype)
        assert out.shape == y.shape, (out.shape, y.shape)
        return (out - y).abs().mean(1)

    def log_probs(self, out: Tensor) -> Tensor | None:
        """Return None: real outputs are not outcomes."""
        return None

    def toy(self, seed: int) -> Case:
        """Return a noisy nonlinear function of six inputs, and a small network."""
        rng = torch.Generator().manual_seed(seed)
        w = torch.randn(6, self.width, generator=rng)

        def draw(count: int) -> tuple[Tensor, Tensor]:
            x = torch.randn(count, 6, generator=rng)
            noise = 0.1 * torch.randn(count, self.width, generator=rng)
            return x, torch.tanh(x @ w) + noise

        return toy_case(self, draw, self.width, lr=0.05)
