"""Optimised inputs: gradient descent on the inputs of a fixed model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from unlearnkit.core.data import Batch
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.train.loop import Norm, training

InputLoss = Callable[[Tensor, Batch], Tensor]
"""From outputs ``(M, K)`` on a batch, and the batch with what is moved as its inputs ``(M, ...)``,
to a scalar."""


def random_inputs(
    targets: Tensor,
    shape: tuple[int, ...],
    rt: Runtime,
    *,
    stream: str,
    dtype: torch.dtype = torch.float32,
) -> Batch:
    """Return a batch of M standard normal inputs ``(M, *shape)`` for targets ``(M, ...)``."""
    x = torch.randn(len(targets), *shape, generator=rt.rng(stream), dtype=dtype)
    rows = torch.arange(len(targets))
    return Batch(x.to(rt.device), targets.to(rt.device), rows, rt.cost)


def optimise_inputs(
    model: nn.Module,
    batch: Batch,
    task: Task,
    loss: InputLoss,
    recipe: Recipe,
    rt: Runtime,
    *,
    steps: int,
    norm: Norm = "frozen",
    shown: Callable[[Tensor], Tensor] | None = None,
) -> Batch:
    """Return a batch whose inputs ``x (M, ...)`` were moved so that a fixed model's loss falls.

    All inputs go through the model together in each of ``steps`` steps; a loss that is a sum over
    inputs moves each as if it were alone. The recipe gives optimiser, rate and schedule. ``norm``
    is ``frozen`` (eval mode, no buffer changes) or ``train`` (batch statistics, and running ones
    follow). ``shown`` maps what is moved to what the model is given.
    """
    assert isinstance(batch.x, Tensor)
    x = nn.Parameter(batch.x.detach().clone())
    moving = replace(batch, x=x)
    opt = recipe.build([x])
    with freeze(model, norm):
        for step in range(steps):
            for group in opt.param_groups:
                group["lr"] = recipe.lr * recipe.factor(step, steps)
            x.grad = None
            given = moving if shown is None else replace(batch, x=shown(x))
            with rt.autocast():
                value = loss(task.outputs(model, given), moving)
            rt.backward(value)
            opt.step()
    return replace(batch, x=x.detach())


@contextmanager
def freeze(model: nn.Module, norm: Norm = "frozen") -> Iterator[None]:
    """Take no gradient of a model's parameters; in train mode only where ``norm`` is ``train``."""
    flags = [(p, p.requires_grad) for p in model.parameters()]
    with training(model):
        model.train(norm == "train")
        model.requires_grad_(False)
        try:
            yield
        finally:
            for p, was in flags:
                p.requires_grad_(was)
