"""Awkward models: each breaks an assumption that unlearning code makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit.core.case import Case
from unlearnkit.core.data import TensorData
from unlearnkit.testing.subject import with_inputs


@dataclass(frozen=True)
class AwkwardModel:
    """A kind of model, built for D inputs and K outputs."""

    build: Callable[[int, int], nn.Module]
    inputs: Callable[[Tensor], Any] = lambda x: x
    """From inputs ``(n, D)`` to what the model takes."""

    def case(self, plain: Case) -> Case:
        """Return a toy problem of rows ``(N, D)``, outputs ``(n, K)`` with models of this kind."""
        assert isinstance(plain.train, TensorData)
        assert isinstance(plain.train.x, Tensor)
        assert plain.fresh is not None
        width = plain.train.x.shape[1]
        with torch.no_grad():
            outputs = plain.fresh()(plain.train.x[:2]).shape[1]
        return with_inputs(plain, self.inputs).replace(fresh=lambda: self.build(width, outputs))


class Tied(nn.Module):
    """Two layers share one weight."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, width)
        self.down = nn.Linear(width, width)
        self.down.weight = self.up.weight
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Use the shared weight twice."""
        out: Tensor = self.head(torch.relu(self.down(torch.relu(self.up(x)))))
        return out


class Counting(nn.Module):
    """Buffers that are not real numbers: a counter, a mask, and one that is not saved."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, 12), nn.ReLU(), nn.Linear(12, outputs))
        self.steps: Tensor
        self.mask: Tensor
        self.scale: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("mask", torch.arange(width) >= 0)
        self.register_buffer("scale", torch.ones(width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Use all of them."""
        out: Tensor = self.net(x * self.mask * self.scale)
        return out


class TwoArguments(nn.Module):
    """Takes two inputs by name."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.left = nn.Linear(width, 8)
        self.right = nn.Linear(width, 8)
        self.head = nn.Linear(8, outputs)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Treat them differently."""
        out: Tensor = self.head(torch.relu(self.left(left)) - torch.tanh(self.right(right)))
        return out


def _plain(width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 12), nn.ReLU(), nn.Linear(12, outputs))


def _frozen(width: int, outputs: int) -> nn.Module:
    model = _plain(width, outputs)
    model[0].requires_grad_(False)
    return model


def _batch_norm(width: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(width, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, outputs)
    )


def _dropout(width: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, outputs))


def _strided(width: int, outputs: int) -> nn.Module:
    model = _plain(width, outputs)
    for layer in (model[0], model[2]):
        weight = layer.weight
        assert isinstance(weight, Tensor)
        layer.weight = nn.Parameter(weight.detach().t().contiguous().t())
    return model


def _two_inputs(x: Tensor) -> dict[str, Tensor]:
    return {"left": x, "right": x.flip(1)}


def _two_inputs_reversed(x: Tensor) -> dict[str, Tensor]:
    return {"right": x.flip(1), "left": x}


AWKWARD_MODELS = {
    "tied": AwkwardModel(Tied),
    "frozen": AwkwardModel(_frozen),
    "batch_norm": AwkwardModel(_batch_norm),
    "dropout": AwkwardModel(_dropout),
    "strided": AwkwardModel(_strided),
    "counting": AwkwardModel(Counting),
    "fp16": AwkwardModel(lambda d, k: _plain(d, k).half()),
    "bf16": AwkwardModel(lambda d, k: _plain(d, k).bfloat16()),
    "fp64": AwkwardModel(lambda d, k: _plain(d, k).double()),
    "two_arguments": AwkwardModel(TwoArguments, _two_inputs),
}
"""Every awkward model, by name."""

REORDERED_INPUTS = AwkwardModel(TwoArguments, _two_inputs_reversed)
"""``two_arguments`` with its inputs in the other order: nothing may depend on that."""
