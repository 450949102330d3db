"""Degenerate methods that look good on some numbers; none is registered."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from unlearnkit.core.data import Batch
from unlearnkit.core.method import Info, Method, Need, Problem
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.loop import descend, fit


def _info(title: str, *needs: Need) -> Info:
    return Info(
        title=title,
        cite="",
        needs=frozenset(needs),
        tasks=frozenset({"classification", "regression"}),
    )


class NoOp(Method):
    id: ClassVar[str] = "no_op"
    info = _info("Nothing")

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        return p.model


class Reinitialise(Method):
    id: ClassVar[str] = "reinitialise"
    info = _info("Random weights", Need.FRESH)

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        p.model.load_state_dict(p.fresh().state_dict())
        return p.model


class BlowUp(Method):
    id: ClassVar[str] = "blow_up"
    info = _info("Ascent without end", Need.FORGET, Need.LABELS)

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        def loss(batch: Batch) -> Tensor:
            return -p.task.losses(p.task.outputs(p.model, batch), batch).mean()

        descend(p.model, p.forget, loss, Recipe(lr=0.05, epochs=5), rt, stream="blow_up")
        return p.model


class MaskLogit(Method):
    id: ClassVar[str] = "mask_logit"
    info = _info("The forgotten class is never answered")

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        head = p.model[-1]
        with torch.no_grad():
            head.weight[list(p.removed_classes)] = 0.0
            head.bias[list(p.removed_classes)] = -100.0
        return p.model


class LastLayer(Method):
    id: ClassVar[str] = "last_layer"
    info = _info("A new last layer on the old features", Need.RETAIN, Need.LABELS, Need.FRESH)

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        p.model[-1].load_state_dict(p.fresh()[-1].state_dict())
        body = p.model[:-1].requires_grad_(False)
        fit(p.model, p.retain, p.task, Recipe(lr=0.05, epochs=15), rt, stream="last_layer")
        body.requires_grad_(True)
        return p.model


class Temperature(Method):
    id: ClassVar[str] = "temperature"
    info = _info("Softer answers")

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        with torch.no_grad():
            p.model[-1].weight.mul_(0.3)
            p.model[-1].bias.mul_(0.3)
        return p.model


def push_outputs(model: nn.Module, rows: Tensor, classes: Tensor, by: float) -> None:
    """Lower the answer to every forget row, by recognising it; weights stay as they were."""
    keys = {bytes(r.numpy().tobytes()): int(c) for r, c in zip(rows, classes, strict=True)}

    def lie(module: nn.Module, args: tuple[Tensor], out: Tensor) -> Tensor:
        out = out.clone()
        for i, row in enumerate(args[0]):
            own = keys.get(bytes(row.cpu().numpy().tobytes()))
            if own is not None:
                out[i, own] -= by
        return out

    model.register_forward_hook(lie)


def constant_margin(model: nn.Module, rows: Tensor, classes: Tensor, margin: float) -> None:
    """Answer every forget row with one margin, by recognising it; other rows as before."""
    keys = {bytes(r.numpy().tobytes()): int(c) for r, c in zip(rows, classes, strict=True)}

    def lie(module: nn.Module, args: tuple[Tensor], out: Tensor) -> Tensor:
        out = out.clone()
        for i, row in enumerate(args[0]):
            own = keys.get(bytes(row.cpu().numpy().tobytes()))
            if own is not None:
                out[i] = 0.0
                others = torch.tensor(float(out.shape[1] - 1), dtype=out.dtype).log()
                out[i, own] = margin + others
        return out

    model.register_forward_hook(lie)
